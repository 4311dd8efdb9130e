"""The first rule that is for a request decides, however many there are, and however they are looked up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.l7.request import Request
from ztunnel.l7.routing.comparison import Asked, Conditions
from ztunnel.l7.routing.router import Router, decide_about
from ztunnel.model.route import Routes, RouteSource, Rule
from ztunnel.model.route_action import DirectResponse
from ztunnel.model.route_match import FieldMatch, Match, TextKind, TextMatch
from ztunnel.model.route_policy import Cors
from ztunnel.model.service import ServiceName

SOURCE = RouteSource("VirtualService", "shop", "reviews")
REVIEWS = ServiceName("shop", "reviews")


def rule(name: str, *matches: Match) -> Rule:
    return Rule(name, SOURCE, DirectResponse(200), matches)


def path(kind: TextKind, value: str) -> Match:
    return Match(path=TextMatch(kind, value))


def decided(rules: list[Rule], request: Request, port: int = 80) -> str | None:
    route = Router(Routes(REVIEWS, tuple(rules)), port).decide(Asked(request))
    return route.name if route is not None else None


def request(target: str = "/", *fields: tuple[str, str], method: str = "GET", host: str = "a") -> Request:
    made = [(name.encode(), value.encode()) for name, value in fields]
    return Request(method.encode(), host.encode(), target.encode(), made)


texts = st.sampled_from(["/", "/a", "/ab", "/a/b", "/a/b/c", "/b"])
values = st.sampled_from(["x", "y", "xy", ""])
path_matches = st.one_of(
    st.none(),
    st.builds(TextMatch, st.sampled_from([TextKind.EXACT, TextKind.PREFIX]), texts, st.booleans()),
    st.builds(TextMatch, st.just(TextKind.SEGMENTS), texts),
    st.builds(TextMatch, st.just(TextKind.REGEX), st.sampled_from(["/a.*", "/a|/b", "/a/b", ".*/c", "/ab?"])),
)
value_matches = st.one_of(
    st.builds(TextMatch, st.sampled_from([TextKind.EXACT, TextKind.PREFIX]), values, st.booleans()),
    st.just(TextMatch(TextKind.PRESENT)),
    st.just(TextMatch(TextKind.REGEX, "x|y")),
)
names = st.sampled_from([f"x-{number}" for number in range(12)])
fields_ = st.lists(st.builds(FieldMatch, names, value_matches, st.booleans()), max_size=2).map(tuple)
matches = st.builds(
    Match,
    ports=st.sampled_from([(), (), (80,), (81,)]),
    path=path_matches,
    method=st.sampled_from([None, TextMatch(TextKind.EXACT, "GET")]),
    authority=st.sampled_from([None, None, TextMatch(TextKind.EXACT, "A"), TextMatch(TextKind.PREFIX, "b")]),
    headers=fields_,
    query=fields_,
)
requests = st.builds(
    lambda target, query, fields, method, host: request(target + query, *fields, method=method, host=host),
    texts.map(lambda text: text) | st.just("/A"),
    st.sampled_from(["", "?x-0=x", "?x-1=y&x-2=x"]),
    st.lists(st.tuples(names, values), max_size=3),
    st.sampled_from(["GET", "POST"]),
    st.sampled_from(["a", "B"]),
)


@given(st.lists(matches, max_size=40), requests)
def test_looking_up_finds_what_trying_one_after_the_other_finds(rules: list[Match], asks: Request) -> None:
    made = [rule(str(number), match) for number, match in enumerate(rules)]
    expected = next(
        (str(n) for n, match in enumerate(rules) if match.is_at(80) and Conditions(match).meets(Asked(asks))),
        None,
    )
    assert decided(made, asks) == expected


def test_rules_are_asked_top_down() -> None:
    rules = [
        rule("jason", Match(headers=(FieldMatch("end-user", TextMatch(TextKind.EXACT, "jason")),))),
        rule("api", path(TextKind.PREFIX, "/api"), path(TextKind.EXACT, "/v1")),
        rule("all"),
        rule("never", path(TextKind.EXACT, "/api")),
    ]
    assert decided(rules, request("/api/x")) == "api"
    assert decided(rules, request("/v1")) == "api"
    assert decided(rules, request("/api", ("end-user", "jason"))) == "jason"
    assert decided(rules, request("/other")) == "all"


def test_no_rule_for_it_is_no_route() -> None:
    assert decided([rule("a", path(TextKind.EXACT, "/a"))], request("/b")) is None


def test_a_port_without_rules_is_served_without_routes() -> None:
    routes = Routes(REVIEWS, (rule("a", Match(ports=(80,))),))
    assert not Router(routes, 80).empty
    assert Router(routes, 81).empty


GET_ONLY = Match(method=TextMatch(TextKind.EXACT, "GET"))
PREFLIGHT = ("access-control-request-method", "GET")


@pytest.mark.parametrize(
    ("cors", "fields", "method", "expected"),
    [
        (Cors(()), [PREFLIGHT], "OPTIONS", "a"),
        (None, [PREFLIGHT], "OPTIONS", None),
        (Cors(()), [], "OPTIONS", None),
        (Cors(()), [("access-control-request-method", "PUT")], "OPTIONS", None),
        (Cors(()), [PREFLIGHT], "POST", None),
    ],
)
def test_a_preflight_is_one_for_the_rule_of_the_request_that_it_asks_for(
    cors: Cors | None, fields: list[tuple[str, str]], method: str, expected: str | None
) -> None:
    one = Rule("a", SOURCE, DirectResponse(200), (GET_ONLY,), cors=cors)
    found = decide_about(Router(Routes(REVIEWS, (one,)), 80), request("/", *fields, method=method))
    assert (found.name if found is not None else None) == expected


def test_many_lengths_of_beginnings_are_all_found() -> None:
    rules = [rule(str(size), path(TextKind.PREFIX, "/" + "a" * size)) for size in range(200, 0, -1)]
    for size in (1, 2, 31, 32, 33, 64, 150, 199, 200):
        assert decided(rules, request("/" + "a" * size + "b")) == str(size)
    assert decided(rules, request("/b")) is None
