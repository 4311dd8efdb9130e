"""What the laboratory and the Envoys are told."""

from __future__ import annotations

from pathlib import Path

import yaml

from bench.configuration import envoys, manifests
from bench.contestants import MESHED, PLAIN, PROXIED, STRICT

ADDRESSES = {"proxied/far": "10.0.2.2", "proxied/near": "10.0.1.2", "plain/far": "10.0.2.9"}


def test_all_namespaces_have_the_same_pods_and_only_ours_are_opted_in() -> None:
    documents = list(yaml.safe_load_all(manifests(Path("/tmp/x"), ["peer-0"])))
    pods = {(d["metadata"]["namespace"], d["metadata"]["name"]) for d in documents if d["kind"] == "Pod"}
    namespaces = {d["metadata"]["name"]: d["metadata"] for d in documents if d["kind"] == "Namespace"}
    assert {name: each["labels"]["istio.io/dataplane-mode"] for name, each in namespaces.items()} == {
        MESHED: "ambient", STRICT: "ambient", PLAIN: "none", PROXIED: "none", "peer-0": "none",
    }  # fmt: skip
    assert namespaces[STRICT]["annotations"] == {"ztunnel.io/same-node": "mtls"}
    assert pods == {(ns, name) for ns in namespaces for name in ("client", "near", "far", "open")}


def test_the_envoys_know_each_other_by_address_and_identity() -> None:
    texts = envoys(Path("/certs"), ADDRESSES, log=False)
    client, far, near = (
        yaml.safe_load(texts[name])["static_resources"] for name in ("client", "far", "near")
    )
    listeners = {
        each["name"]: each["address"]["socket_address"]["port_value"] for each in client["listeners"]
    }
    assert listeners == {"far": 15001, "sink": 15004, "near": 15002, "out": 15003}
    for each, address in ((far, "10.0.2.2"), (near, "10.0.1.2")):
        assert [one["address"]["socket_address"]["address"] for one in each["listeners"]] == [address] * 2
    assert '"10.0.2.2:80"' in texts["client"]
    assert '"10.0.1.2:80"' in texts["client"]
    assert "10.0.2.9" in texts["client"]
    assert "spiffe://cluster.local/ns/proxied/sa/server" in texts["client"]
    assert "spiffe://cluster.local/ns/proxied/sa/client" in texts["far"]


def logs_of(value: object) -> list[object]:
    """All that stands under `access_log`, wherever."""
    if isinstance(value, list):
        return [found for each in value for found in logs_of(each)]
    if isinstance(value, dict):
        own = [value["access_log"]] if "access_log" in value else []
        return own + [found for each in value.values() for found in logs_of(each)]
    return []


def test_every_way_through_an_envoy_is_logged_or_none_is() -> None:
    for log in (True, False):
        texts = envoys(Path("/certs"), ADDRESSES, log)
        for name, ways in (("client", 4), ("far", 2), ("near", 2)):
            found = logs_of(yaml.safe_load(texts[name]))
            assert len(found) == ways
            assert all(bool(each) is log for each in found)
            if log:
                path = found[0][0]["typed_config"]["path"]
                assert path == f"/certs/access-{name}.log"
