"""Conditions say what becomes of an object, and are written once."""

from dataclasses import replace
from ipaddress import ip_network

import pytest
import yaml

from ztunnel.control.index import Index
from ztunnel.control.policies.policy_targets import Target
from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.document import KINDS, Key
from ztunnel.control.source.reading import parse, read_value
from ztunnel.control.status.condition import Condition
from ztunnel.control.status.conditions import (
    Said,
    at_waypoint,
    gateway_status,
    said_of,
    wanted,
)
from ztunnel.control.status.standing import Standing, is_our_class, is_waypoint
from ztunnel.control.waypoints.waypoint import CONTROLLER, Binding, GatewayState, Waypoints
from ztunnel.errors import Fault
from ztunnel.model.service import IpFamilies, ServiceName, Waypoint
from ztunnel.state.gateway import Gateway, GatewayClass, Listener
from ztunnel.state.kube import Service
from ztunnel.state.meta import Meta
from ztunnel.state.networking import EntryPort, Resolution, ServiceEntry

META = "metadata: {name: p, namespace: shop, generation: 4, resourceVersion: '7'}"


def conditions_of(group, kind, text, faults=()):
    found = read_value(yaml.safe_load(f"{META}\n{text}"), KINDS[group, kind], strict=True)
    return wanted(found.object, tuple(faults), MeshSettings())


def policy(spec, faults=()):
    return conditions_of("security.istio.io", "AuthorizationPolicy", f"spec: {spec}", faults)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("{rules: [{}]}", Condition("ZtunnelAccepted", True, "Accepted", "attached to ztunnel")),
        (
            "{action: AUDIT}",
            Condition(
                "ZtunnelAccepted", False, "UnsupportedValue", "node proxies do not support the AUDIT action"
            ),
        ),
    ],
)  # fmt: skip
def test_a_policy_is_accepted_or_not_with_the_reason(spec, expected):
    assert policy(spec) == (expected,)


BOUND = Target("shop/wp")
LOST = Target("", "TargetNotFound", "Service shop/x was not found")
UNBOUND = Target("", "AncestorNotBound", "Service shop/y is not bound to a waypoint")


@pytest.mark.parametrize(
    ("targets", "met", "reason", "message"),
    [
        ([BOUND], True, "Accepted", "bound to shop/wp"),
        ([BOUND, BOUND, Target("a/b")], True, "Accepted", "bound to shop/wp, a/b"),
        ([LOST], False, "TargetNotFound", LOST.message),
        ([UNBOUND, LOST], False, "AncestorNotBound", f"{UNBOUND.message}; {LOST.message}"),
        ([LOST, BOUND], True, "PartiallyInvalid", f"bound to shop/wp; {LOST.message}"),
        ([], False, "AncestorNotBound", "not bound"),
    ],
)
def test_a_policy_with_targets_is_bound_or_not(targets, met, reason, message):
    found = at_waypoint(targets)
    assert found == Condition("WaypointAccepted", met, reason, message)


def test_what_of_a_policy_a_waypoint_enforces_otherwise_is_said():
    text = (
        "spec: {action: CUSTOM, provider: {name: x}, rules: [{}], targetRefs: [{kind: Service, name: web}]}"
    )
    value = read_value(
        yaml.safe_load(f"{META}\n{text}"), KINDS["security.istio.io", "AuthorizationPolicy"], strict=True
    )
    (found,) = wanted(value.object, (), MeshSettings(), Said(targets=(BOUND,), problem="no provider"))
    assert (found.met, found.reason) == (True, "PartiallyInvalid")
    assert found.message == "bound to shop/wp; no provider"


def test_attributes_of_http_are_named():
    (found,) = policy("{rules: [{to: [{operation: {methods: [GET]}}]}]}")
    assert (found.met, found.reason) == (True, "UnsupportedValue")
    assert "do not support HTTP attributes (found: methods)" in found.message


def test_of_a_faulty_policy_field_fault_and_what_counts_instead_are_said():
    fault = Fault("x", 0, "spec.action", "must be one of ALLOW, DENY, AUDIT, CUSTOM")
    (kept,) = policy("{}", [fault])
    assert (kept.met, kept.reason) == (False, "Invalid")
    assert (
        kept.message
        == "spec.action: must be one of ALLOW, DENY, AUDIT, CUSTOM; its last good version is in force"
    )
    (never,) = wanted(None, (fault,), MeshSettings())
    assert never.message.endswith("it is not in force")


