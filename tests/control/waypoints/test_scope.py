"""What a waypoint is sent follows from what is attached to it: routes, what they lead to, their policies."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from tests.control.scoped import AT, forwards, mirrored, pod, routes, service, snapshot
from ztunnel.control.waypoints.scope import (
    NOTHING,
    NoSecrets,
    Scope,
    Stands,
    handle_of,
    handles_of,
    led_to,
    scope_of,
    waypoints_of,
)
from ztunnel.model.labels import WorkloadLabels
from ztunnel.model.route import ConnectionRule, Routes
from ztunnel.model.service import Service, ServiceName, Waypoint
from ztunnel.model.service_traffic import ClientTraffic, ServiceTraffic
from ztunnel.model.traffic import ClientTls, PortTraffic, TlsMode, Traffic
from ztunnel.xds.resource import (
    ADDRESS,
    AUTHORIZATION,
    CREDENTIAL,
    HTTP_POLICY,
    JWT_POLICY,
    LABELS,
    MESH_DEFAULTS,
    PROVIDER,
    ROUTES,
    TRAFFIC,
)
from ztunnel.xds.snapshot import Snapshot

WAYPOINT = service("waypoint", guards=("shop/own",))
WEB = service("web", at=WAYPOINT, guards=("shop/guard",), jwt_policies=("shop/tokens",))
CART, COPY = service("cart", "other"), service("copy", "other")
ALIEN = service("alien", "other", guards=("other/guard",))
OWN = pod("waypoint-1", WAYPOINT)


def stands(world: Snapshot, *through: Service) -> Stands:
    return Stands(
        OWN.uid,
        handles_of(world, OWN),
        frozenset({str(WEB.key)}),
        frozenset(one.key for one in through),
    )


def addresses(world: Snapshot, scope: Scope) -> set[str]:
    """The names of those that it is sent."""
    return {name for name in world.origins[ADDRESS] if scope.holds(world, ADDRESS, name)}


def test_a_scope_is_what_is_attached_and_what_that_leads_to() -> None:
    world = snapshot(
        WAYPOINT, WEB, CART, COPY, ALIEN, OWN, routes(WEB, forwards(WEB, CART), mirrored(WEB, COPY))
    )
    scope = scope_of(world, stands(world))
    assert scope.names[ROUTES] == {str(WEB.key)}
    assert scope.names[TRAFFIC] == {str(one.key) for one in (WAYPOINT, WEB, CART, COPY)}
    assert scope.names[HTTP_POLICY] == {"shop/guard", "shop/own"}
    assert scope.names[JWT_POLICY] == {"shop/tokens"}


def test_labels_are_those_of_endpoints_of_its_services_wherever_they_are() -> None:
    cart, alien = pod("cart-1", CART, namespace="other"), pod("alien-1", ALIEN, namespace="other")
    labels = [WorkloadLabels(one.uid, frozenset({("app", "x")})) for one in (OWN, cart, alien)]
    world = snapshot(WAYPOINT, WEB, CART, ALIEN, OWN, cart, alien, routes(WEB, forwards(WEB, CART)), *labels)
    scope = scope_of(world, stands(world))
    held = {one.uid: scope.holds(world, LABELS, one.uid) for one in (OWN, cart, alien)}
    assert held == {OWN.uid: True, cart.uid: True, alien.uid: False}
    assert not scope.holds(world, LABELS, "c//Pod/shop/nobody")


@pytest.mark.parametrize("type_url", [AUTHORIZATION, PROVIDER, MESH_DEFAULTS])
def test_what_holds_for_the_mesh_holds_for_all(type_url: str) -> None:
    assert NOTHING.holds(snapshot(), type_url, "c//Pod/other/any")
    assert not NOTHING.holds(snapshot(), ROUTES, "other/any")


def test_addresses_are_those_of_what_is_served_and_of_what_that_leads_to() -> None:
    cart, alien = pod("cart-1", CART, namespace="other"), pod("alien-1", ALIEN, namespace="other")
    served = [WAYPOINT, WEB, CART, OWN, cart, pod("web-1", WEB)]
    world = snapshot(*served, ALIEN, COPY, alien, pod("lonely"), routes(WEB, forwards(WEB, CART)))
    scope = scope_of(world, stands(world))
    assert addresses(world, scope) == {OWN.uid, cart.uid, "c//Pod/shop/web-1"} | {
        str(one.key) for one in (WAYPOINT, WEB, CART)
    }
    assert addresses(world, replace(scope, whole=True)) == {*world.origins[ADDRESS]}


def test_a_pod_that_is_attached_is_sent_with_its_services() -> None:
    behind = pod("own-1", ALIEN, namespace="other", waypoint=Waypoint(WAYPOINT.key, None))
    beside = pod("alien-1", ALIEN, namespace="other")
    world = snapshot(WAYPOINT, WEB, OWN, ALIEN, behind, beside)
    found = addresses(world, scope_of(world, stands(world, ALIEN)))
    assert found == {OWN.uid, behind.uid} | {str(one.key) for one in (WAYPOINT, WEB, ALIEN)}


@pytest.mark.parametrize("by_address", [False, True])
@pytest.mark.parametrize("ip", ["10.96.0.7", "fd00::7"])
def test_what_routes_lead_to_may_be_behind_another_waypoint_which_is_sent_too(
    ip: str, by_address: bool
) -> None:
    other = service("other", "other", addresses=(ip_address(ip),))
    named = Waypoint(None, ip_address(ip)) if by_address else Waypoint(other.key, None)
    cart = replace(CART, waypoint=named)
    its = pod("other-1", other, namespace="other")
    world = snapshot(WAYPOINT, WEB, OWN, cart, other, its, ALIEN, routes(WEB, forwards(WEB, cart)))
    scope = scope_of(world, stands(world))
    assert {str(other.key), its.uid} <= addresses(world, scope)
    assert str(ALIEN.key) not in addresses(world, scope)
    assert not scope.holds(world, LABELS, its.uid)


@pytest.mark.parametrize("ip", ["10.96.0.7", "fd00::7"])
def test_whoever_shares_the_address_of_a_service_is_sent_so_that_it_means_the_same_to_all(ip: str) -> None:
    web = replace(WEB, addresses=(ip_address(ip),))
    rivals = [pod("rival", addresses=(ip_address(ip),)), service("rival", addresses=(ip_address(ip),))]
    hosted = pod("hosted", addresses=(ip_address(ip),), host_network=True)
    world = snapshot(WAYPOINT, web, OWN, *rivals, hosted)
    found = addresses(world, scope_of(world, stands(world)))
    assert found == {OWN.uid, str(WAYPOINT.key), str(web.key), "c//Pod/shop/rival", "shop/rival.shop.svc"}


SECRET = Traffic(tls=ClientTls(TlsMode.MUTUAL, credential="s"))


def needs_secret(*of: Service) -> list[ServiceTraffic]:
    return [ServiceTraffic(one.key, (ClientTraffic("", PortTraffic(SECRET)),)) for one in of]


def test_a_waypoint_is_sent_the_secrets_of_its_namespace_that_it_needs_and_no_others() -> None:
    world = snapshot(WAYPOINT, WEB, CART, OWN, routes(WEB, forwards(WEB, CART)), *needs_secret(CART, ALIEN))
    scope = scope_of(world, stands(world))
    assert scope.names[CREDENTIAL] == {"shop/s"}
    assert not scope.holds(world, CREDENTIAL, "other/s")
    assert scope.account == "shop/default"
    other = snapshot(WAYPOINT, WEB, CART, OWN, *needs_secret(CART))
    assert scope_of(other, stands(other)).names[CREDENTIAL] == set()


def test_a_waypoint_that_only_workloads_use_is_sent_the_secrets_of_whom_it_asks() -> None:
    world = snapshot(WAYPOINT, OWN, CART, *needs_secret(CART))
    asked = Stands(OWN.uid, handles_of(world, OWN), provided=frozenset({CART.key}), pods=True)
    assert scope_of(world, asked).names[CREDENTIAL] == {"shop/s"}
    assert CREDENTIAL not in scope_of(world, replace(asked, pods=False)).names


def test_a_pod_that_nothing_names_as_its_waypoint_is_sent_no_secret_though_its_service_needs_one() -> None:
    world = snapshot(WAYPOINT, OWN, *needs_secret(WAYPOINT))
    scope = scope_of(world, replace(stands(world), attached=frozenset()))
    assert not scope.holds(world, CREDENTIAL, "shop/s")
    assert not NOTHING.holds(world, CREDENTIAL, "shop/s")
    assert not NoSecrets().holds(world, CREDENTIAL, "shop/s")
    assert NoSecrets().holds(world, ROUTES, "shop/s")


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
