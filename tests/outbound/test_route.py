"""A route is kept for as long as what it was decided by is what it was, and never longer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.builders import service, workload
from ztunnel.http2.decoder import FieldReader
from ztunnel.model.address import OriginalDestination, parse_endpoint, parse_ip
from ztunnel.model.connection import Security
from ztunnel.outbound.decision import Outcome, ToDirect, ToPlain, ToTunnel
from ztunnel.outbound.route import _REMEMBERED, Route, Routes, TunnelRoute
from ztunnel.redirect.layout import Recalled
from ztunnel.state.world import World

CLIENT = workload("client").at("10.0.0.1").hbone()
FAR, NEAR = workload("far").at("10.0.1.1").hbone(), workload("near").at("10.0.0.2").hbone()
WEB = service("web").at("10.96.0.1").port(80, 8080)
IP = CLIENT.addresses[0]
POD = parse_endpoint("10.0.1.1:8080")
TUNNEL = ToTunnel(parse_endpoint("10.0.1.1:15008"), POD, (FAR.identity,), FAR, None)


def asked(text: str = "10.0.1.1:8080") -> Recalled:
    endpoint = parse_endpoint(text)
    return Recalled(OriginalDestination(endpoint.ip, endpoint.port), None)


def entered(world: World | None = None) -> Routes:
    routes = Routes()
    routes.enter(world or World(), CLIENT, IP)
    return routes


def tunnel(routes: Routes, recalled: Recalled, outcome: ToTunnel = TUNNEL) -> TunnelRoute:
    route = routes.route(recalled, outcome)
    assert isinstance(route, TunnelRoute)
    return route


def test_calls_of_one_way_share_what_is_made_of_it() -> None:
    routes, recalled = entered(), asked()
    first = routes.route(recalled, TUNNEL)
    assert routes.route(recalled, replace(TUNNEL)) is first
    assert routes.route(recalled, replace(TUNNEL, destination=NEAR)) is not first


def test_a_tunnels_route_says_who_asks_whom() -> None:
    route = tunnel(entered(), asked(), replace(TUNNEL, service=WEB))
    assert (route.key.source, route.key.source_ip) == (CLIENT.identity, IP)
    assert route.key.destinations == {FAR.identity}
    fields = dict(FieldReader(65_536).read(route.head.render(4000, "trace")))
    assert fields[b":authority"] == b"10.0.1.1:8080"
    assert fields[b"forwarded"] == b'for="10.0.0.1:4000";host=web.default.svc.cluster.local'
    assert fields[b"traceparent"] == b"trace"
    assert b"k8s.namespace.name=default" in fields[b"baggage"]
    journey = route.journey
    assert (journey.security, journey.hbone_address) == (Security.MUTUAL_TLS, "10.0.1.1:8080")
    assert journey.called == asked().destination
    assert (journey.source_identity, journey.destination_identity) == (CLIENT.identity, FAR.identity)


@pytest.mark.parametrize(
    ("outcome", "proved"), [(ToDirect(POD, NEAR, WEB), NEAR.identity), (ToPlain(POD, NEAR, WEB), None)]
)
def test_without_a_tunnel_identities_are_reported_only_where_the_kernel_proves_them(
    outcome: Outcome, proved: object
) -> None:
    journey = entered().route(asked(), outcome).journey
    assert journey.security is Security.UNKNOWN
    assert journey.destination_identity == proved
    assert (journey.hbone_address, journey.service, journey.destination) == ("", WEB, POD)


def test_one_pod_reached_two_ways_has_two_routes() -> None:
    routes, recalled = entered(), asked()
    kinds: list[Route] = [
        routes.route(recalled, outcome)
        for outcome in (TUNNEL, ToDirect(POD, FAR, None), ToPlain(POD, FAR, None))
    ]
    assert len({id(each) for each in kinds}) == 3
    assert [each.journey.security for each in kinds].count(Security.MUTUAL_TLS) == 1


def test_only_what_chance_had_no_part_in_is_settled() -> None:
    routes = entered()
    for outcome, settled in (
        (TUNNEL, True),
        (replace(TUNNEL, service=WEB), False),
        (replace(TUNNEL, waypoint=True), False),
    ):
        recalled = asked()
        routes.settle(tunnel(routes, recalled, outcome))
        assert (routes.settled(recalled) is not None) == settled


def test_what_was_asked_for_has_to_be_the_same_object() -> None:
    routes, recalled = entered(), asked()
    routes.settle(tunnel(routes, recalled))
    assert routes.settled(asked()) is None


@pytest.mark.parametrize(
    ("world", "pod", "ip"),
    [
        (World(), CLIENT, IP),
        (None, replace(CLIENT, canonical_revision="v2"), IP),
        (None, CLIENT, parse_ip("10.0.0.77")),
    ],
    ids=["another world", "the pod has changed", "another address of it"],
)
def test_everything_is_forgotten_with_what_it_was_decided_by(
    world: World | None, pod: object, ip: object
) -> None:
    before = World()
    routes, recalled = entered(before), asked()
    old = tunnel(routes, recalled)
    routes.settle(old)
    routes.enter(before, CLIENT, IP)
    assert routes.settled(recalled) is old
    routes.enter(world or before, pod, ip)
    assert routes.settled(recalled) is None
    assert routes.route(recalled, TUNNEL) is not old


def test_what_is_kept_is_bounded() -> None:
    routes, held = entered(), []
    for _ in range(_REMEMBERED + 10):
        held.append(asked())
        routes.settle(tunnel(routes, held[-1]))
    assert len(routes._routes) <= _REMEMBERED
    assert len(routes._settled) <= _REMEMBERED
    assert routes.settled(held[0]) is None
    assert routes.settled(held[-1]) is not None
