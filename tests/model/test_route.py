"""Rules of a service, and at which of its ports they are asked."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ztunnel.model.route import Routes, RouteSource, Rule
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
