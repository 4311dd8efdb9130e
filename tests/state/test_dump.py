"""The configuration dump: plain JSON values in ztunnel's shape."""

from __future__ import annotations

import json
from ipaddress import IPv6Network

from tests.builders import large_mesh, policy, service, strict, workload, world_of
from ztunnel.model import route_match
from ztunnel.model.credential import Credential
from ztunnel.model.http_policy import Attribute, HttpAction, HttpPolicy, Term, TextKind, TextMatch
from ztunnel.model.route import Routes, RouteSource, Rule
from ztunnel.model.route_action import Destination, Forward
from ztunnel.model.route_policy import ISTIO_RETRY
from ztunnel.model.service import LoadBalancing, Scope, ServiceName
from ztunnel.model.service_traffic import ClientTraffic, ServiceTraffic
from ztunnel.model.traffic import Balance, Balancing, Outlier, PortTraffic, Traffic
from ztunnel.model.workload import SameNode
from ztunnel.state.delta import apply
from ztunnel.state.dump import dump_http, dump_world

WEB = service("web", "shop").at("172.30.0.1", "fd30::1").port(80, 8080).port(90, 0)
POD = (
    workload("a", "shop")
    .on("n1")
    .hbone()
    .at("10.0.0.1", "fd00::1")
    .serves(WEB, (80, 8080))
    .selected_by("shop/p")
    .same_node_mode(SameNode.MTLS)
)
RULE = policy("p", "shop").selecting().when(principals=["*/sa/b", "x*"], not_source_ips=["10.0.0.0/8"])


def test_a_workload_is_shown() -> None:
    (shown,) = dump_world(world_of(POD, WEB))["workloads"]
    assert shown["uid"] == "Kubernetes//Pod/shop/a"
    assert shown["workloadIps"] == ["10.0.0.1", "fd00::1"]
    assert (shown["protocol"], shown["node"], shown["status"]) == ("HBONE", "n1", "Healthy")
    assert shown["services"] == ["shop/web.shop.svc.cluster.local"]
    assert shown["authorizationPolicies"] == ["shop/p"]
    assert (shown["sameNode"], shown["forwards"]) == ("mtls", False)
    assert (shown["capacity"], shown["nativeTunnel"]) == (1, False)
    (shown,) = dump_world(world_of(POD.unhealthy()))["workloads"]
    assert shown["status"] == "Unhealthy"


def test_a_service_is_shown_with_its_endpoints() -> None:
    (shown,) = dump_world(world_of(POD, WEB))["services"]
    assert shown["vips"] == ["/172.30.0.1", "/fd30::1"]
    assert shown["ports"] == {"80": 8080, "90": 0}
    endpoint = {"workloadUid": POD.uid, "service": "shop/web.shop.svc.cluster.local"}
    assert shown["endpoints"] == {POD.uid: {**endpoint, "port": {"80": 8080}, "status": "Healthy"}}
    assert "loadBalancer" not in shown
    strict = WEB.balanced(LoadBalancing.STRICT, Scope.NODE).with_unhealthy()
    assert dump_world(world_of(strict))["services"][0]["loadBalancer"] == {
        "mode": "Strict",
        "routingPreferences": ["Node"],
        "healthPolicy": "AllowAll",
    }


def test_a_waypoint_is_shown_by_its_name_or_address() -> None:
    gate = service("gate", "shop")
    (shown,) = dump_world(world_of(POD.through(gate)))["workloads"]
    assert shown["waypoint"] == {"destination": "shop/gate.shop.svc.cluster.local", "hboneMtlsPort": 15008}
    world = world_of(WEB.through("10.0.0.9", 15009), network="east")
    (shown,) = dump_world(world)["services"]
    assert shown["waypoint"] == {"destination": "east/10.0.0.9", "hboneMtlsPort": 15009}
    assert "waypoint" not in dump_world(world_of(POD))["workloads"][0]


def test_a_service_that_only_workloads_have_named_is_not_shown() -> None:
    assert dump_world(world_of(POD))["services"] == []


def test_a_policy_is_shown_with_the_fields_that_it_has() -> None:
    (shown,) = dump_world(world_of(RULE))["policies"]
    assert (shown["name"], shown["scope"], shown["action"]) == ("p", "WorkloadSelector", "Allow")
    suffix, prefix = {"Suffix": "/sa/b"}, {"Prefix": "x"}
    assert shown["rules"] == [[[{"principals": [suffix, prefix], "notSourceIps": ["10.0.0.0/8"]}]]]
    (shown,) = dump_world(world_of(strict(), policy("q").when(destination_ports=[80])))["policies"][:1]
    assert shown["rules"] == [[[{"destinationPorts": [80]}]]]


