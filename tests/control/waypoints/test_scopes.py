"""Scopes follow attachments, routes and policies as they come and go; what leaves lingers, and costs no more
than what it names."""

from __future__ import annotations

import math
from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.control.scoped import forwards, pod, routes, service, snapshot
from ztunnel.control.waypoints.scope import Scope, Stands, handle_of, handles_of, scope_of
from ztunnel.control.waypoints.scopes import LINGER_SECONDS, Scopes
from ztunnel.model.provider import ExtAuthz, ExtensionProvider, ServicePort, Speech
from ztunnel.model.rate_limit import GlobalLimit, RateLimitPolicy
from ztunnel.model.service import Service, Waypoint
from ztunnel.model.workload import Workload
from ztunnel.xds.resource import ADDRESS, HTTP_POLICY, LABELS, ROUTES, TRAFFIC, Resource
from ztunnel.xds.snapshot import Snapshot

FIRST, SECOND = service("first"), service("second")
LOOSE = service("web")
WEB = service("web", at=FIRST, guards=("shop/guard",))
CART = service("cart", "other")
ONE, TWO = pod("first-1", FIRST), pod("second-1", SECOND)
CARTS = pod("cart-1", CART, namespace="other")
BASE: tuple[Resource, ...] = (FIRST, SECOND, CART, CARTS, ONE, TWO)


class Stage:
    """Two waypoints that subscribe, and the world."""

    def __init__(self, *resources: Resource) -> None:
        self.now = 0.0
        self.snapshot = snapshot(*BASE, *resources)
        self.scopes = Scopes(self.snapshot)
        for one in (ONE, TWO):
            self.scopes.follow(one.uid)

    def publish(self, *resources: Resource) -> dict[str, dict[str, set[str]]]:
        self.snapshot = snapshot(*BASE, *resources, before=self.snapshot)
        found = self.scopes.advance(self.snapshot, self.now)
        return {uid: {url: {*names} for url, names in one.items()} for uid, one in found.items()}

    def names(self, one: Workload, type_url: str) -> set[str]:
        return {*self.scopes.scope(one.uid).names[type_url]}


def test_what_is_attached_comes_into_scope_with_all_that_it_leads_to() -> None:
    stage = Stage(LOOSE)
    found = stage.publish(WEB, routes(WEB, forwards(WEB, CART)))
    assert found[ONE.uid] == {
        ROUTES: {str(WEB.key)},
        TRAFFIC: {str(WEB.key), str(CART.key)},
        HTTP_POLICY: {"shop/guard"},
        LABELS: {CARTS.uid},
        ADDRESS: {str(WEB.key), str(CART.key), CARTS.uid},
    }
    assert TWO.uid not in found
    assert stage.names(TWO, ROUTES) == set()


def test_a_route_that_names_another_service_brings_that_into_scope() -> None:
    stage = Stage(WEB, routes(WEB, forwards(WEB, WEB)))
    found = stage.publish(WEB, routes(WEB, forwards(WEB, WEB, CART)))
    addresses = {str(CART.key), CARTS.uid}
    assert found == {ONE.uid: {TRAFFIC: {str(CART.key)}, LABELS: {CARTS.uid}, ADDRESS: addresses}}


def test_what_moves_to_another_waypoint_is_served_by_both_for_a_while() -> None:
    stage = Stage(WEB)
    moved = replace(WEB, waypoint=service("web", at=SECOND).waypoint)
    stage.publish(moved)
    assert stage.names(ONE, ROUTES) == stage.names(TWO, ROUTES) == {str(WEB.key)}
    assert stage.names(ONE, HTTP_POLICY) == {"shop/guard"}
    assert stage.scopes.due == LINGER_SECONDS
    assert stage.scopes.expire(LINGER_SECONDS - 1) == {}
    found = stage.scopes.expire(LINGER_SECONDS)
    assert found[ONE.uid][ROUTES] == {str(WEB.key)}
    assert stage.names(ONE, ROUTES) == stage.names(ONE, HTTP_POLICY) == set()
    assert stage.scopes.due == math.inf