@pytest.mark.parametrize(
    ("labels", "name"),
    [
        ("{istio.io/use-waypoint: wp}", "shop/wp"),
        ("{istio.io/use-waypoint: wp, istio.io/use-waypoint-namespace: infra}", "infra/wp"),
        ("{istio.io/use-waypoint: none}", ""),
        ("{}", ""),
    ],
)
def test_a_service_is_not_bound_to_a_waypoint_that_is_not_there(labels, name):
    value = yaml.safe_load(f"metadata: {{name: web, namespace: shop, labels: {labels}}}\nspec: {{}}")
    service = read_value(value, KINDS["", "Service"], strict=False).object
    said = said_of(KEY, service, Waypoints(Index(), MeshSettings()), ())
    found = wanted(service, (), MeshSettings(), said)
    texts = [("WaypointIsNotReady", f'waypoint "{name}" is not ready')] if name else []
    assert [(one.reason, one.message) for one in found] == texts


KEY = Key("Service", "shop", "web")
WEB = Meta("web", "shop", {}, {})
SERVICE = Service(WEB, "", {}, (), (), False, "", False, IpFamilies.AUTOMATIC)


def test_what_is_bound_and_what_is_refused_is_said():
    waypoint = Waypoint(ServiceName("shop", "wp.shop.svc.cluster.local"), None)
    said = Said(("host a is Service shop/a",), Binding("shop/wp", waypoint))
    assert wanted(SERVICE, (), MeshSettings(), said) == (
        Condition("ZtunnelAccepted", False, "Conflicted", "host a is Service shop/a"),
        Condition(
            "istio.io/WaypointBound", True, "WaypointAccepted", "Successfully attached to waypoint shop/wp"
        ),
    )
    assert wanted(SERVICE, (), MeshSettings()) == ()


@pytest.mark.parametrize(
    ("state", "expected", "addresses"),
    [
        (None, [], None),
        (
            GatewayState("bad", None),
            [("Accepted", False, "ListenersNotValid"), ("Programmed", False, "Invalid")],
            [],
        ),
        (
            GatewayState("", ServiceName("shop", "wp.x"), ready=False),
            [("Accepted", True, "Accepted"), ("Programmed", False, "Pending")],
            [],
        ),
        (
            GatewayState("", None),
            [("Accepted", True, "Accepted"), ("Programmed", False, "AddressNotAssigned")],
            [],
        ),
        (
            GatewayState("", ServiceName("shop", "wp.x")),
            [("Accepted", True, "Accepted"), ("Programmed", True, "Programmed")],
            [{"type": "Hostname", "value": "wp.x"}],
        ),
    ],
)
def test_a_gateway_of_ours_says_how_it_is(state, expected, addresses):
    one = Gateway(WEB, "ztunnel-waypoint", (Listener(15008, "HBONE", name="mesh"),))
    said = Said(gateway=state, one=one)
    found = wanted(one, (), MeshSettings(), said)
    assert [(one.type, one.met, one.reason) for one in found] == expected
    status = gateway_status(said, Standing("7", 3, (), False), "2026-11-29T14:00:00Z")
    assert status.get("addresses") == addresses
    for listener in status.get("listeners", ()):
        assert listener["name"] == "mesh"
        assert [(one["type"], one["status"]) for one in listener["conditions"]] == [
            (kind, str(met)) for kind, met, _ in expected
        ]


def test_the_address_of_a_gateway_stays_when_its_service_goes():
    """What is attached to it is refused from then on, and not let through without its rules."""
    one = Gateway(WEB, "ztunnel-waypoint", (), addresses=(("Hostname", "wp.x"),))
    for state in (GatewayState("", None), GatewayState("bad", ServiceName("shop", "wp.x"))):
        found = gateway_status(Said(gateway=state, one=one), Standing("7", 3, (), False), "")
        assert found["addresses"] == [{"type": "Hostname", "value": "wp.x"}]