def test_a_policy_of_waypoints_is_shown_as_it_was_written() -> None:
    match = (
        Term(Attribute.PATH, (TextMatch(TextKind.PREFIX, "/a"), TextMatch(TextKind.PRESENCE))),
        Term(Attribute.HEADER, (), (TextMatch(TextKind.EXACT, "b"),), ("x-a",)),
        Term(Attribute.DESTINATION_PORT, (80,)),
        Term(Attribute.REMOTE_IP, (IPv6Network("fd00::/8"),)),
    )
    rule = HttpPolicy("p", "shop", HttpAction.CUSTOM, (((match,),),), provider="asks")
    world, _ = apply(world_of(), [rule])
    shown = dump_http(world)
    assert json.loads(json.dumps(shown)) == shown
    (policy,) = shown["httpPolicies"]
    assert (policy["name"], policy["action"], policy["provider"]) == ("p", "Custom", "asks")
    assert policy["rules"] == [
        [
            [
                {
                    "paths": {"values": [{"Prefix": "/a"}, {"Presence": {}}]},
                    "request.headers[x-a]": {"notValues": [{"Exact": "b"}]},
                    "destination.port": {"values": [80]},
                    "remote.ip": {"values": ["fd00::/8"]},
                }
            ]
        ]
    ]


def test_traffic_policies_are_shown_as_far_as_they_say_anything() -> None:
    traffic = PortTraffic(Traffic(Balancing(Balance.RANDOM)), ((80, Traffic(outlier=Outlier(2))),))
    name = ServiceName("shop", "web.shop.svc.cluster.local")
    world, _ = apply(world_of(), [ServiceTraffic(name, (ClientTraffic("", traffic),))])
    shown = dump_http(world)
    assert json.loads(json.dumps(shown)) == shown
    (one,) = shown["trafficPolicies"]
    assert one["service"] == str(name)
    (client,) = one["clients"]
    assert client["traffic"]["common"] == {"balancing": {"simple": "random"}}
    ((port, policies),) = client["traffic"]["ports"]
    assert (port, policies["outlier"]["serverErrors"]) == (80, 2)


def test_routes_are_shown_with_what_they_come_from() -> None:
    name = ServiceName("shop", "web.shop.svc.cluster.local")
    match = route_match.Match(path=route_match.TextMatch(route_match.TextKind.PREFIX, "/a"))
    forward = Forward((Destination(name, subset="v2", weight=9),))
    source = RouteSource("VirtualService", "shop", "web")
    rule = Rule("first", source, forward, (match,), timeout_seconds=0.5, retry=ISTIO_RETRY)
    world, _ = apply(world_of(), [Routes(name, (rule,))])
    shown = dump_http(world)
    assert json.loads(json.dumps(shown)) == shown
    (one,) = shown["routes"]
    assert one["service"] == str(name)
    (first,) = one["rules"]
    assert (first["name"], first["source"]) == ("first", "VirtualService shop/web")
    assert "v2" in json.dumps(first["action"])
    assert first["timeoutSeconds"] == 0.5
    assert first["retry"]["on"] == ["cancelled", "connect-failure", "refused-stream", "unavailable"]


def test_everything_is_sorted_and_can_be_written() -> None:
    world = world_of(*large_mesh(60, 10))
    shown = dump_world(world)
    assert json.loads(json.dumps(shown)) == shown
    for kind, key in (("workloads", "uid"), ("services", "hostname"), ("policies", "name")):
        keys = [(each["namespace"], each[key]) for each in shown[kind]]
        assert len(keys) > 1
        assert len(set(keys)) == len(keys)
    uids = [each["uid"] for each in shown["workloads"]]
    assert uids == sorted(uids)
    assert dump_world(world_of()) == {"workloads": [], "services": [], "policies": []}


def test_credentials_are_shown_without_what_is_secret() -> None:
    one = Credential("s", "shop", "CERTIFICATE", "THE KEY", "ROOTS")
    world, _ = apply(world_of(), [one])
    shown = dump_http(world)["credentials"]
    assert shown[0] == {
        "name": "s",
        "namespace": "shop",
        "certificate": "CERTIFICATE",
        "privateKey": "<redacted>",
        "roots": "ROOTS",
    }
    assert "THE KEY" not in repr(world) + json.dumps(dump_http(world))
    assert dict(apply(world, [], removed_http={Credential: ["shop/s"]})[0].credentials) == {}