def test_a_pod_that_is_attached_no_more_is_sent_for_a_while() -> None:
    behind = pod("own-1", waypoint=Waypoint(FIRST.key, None))
    stage = Stage(behind)
    loose = replace(behind, waypoint=None)
    stage.publish(loose)
    assert stage.scopes.scope(ONE.uid).holds(stage.snapshot, ADDRESS, behind.uid)
    found = stage.scopes.expire(LINGER_SECONDS)
    assert found == {ONE.uid: {ADDRESS: {behind.uid}}}
    assert not stage.scopes.scope(ONE.uid).holds(stage.snapshot, ADDRESS, behind.uid)


def test_one_more_pod_of_what_is_attached_changes_no_scope() -> None:
    at = Waypoint(FIRST.key, None)
    stage = Stage(pod("own-1", CART, waypoint=at))
    before = stage.scopes.scope(ONE.uid)
    more = pod("own-2", CART, waypoint=at)
    assert ADDRESS not in stage.publish(pod("own-1", CART, waypoint=at), more).get(ONE.uid, {})
    assert stage.scopes.scope(ONE.uid) is before
    assert before.holds(stage.snapshot, ADDRESS, more.uid)


def test_what_comes_back_in_time_lingers_no_more() -> None:
    stage = Stage(WEB)
    stage.publish(LOOSE)
    stage.now = LINGER_SECONDS - 1
    stage.publish(WEB)
    assert stage.scopes.due == math.inf
    assert stage.scopes.expire(1e9) == {}
    assert stage.names(ONE, ROUTES) == {str(WEB.key)}


def test_a_pod_that_begins_to_serve_is_asked_about_and_one_that_only_changes_is_not() -> None:
    stage = Stage(WEB, routes(WEB, forwards(WEB, CART)))
    more = pod("cart-2", CART, namespace="other")
    assert stage.publish(WEB, routes(WEB, forwards(WEB, CART)), more)[ONE.uid] == {LABELS: {more.uid}}
    assert stage.publish(WEB, routes(WEB, forwards(WEB, CART)), replace(more, healthy=False)) == {}
    assert stage.scopes.scope(ONE.uid).holds(stage.snapshot, LABELS, more.uid)


def test_a_waypoint_whose_pod_is_not_known_yet_has_nothing_until_it_is() -> None:
    scopes = Scopes(snapshot(FIRST, WEB))
    assert scopes.follow(ONE.uid).names.get(ROUTES) == frozenset()
    found = scopes.advance(snapshot(FIRST, WEB, ONE), 0.0)
    assert found[ONE.uid][ROUTES] == {str(WEB.key)}


def test_replicas_and_sessions_are_counted() -> None:
    stage = Stage(WEB)
    stage.scopes.follow(ONE.uid)
    stage.scopes.leave(ONE.uid)
    assert stage.names(ONE, ROUTES) == {str(WEB.key)}
    stage.scopes.leave(ONE.uid)
    assert ONE.uid not in stage.publish(LOOSE)


SERVICES = [
    replace(base, waypoint=at.waypoint if at else None, guards=guards)
    for base in (service("web"), service("api"))
    for at in (None, service("x", at=FIRST), service("x", at=SECOND))
    for guards in ((), ("shop/guard",))
]
VIP = ip_address("fd00::7")
SERVICES += [replace(service("web"), waypoint=service("x", at=FIRST).waypoint, addresses=(VIP,))]
SERVICES += [replace(CART, waypoint=at) for at in (Waypoint(None, VIP), Waypoint(SECOND.key, None))]
SERVICES += [service("aside", addresses=(VIP,))]
PODS = [pod(f"p{number}", *serves) for number in range(3) for serves in ((), (LOOSE,), (CART,))]
PODS += [
    pod(f"p{number}", *serves, waypoint=at)
    for number in range(3)
    for serves in ((), (CART,))
    for at in (service("x", at=FIRST).waypoint, service("x", at=SECOND).waypoint)
]
PODS += [pod("p2", service("aside")), pod("p1", addresses=(VIP,))]
ROUTED = [
    routes(of, forwards(of, *to)) for of in (LOOSE, service("api")) for to in ((of,), (of, CART), (CART,))
]
WORLDS = st.lists(
    st.lists(st.sampled_from([*SERVICES, *PODS, *ROUTED]), max_size=6).map(tuple), min_size=1, max_size=6
)


