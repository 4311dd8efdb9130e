"""Which rate limits a request would count against, without counting it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.builders import world_of
from tests.explain.test_waypoint import CLIENT, GATE, GATE_1, WEB, WEB_1, WEB_2
from ztunnel.explain.explanation import explain_call
from ztunnel.explain.names import find_call
from ztunnel.explain.waypoint import HttpCall
from ztunnel.model.http_policy import Attribute, Term, TextKind, TextMatch
from ztunnel.model.rate_limit import (
    Descriptor,
    Entry,
    GlobalLimit,
    Limit,
    LimitKey,
    LocalRule,
    RateLimitPolicy,
)
from ztunnel.model.route import Routes, RouteSource, Rule
from ztunnel.model.route_action import Destination, Forward

POST = (Term(Attribute.METHOD, (TextMatch(TextKind.EXACT, "POST"),)),)
USER = LimitKey(Attribute.HEADER, ("x-user",))
ALL = LocalRule("all", Limit(10, 1.0, 5))
POSTS = LocalRule("posts", Limit(1, 60.0), POST)
EACH = LocalRule("each", Limit(3, 60.0), (), (USER, LimitKey(Attribute.PRINCIPAL)))
ASKED = GlobalLimit("rls.shop", 8081, "d", (Descriptor((Entry("k", "v"), Entry("user", "", USER))),))
POLICY = RateLimitPolicy("p", "shop", rules=(ALL, POSTS, EACH), service=ASKED)
ROUTES = Routes(
    WEB.key, (Rule("r", RouteSource("HTTPRoute", "shop", "web"), Forward((Destination(WEB.key),))),)
)
COUNTS = "counts against shop/p "


def reason(*items: object, http: HttpCall | None = None, own: bool = False) -> str:
    web, gate = (
        replace(one, rate_limits=("shop/p",)) if named else one
        for one, named in ((WEB, not own), (GATE, own))
    )
    world = world_of(CLIENT, gate, GATE_1, WEB_1, WEB_2, web, *items)
    return explain_call(world, find_call(world, "shop/client", "10.96.0.1:80"), http=http).paths[0].reason


@pytest.mark.parametrize(
    ("http", "said"),
    [
        (None, ["all: 10 in 1 s, and 5 more at once"]),
        (HttpCall("POST"), ["all: 10 in 1 s, and 5 more at once", "posts: 1 in 60 s"]),
        (
            HttpCall(headers=(("X-User", "a"),)),
            [
                "all: 10 in 1 s, and 5 more at once",
                "each: 3 in 60 s, for each request.headers[x-user], source.principal",
            ],
        ),
    ],
)
@pytest.mark.parametrize("own", [False, True])
def test_limits_that_count_are_named(http: HttpCall | None, said: list[str], own: bool) -> None:
    found = reason(POLICY, http=http, own=own)
    assert [each.removeprefix(COUNTS) for each in found.split("; ") if each.startswith(COUNTS)] == said


def test_what_a_service_is_asked_is_said() -> None:
    asked = "shop/p asks rls.shop:8081, domain d, about (k=v, user=a)"
    assert asked in reason(POLICY, http=HttpCall(headers=(("x-user", "a"),)))
    assert "asks" not in reason(POLICY)


def test_those_of_a_route_are_said_where_it_is_gone_by() -> None:
    policy = replace(POLICY, name="of-route", routes=("HTTPRoute shop/web",), service=None)
    assert "counts against shop/of-route all" in reason(policy, ROUTES)
    assert "counts against" not in reason(policy)


def test_where_there_are_none_nothing_is_said() -> None:
    assert "; " not in reason()