def test_our_class_is_accepted_and_no_other_one_is_spoken_of():
    for controller, expected in ((CONTROLLER, ["Accepted"]), ("istio.io/gateway-controller", [])):
        one = GatewayClass(WEB, controller)
        said = said_of(Key("GatewayClass", "", "x"), one, Waypoints(Index(), MeshSettings()), ())
        assert [each.type for each in wanted(one, (), MeshSettings(), said)] == expected
        assert is_our_class({"spec": {"controllerName": controller}}) is bool(expected)
    assert is_waypoint({"spec": {"gatewayClassName": "istio-waypoint"}})
    assert not is_waypoint({"spec": {"gatewayClassName": "istio"}})


BY_DISCOVERY = "jwtRules: [{issuer: 'https://i'}]"
TO_WEB = "targetRefs: [{kind: Service, name: web}]"


@pytest.mark.parametrize(
    ("spec", "met", "reason", "message"),
    [
        (f"{TO_WEB}, {BY_DISCOVERY}", True, "Accepted", ""),
        (TO_WEB, True, "PartiallyInvalid", "without jwtRules"),
        (BY_DISCOVERY, False, "UnsupportedValue", "without targetRefs"),
    ],
)
def test_a_request_authentication_is_bound_or_not(spec, met, reason, message):
    text = (
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\n"
        f"metadata: {{name: p, namespace: shop}}\nspec: {{{spec}}}\n"
    )
    (one,) = parse(text).objects
    targets = (BOUND,) if one.targets else ()
    (found,) = wanted(one, (), MeshSettings(), Said(targets=targets))
    assert (found.type, found.met, found.reason) == ("WaypointAccepted", met, reason)
    assert message in found.message


def test_a_request_authentication_that_is_wrong_says_so_where_waypoints_do():
    faults = (Fault("", 0, "spec.jwtRules[0].jwks", "has no [keys]"),)
    (found,) = wanted(None, faults, MeshSettings(), kind="RequestAuthentication")
    assert (found.type, found.met, found.reason) == ("WaypointAccepted", False, "Invalid")
    assert "spec.jwtRules[0].jwks: has no [keys]" in found.message


def test_a_rule_that_asks_for_what_nobody_can_do_says_so():
    text = """apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a, namespace: shop}
spec: {host: web, trafficPolicy: {tunnel: {targetHost: b, targetPort: 80}}}
"""
    (rule,) = parse(text).objects
    (condition,) = wanted(rule, (), MeshSettings())
    assert (condition.type, condition.met, condition.reason) == (
        "WaypointAccepted",
        False,
        "UnsupportedValue",
    )
    assert condition.message == "trafficPolicy.tunnel is not supported: connections that need it are refused"
    (rule,) = parse(text.replace("tunnel: {targetHost: b, targetPort: 80}", "")).objects
    assert wanted(rule, (), MeshSettings()) == ()
    zones = "loadBalancer: {zoneAwareLbSetting: {enabled: true}}"
    (rule,) = parse(text.replace("tunnel: {targetHost: b, targetPort: 80}", zones)).objects
    (condition,) = wanted(rule, (), MeshSettings())
    assert (condition.met, condition.reason) == (True, "PartiallyInvalid")
    assert condition.message.startswith("trafficPolicy.loadBalancer.zoneAwareLbSetting has no effect")


RANGES = ("10.9.0.0/16", "fd00:9::/32")


@pytest.mark.parametrize("address", RANGES)
def test_what_of_an_entry_is_not_acted_on_is_said_and_is_no_refusal(address: str) -> None:
    meta = Meta("ledger", "shop", {}, {})
    ports = (EntryPort("tls", 443, 443, "tls"),)
    entry = ServiceEntry(
        meta,
        ("a.b",),
        (ip_network(address), ip_network("10.8.0.1")),
        ports,
        Resolution.NONE,
        export_to=(".",),
    )
    (one,) = wanted(entry, (), MeshSettings())
    assert (one.type, one.met, one.reason) == ("ZtunnelAccepted", True, "UnsupportedValue")
    assert one.message.startswith(f"address {address} is a range: node proxies leave calls to it alone")
    assert "exportTo is not honoured: it is there in every namespace" in one.message
    (conflict,) = wanted(entry, (), MeshSettings(), Said(("host a.b is Service shop/a",)))
    assert (conflict.met, conflict.reason) == (False, "Conflicted")
    assert one.message in conflict.message
    whole = replace(entry, addresses=(ip_network("10.8.0.1"), ip_network("fd00::1")), export_to=("*",))
    assert wanted(whole, (), MeshSettings()) == ()
