"""A Gateway of a waypoint's class is a Deployment and a Service, and has the Service's addresses."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from ztunnel.demo import command
from ztunnel.demo.assign import Objects, cluster_ips
from ztunnel.demo.cluster import cluster
from ztunnel.demo.command import Program
from ztunnel.demo.manifest import Key, parse
from ztunnel.demo.names import Names
from ztunnel.demo.schedule import complete, remove
from ztunnel.demo.waypoints import COMMAND

GATEWAY = (
    "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: wp, namespace: shop}\n"
    "spec: {gatewayClassName: %s, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}\n"
)
KEY = Key("gateway.networking.k8s.io", "Gateway", "shop", "wp")
_uids = itertools.count()


def applied(text: str, before: Objects | None = None) -> Objects:
    return complete(before or {}, parse(text, "x.yaml"), lambda: f"uid-{next(_uids)}")


def test_it_becomes_a_pod_of_its_name_and_account_behind_a_service() -> None:
    objects = applied(GATEWAY % "istio-waypoint")
    (pod,) = cluster(objects).pods
    assert pod.name.startswith("wp-")
    assert pod.labels["gateway.networking.k8s.io/gateway-name"] == "wp"
    assert pod.labels["istio.io/dataplane-mode"] == "none"
    assert pod.labels["networking.istio.io/tunnel"] == "http"
    assert pod.containers[0].command == COMMAND
    assert len(cluster_ips(objects[Key("", "Service", "shop", "wp")])) == 2
    addresses = objects[KEY].pull("status.addresses", list, [])
    assert addresses == [{"type": "Hostname", "value": "wp.shop.svc.cluster.local"}]
    (manifest,) = [one for key, one in objects.items() if key.kind == "Pod"]
    assert manifest.pull("spec.serviceAccountName", str, "") == "wp"


def test_it_stays_what_it_is_and_goes_with_its_gateway() -> None:
    objects = applied(GATEWAY % "istio-waypoint")
    again = applied("apiVersion: v1\nkind: Namespace\nmetadata: {name: other}\n", objects)
    assert {key for key in objects if key.kind == "Pod"} == {key for key in again if key.kind == "Pod"}
    assert cluster(again).pods == cluster(objects).pods
    gone = remove(again, [KEY], lambda: "uid")
    assert not cluster(gone).pods
    assert not [key for key in gone if key.kind in ("Service", "Deployment")]


def test_its_gateway_says_whether_servers_are_told_who_calls() -> None:
    said = "annotations: {ambient.istio.io/xfcc-include-client-identity: %s}"
    for value, told in (("'true'", "true"), ("'false'", None)):
        text = (GATEWAY % "istio-waypoint").replace("namespace: shop}", f"namespace: shop, {said % value}}}")
        (pod,) = cluster(applied(text)).pods
        assert pod.containers[0].environment.get("ZTUNNEL_XFCC") == told


def test_gateways_of_others_are_left_alone() -> None:
    objects = applied(GATEWAY % "nginx")
    assert not cluster(objects).pods
    assert objects[KEY].pull("status.addresses", list, []) == []


def test_what_somebody_else_runs_for_it_is_left_alone() -> None:
    by_hand = (GATEWAY % "istio-waypoint").replace(
        "listeners:", "addresses: [{type: Hostname, value: wp.shop.svc.cluster.local}], listeners:"
    )
    objects = applied(by_hand)
    assert not cluster(objects).pods
    assert Key("", "Service", "shop", "wp") not in objects


def test_an_object_of_somebody_else_s_with_its_name_stays_what_it_is() -> None:
    service = (
        "apiVersion: v1\nkind: Service\nmetadata: {name: wp, namespace: shop}\n"
        "spec: {ports: [{name: mesh, port: 15008}]}\n---\n"
    )
    objects = applied(service + GATEWAY % "istio-waypoint")
    kept = objects[Key("", "Service", "shop", "wp")]
    assert kept.pull("spec.selector", dict, {}) == {}
    assert kept.pull("metadata.labels", dict, {}) == {}
    gone = remove(objects, [KEY], lambda: "uid")
    assert Key("", "Service", "shop", "wp") in gone


def test_it_runs_as_the_node_proxies_do_and_knows_what_they_know(monkeypatch) -> None:
    names = Names("lab", Path("/cgroup2"))
    each = Program(["ztunnel", "waypoint", "--log-level", "debug"], {"POD_NAME": "wp-1", "PATH": "/x"})
    words, environment = command.completed(names, each, {"ZTUNNEL_PROGRAM": "/opt/ztunnel", "A": "b"})
    assert words[:2] == ["/opt/ztunnel", "waypoint"]
    assert words[2:4] == ["--manifests", str(names.manifests)]
    assert words[-2:] == ["--log-level", "debug"]
    assert (environment["POD_NAME"], environment["A"]) == ("wp-1", "b")
    assert environment.get("PATH") != "/x"
    other = Program(["sleep", "1"], {"X": "y"})
    assert command.completed(names, other, os.environ) == (["sleep", "1"], {"X": "y"})
