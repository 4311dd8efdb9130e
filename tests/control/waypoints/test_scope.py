"""What a waypoint is sent follows from what is attached to it: routes, what they lead to, their policies."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from tests.control.scoped import AT, forwards, mirrored, pod, routes, service, snapshot
from ztunnel.control.waypoints.scope import NOTHING, handle_of, handles_of, led_to, scope_of, waypoints_of
from ztunnel.model.labels import WorkloadLabels
from ztunnel.model.route import ConnectionRule, Routes
from ztunnel.model.service import ServiceName, Waypoint
from ztunnel.xds.resource import (
    ADDRESS,
    AUTHORIZATION,
    HTTP_POLICY,
    JWT_POLICY,
    LABELS,
    MESH_DEFAULTS,
    PROVIDER,
    ROUTES,
    TRAFFIC,
)

WAYPOINT = service("waypoint", guards=("shop/own",))
WEB = service("web", at=WAYPOINT, guards=("shop/guard",), jwt_policies=("shop/tokens",))
CART, COPY = service("cart", "other"), service("copy", "other")
ALIEN = service("alien", "other", guards=("other/guard",))
OWN = pod("waypoint-1", WAYPOINT)


def test_a_scope_is_what_is_attached_and_what_that_leads_to() -> None:
    world = snapshot(
        WAYPOINT, WEB, CART, COPY, ALIEN, OWN, routes(WEB, forwards(WEB, CART), mirrored(WEB, COPY))
    )
    scope = scope_of(world, handles_of(world, OWN), frozenset({str(WEB.key)}))
    assert scope.names[ROUTES] == {str(WEB.key)}
    assert scope.names[TRAFFIC] == {str(one.key) for one in (WAYPOINT, WEB, CART, COPY)}
    assert scope.names[HTTP_POLICY] == {"shop/guard", "shop/own"}
    assert scope.names[JWT_POLICY] == {"shop/tokens"}


def test_labels_are_those_of_endpoints_of_its_services_wherever_they_are() -> None:
    cart, alien = pod("cart-1", CART, namespace="other"), pod("alien-1", ALIEN, namespace="other")
    labels = [WorkloadLabels(one.uid, frozenset({("app", "x")})) for one in (OWN, cart, alien)]
    world = snapshot(WAYPOINT, WEB, CART, ALIEN, OWN, cart, alien, routes(WEB, forwards(WEB, CART)), *labels)
    scope = scope_of(world, handles_of(world, OWN), frozenset({str(WEB.key)}))
    held = {one.uid: scope.holds(world, LABELS, one.uid) for one in (OWN, cart, alien)}
    assert held == {OWN.uid: True, cart.uid: True, alien.uid: False}
    assert not scope.holds(world, LABELS, "c//Pod/shop/nobody")


@pytest.mark.parametrize("type_url", [ADDRESS, AUTHORIZATION, PROVIDER, MESH_DEFAULTS])
def test_who_calls_may_be_anybody_and_what_holds_for_the_mesh_holds_for_all(type_url: str) -> None:
    assert NOTHING.holds(snapshot(), type_url, "c//Pod/other/any")
    assert not NOTHING.holds(snapshot(), ROUTES, "other/any")


def test_rules_for_connections_lead_somewhere_too() -> None:
    rule = ConnectionRule("", AT, forwards(WEB, CART).action)
    assert {*led_to(Routes(WEB.key, (), (rule,)))} == {CART.key}


def test_a_pod_is_named_by_its_services_and_by_their_addresses_and_its_own() -> None:
    named = service("waypoint", addresses=(ip_address("10.96.0.9"), ip_address("fd00::9")))
    own = pod("waypoint-1", named, addresses=(ip_address("10.0.0.9"),))
    found = handles_of(snapshot(named, own), own)
    assert found == {named.key, *named.addresses, *own.addresses}


@pytest.mark.parametrize(
    ("waypoint", "expected"),
    [
        (None, None),
        (Waypoint(ServiceName("shop", "w"), None), ServiceName("shop", "w")),
        (Waypoint(None, ip_address("fd00::1")), ip_address("fd00::1")),
    ],
)
def test_what_a_waypoint_is_named_by(waypoint: Waypoint | None, expected: object) -> None:
    assert handle_of(waypoint) == expected


def test_a_service_is_attached_to_each_of_the_waypoints_that_share_it() -> None:
    first, second = service("first"), service("second")
    shared = service(
        "web", at=first, weighted_waypoints=((Waypoint(first.key, None), 1), (Waypoint(second.key, None), 2))
    )
    assert {*waypoints_of(shared)} == {first.key, second.key}
    assert [*waypoints_of(service("web"))] == []
