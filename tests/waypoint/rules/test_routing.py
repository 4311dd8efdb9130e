"""Routes of what a tunnel leads to: which there are, and that they are those of the moment."""

from __future__ import annotations

import pytest

from tests.builders import world_of
from tests.waypoint.mesh import SERVICE, WEB
from tests.waypoint.rig import Client, Rig
from ztunnel.l7.reply import FORBIDDEN_UPGRADE, NO_CLUSTER, Reply
from ztunnel.l7.request import Request
from ztunnel.l7.routing.plan import NO_FACTS, Plan, Unrouted
from ztunnel.l7.routing.retry import DEFAULT
from ztunnel.model.address import OriginalDestination
from ztunnel.model.route import Routes, RouteSource, Rule
from ztunnel.model.route_action import Destination, DirectResponse, Forward
from ztunnel.model.route_match import Match, TextKind, TextMatch
from ztunnel.model.route_policy import RetryDefault
from ztunnel.model.service import AppProtocol, Port, Service, ServiceName
from ztunnel.state.delta import apply
from ztunnel.state.world import World
from ztunnel.waypoint.chain import Chain, Treatment
from ztunnel.waypoint.exchange.exchange import Exchange
from ztunnel.waypoint.rules.routing import Routers, Routing, Unserved, cluster_of, version_for

SOURCE = RouteSource("HTTPRoute", "shop", "web")
V2 = Destination(WEB, subset="v2")
AT_80 = Match("v2", (80,), TextMatch(TextKind.EXACT, "/v2"))
RULE = Rule("web", SOURCE, Forward((V2,)), (AT_80,))


def begin(world: World, port: int = 80, path: bytes = b"/v2", service: Service | None = SERVICE) -> Exchange:
    rig = Rig()
    exchange = Exchange(rig.way, Client(), Request(b"GET", b"web", path, []))
    Routing(Routers(), service, port, NO_FACTS, rig.way._rng).begin(world, exchange)
    return exchange


def test_what_counts_for_the_mesh_counts_where_a_service_has_no_routes() -> None:
    """Not for calls of a pod by its own address (istio/istio#60683)."""
    routers, rig = Routers(), Rig()
    routers.unrouted = Unrouted(RetryDefault(None))
    for world, service, retry in (
        (world_of(SERVICE), SERVICE, None),
        (with_rules(RULE), SERVICE, None),
        (world_of(SERVICE), None, DEFAULT),
    ):
        exchange = Exchange(rig.way, Client(), Request(b"GET", b"web", b"/v2", []))
        Routing(routers, service, 90, NO_FACTS, rig.way._rng).begin(world, exchange)
        assert exchange.plan.retry == retry


def with_rules(*rules: Rule) -> World:
    return apply(world_of(SERVICE), [Routes(WEB, rules)])[0]


def test_without_routes_a_request_goes_to_what_was_called() -> None:
    for exchange in (
        begin(world_of(SERVICE)),
        begin(with_rules(RULE), port=90),
        begin(with_rules(RULE), service=None),
    ):
        assert (exchange.plan.name, exchange.plan.destination, exchange.plan.retry) == (
            "default",
            None,
            DEFAULT,
        )
        assert (exchange.cluster, exchange.service) == (None, None)


def test_the_rule_that_decides_is_named_and_so_is_where_it_leads() -> None:
    exchange = begin(with_rules(RULE))
    assert (exchange.plan.name, exchange.plan.destination) == ("web.v2", V2)
    assert exchange.cluster == "inbound-vip|80|http/v2|web.shop.svc.cluster.local"
    assert exchange.service == SERVICE


def test_a_port_with_rules_of_which_none_is_for_it_has_no_route() -> None:
    exchange = begin(with_rules(RULE), path=b"/other")
    assert (exchange.status, exchange.flag, exchange.details) == (404, "NR", "route_not_found")


def test_routes_are_compiled_once_for_as_long_as_they_stay_what_they_are() -> None:
    routers, routes = Routers(), Routes(WEB, (RULE,))
    first = routers.of(routes, 80)
    assert routers.of(routes, 80) is first
    assert routers.of(routes, 90) is not first
    other = routers.of(Routes(WEB, (RULE, RULE)), 80)
    assert other is not first
    assert other is not None


def test_routes_that_cannot_be_compiled_answer_503_and_say_why() -> None:
    routers = Routers()
    bad = Rule("bad", SOURCE, DirectResponse(200), (Match(path=TextMatch(TextKind.REGEX, "(")),))
    assert routers.of(Routes(WEB, (bad,)), 80) is None
    assert "missing" in routers.broken[str(WEB)]
    assert routers.of(Routes(WEB, (RULE,)), 80) is not None
    assert routers.broken == {}
    exchange = begin(with_rules(bad))
    assert (exchange.status, exchange.flag, exchange.details) == (503, "NC", "route_not_compiled")


@pytest.mark.parametrize(
    ("destination", "expected"),
    [
        (Destination(WEB), "inbound-vip|80|http|web.shop.svc.cluster.local"),
        (Destination(WEB, 90), "inbound-vip|90|http|web.shop.svc.cluster.local"),
        (Destination(ServiceName("b", "x"), 1, "v1"), "inbound-vip|1|http/v1|x"),
    ],
)
def test_upstreams_are_named_as_envoy_names_them(destination: Destination, expected: str) -> None:
    assert cluster_of(destination, 80) == expected


CHAIN = Chain(OriginalDestination(SERVICE.addresses[0], 80), SERVICE, Treatment.HTTP, AppProtocol.HTTP)


def version(destination: Destination | None, upgrade: bytes = b"", asked: int = 2) -> int:
    rig = Rig()
    exchange = Exchange(rig.way, Client(), Request(b"GET", b"web", b"/", []))
    exchange.request.upgrade = upgrade
    exchange.plan = Plan("r")
    exchange.plan.destination = destination
    newer = Service("newer", "shop", "newer", (), (Port(70, 70),), protocols=((70, AppProtocol.HTTP2),))
    return version_for(world_of(SERVICE, newer), CHAIN, exchange, asked)


def test_a_server_is_asked_in_the_version_of_the_port_that_is_asked() -> None:
    assert version(None) == 1
    assert version(Destination(WEB)) == 1
    assert version(Destination(WEB, 90)) == 2  # it does not say
    assert version(Destination(ServiceName("shop", "newer"), 70), asked=1) == 2


@pytest.mark.parametrize(
    ("destination", "upgrade", "reply"),
    [
        (Destination(WEB, 91), b"", NO_CLUSTER),
        (Destination(ServiceName("shop", "nobody")), b"", NO_CLUSTER),
        (Destination(ServiceName("shop", "newer"), 70), b"websocket", FORBIDDEN_UPGRADE),
    ],
)
def test_what_cannot_be_asked_is_answered(destination: Destination, upgrade: bytes, reply: Reply) -> None:
    with pytest.raises(Unserved) as caught:
        version(destination, upgrade)
    assert caught.value.reply is reply
