"""Rules of a service, and at which of its ports they are asked."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address, ip_network

import pytest

from ztunnel.model.route import ConnectionRule, Routes, RouteSource, Rule
from ztunnel.model.route_action import Destination, DirectResponse, Forward, Redirect, Rewrite
from ztunnel.model.route_match import Match
from ztunnel.model.route_policy import ISTIO_RETRY, Mirror
from ztunnel.model.service import ServiceName

REVIEWS = ServiceName("shop", "reviews.shop.svc.cluster.local")
SOURCE = RouteSource("HTTPRoute", "shop", "reviews")
FORWARD = Forward((Destination(REVIEWS),))


def rule(name: str, *matches: Match) -> Rule:
    return Rule(name, SOURCE, FORWARD, matches)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Rule("a", SOURCE, FORWARD, timeout_seconds=-1), "not negative"),
        (lambda: Rule("a", SOURCE, FORWARD, try_timeout_seconds=-1), "not negative"),
        (lambda: Rule("a", SOURCE, Redirect(), rewrite=Rewrite(authority="a")), "only what is sent on"),
        (lambda: Rule("a", SOURCE, DirectResponse(200), retry=ISTIO_RETRY), "only what is sent on"),
        (
            lambda: Rule("a", SOURCE, Redirect(), mirrors=(Mirror(Destination(REVIEWS)),)),
            "only what is sent on",
        ),
    ],
)
def test_it_makes_no_sense(make: Callable[[], object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        make()


def test_rules_keep_their_order_at_the_ports_that_they_are_for() -> None:
    everywhere, here = rule("everywhere"), rule("here", Match(ports=(80,)))
    some = rule("some", Match(ports=(80,)), Match(ports=(81, 82)))
    routes = Routes(REVIEWS, (here, some, everywhere))
    assert routes.at(80) == (here, some, everywhere)
    assert routes.at(82) == (some, everywhere)
    assert routes.at(83) == (everywhere,)
    assert Routes(REVIEWS, (here,)).at(81) == ()


def test_a_source_prints_as_it_is_named_in_a_log() -> None:
    assert str(SOURCE) == "HTTPRoute shop/reviews"


@pytest.mark.parametrize(
    ("ip", "port", "name"),
    [
        ("10.96.0.1", 5432, "v4"),
        ("fd00:96::1", 5432, "v6"),
        ("10.97.0.1", 5432, "port"),
        ("10.96.0.1", 5433, "any"),
        ("fd00:97::1", 80, "any"),
    ],
)
def test_the_first_rule_for_a_connections_address_and_port_counts(ip: str, port: int, name: str) -> None:
    def connection(name: str, ports: tuple[int, ...] = (), *subnets: str) -> ConnectionRule:
        return ConnectionRule(name, SOURCE, FORWARD, ports, tuple(map(ip_network, subnets)))

    routes = Routes(
        REVIEWS,
        (),
        (
            connection("v4", (5432,), "10.96.0.0/16"),
            connection("v6", (5432,), "fd00:96::/112"),
            connection("port", (5432, 81)),
            connection("any"),
        ),
    )
    found = routes.connection(ip_address(ip), port)
    assert found is not None
    assert found.name == name
    assert Routes(REVIEWS, ()).connection(ip_address(ip), port) is None


def test_a_rule_for_connections_is_at_ports() -> None:
    with pytest.raises(ValueError, match="not ports"):
        ConnectionRule("r", SOURCE, FORWARD, (0,))