@given(WORLDS)
def test_whatever_the_way_to_it_a_scope_is_that_of_the_world_as_it_is(
    worlds: list[tuple[Resource, ...]],
) -> None:
    stage = Stage()
    everything = [*BASE, *SERVICES, *PODS]
    before = {one.uid: _held(stage.scopes.scope(one.uid), stage.snapshot, everything) for one in (ONE, TWO)}
    for world in worlds:
        found = stage.publish(*world)
        stage.now += LINGER_SECONDS + 1
        later = stage.scopes.expire(stage.now)
        for one in (ONE, TWO):
            scope = stage.scopes.scope(one.uid)
            assert scope == _made(stage.snapshot, one)
            now = _held(scope, stage.snapshot, everything)
            there = before[one.uid]
            for url, name in {key for key in now.keys() & there.keys() if now[key] != there[key]}:
                names = {*found.get(one.uid, {}).get(url, ()), *later.get(one.uid, {}).get(url, ())}
                assert name in names | stage.snapshot.changed[url]
            before[one.uid] = now


def _made(world: Snapshot, one: Workload) -> Scope:
    own = handles_of(world, one)
    found = world.origins[ADDRESS].values()
    through = {
        name
        for each in found
        if isinstance(each, Workload) and handle_of(each.waypoint) in own
        for name in each.services
    }
    attached = {
        str(each.key)
        for each in found
        if isinstance(each, Service) and each.waypoint is not None and each.waypoint.service in own
    }
    pods = any(isinstance(each, Workload) and handle_of(each.waypoint) in own for each in found)
    return scope_of(world, Stands(one.uid, own, frozenset(attached), frozenset(through), pods=pods))


def _held(scope: Scope, world: Snapshot, everything: list[Resource]) -> dict[tuple[str, str], bool]:
    services = {str(one.key) for one in everything if isinstance(one, Service)}
    pods = {one.uid for one in everything if isinstance(one, Workload)}
    asked = [(url, name) for url in (ROUTES, TRAFFIC) for name in services]
    asked += [(LABELS, uid) for uid in pods]
    asked += [(ADDRESS, name) for name in services | pods if name in world.origins[ADDRESS]]
    return {(url, name): scope.holds(world, url, name) for url, name in asked}


@pytest.mark.parametrize(("namespace", "found"), [("", True), ("other", True), ("shop", False)])
def test_a_provider_is_called_by_every_waypoint_from_when_its_service_is_there(
    namespace: str, found: bool
) -> None:
    stage, asked = Stage(), service("authz", "other")
    port = ServicePort(asked.hostname, 9000, namespace)
    provider = ExtensionProvider("asked", ExtAuthz(Speech.GRPC, port))
    stage.publish(provider)
    assert stage.names(TWO, TRAFFIC) == {str(SECOND.key)}
    stage.publish(provider, asked)
    assert (str(asked.key) in stage.names(TWO, TRAFFIC)) is found
    stage.publish(asked)
    stage.scopes.expire(math.inf)
    assert stage.names(ONE, TRAFFIC) == {str(FIRST.key)}


def test_who_counts_for_a_rate_limit_is_called_by_every_waypoint() -> None:
    stage, asked = Stage(), service("limits", "other")
    counts = GlobalLimit(asked.hostname, 8081, "d", ())
    policy = RateLimitPolicy("p", "shop", service=counts)
    stage.publish(policy, asked)
    assert stage.names(TWO, TRAFFIC) == {str(SECOND.key), str(asked.key)}
    stage.publish(replace(policy, service=None), asked)
    stage.scopes.expire(math.inf)
    assert stage.names(TWO, TRAFFIC) == {str(SECOND.key)}
