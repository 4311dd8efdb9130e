"""A rule compiled: its name, its shares, and what of it is refused."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from ztunnel.l7.routing.route import Route, check, routes_of
from ztunnel.model.route import RouteSource, Rule
from ztunnel.model.route_action import (
    Destination,
    Edits,
    Forward,
    HeaderEdits,
    PathEdit,
    PathEditKind,
    Redirect,
    Rewrite,
)
from ztunnel.model.route_match import Match, TextKind, TextMatch
from ztunnel.model.route_policy import Cors
from ztunnel.model.service import ServiceName

SOURCE = RouteSource("VirtualService", "shop", "reviews")
EVERY = Match()


def to(subset: str, weight: int = 1, edits: Edits | None = None) -> Destination:
    name = ServiceName("shop", "reviews")
    return Destination(name, subset=subset, weight=weight, edits=edits or Edits(), authority=f"{subset}.host")


def rule(*destinations: Destination, matches: tuple[Match, ...] = (), rewrite: Rewrite | None = None) -> Rule:
    return Rule("r", SOURCE, Forward(destinations or (to("v1"),)), matches, rewrite=rewrite)


def test_shares_are_as_weights_say() -> None:
    rng, route = Random(1), Route(rule(to("v1", 90), to("v2", 10), to("v3", 0)), EVERY)
    counts = Counter(route.choose(rng).destination.subset for _ in range(10_000))
    assert set(counts) == {"v1", "v2"}
    assert 850 < counts["v2"] < 1150  # five standard deviations


def test_one_destination_gets_all_whatever_it_weighs() -> None:
    assert Route(rule(to("v1", 0)), EVERY).choose(Random(1)).destination.subset == "v1"


def test_a_route_is_named_by_its_rule_and_its_match() -> None:
    assert Route(rule(), Match(name="m")).name == "r.m"
    assert Route(rule(), EVERY).name == "r"


def test_the_rules_authority_goes_before_the_destinations() -> None:
    assert Route(rule(), EVERY).targets[0].authority == b"v1.host"
    assert Route(rule(rewrite=Rewrite(authority="new")), EVERY).targets[0].authority == b"new"


def test_a_rule_is_a_route_for_each_match_of_the_port() -> None:
    made = rule(matches=(Match("a", (80,)), Match("b", (81,)), Match("c")))
    assert [route.name for route in routes_of(made, 80)] == ["r.a", "r.c"]
    assert [route.name for route in routes_of(rule(), 80)] == ["r"]
    assert routes_of(made, 82)[0].name == "r.c"


@pytest.mark.parametrize(
    ("faulty", "why"),
    [
        (rule(matches=(Match(path=TextMatch(TextKind.REGEX, "(")),)), "missing"),
        (rule(to("v1", edits=Edits(HeaderEdits(remove=("te",))))), "cannot be changed"),
        (rule(rewrite=Rewrite(PathEdit(PathEditKind.REGEX, r"\1", "a"))), "0 groups"),
        (Rule("r", SOURCE, Redirect(authority="a b")), "to a host"),
        (Rule("r", SOURCE, Redirect(), cors=Cors((TextMatch(TextKind.REGEX, "["),))), "missing"),
        (
            Rule("r", SOURCE, Redirect(), edits=Edits(response=HeaderEdits(add=(("a", "%X%"),)))),
            "there is no",
        ),
    ],
)
def test_a_rule_that_cannot_be_compiled_says_why(faulty: Rule, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        check(faulty)


def test_a_rule_that_can_be_compiled_passes() -> None:
    check(rule(to("v1", 1), to("v2", 1), rewrite=Rewrite(authority="a")))
