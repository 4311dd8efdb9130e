"""Rules of several objects are asked in the Gateway API's order, and Istio's."""

from random import Random

from ztunnel.control.routes.precedence import Source, ordered
from ztunnel.model.route import RouteSource, Rule
from ztunnel.model.route_action import DirectResponse
from ztunnel.model.route_match import FieldMatch, Match, TextKind, TextMatch
from ztunnel.state.meta import Meta

P, E, R = TextKind.SEGMENTS, TextKind.EXACT, TextKind.REGEX
GET = TextMatch(TextKind.EXACT, "GET")


def field(name):
    return FieldMatch(name, TextMatch(TextKind.PRESENT))


def rule(name, *matches):
    return Rule(name, RouteSource("HTTPRoute", "shop", "r"), DirectResponse(200), matches)


def route(name, *rules, created="", namespace="shop", **more):
    return Source(Meta(name, namespace, {}, {}, created), rules, sorted=True, **more)


def service(name, *rules, created=""):
    return Source(Meta(name, "shop", {}, {}, created), rules)


def names(*sources):
    return [one.name for one in ordered(sources)]


ORDER = [
    Match(path=TextMatch(E, "/longer")),
    Match(path=TextMatch(E, "/a")),
    Match(path=TextMatch(P, "/a/b")),
    Match(path=TextMatch(P, "/a"), method=GET),
    Match(path=TextMatch(P, "/a"), headers=(field("a"), field("b")), query=(field("a"),)),
    Match(path=TextMatch(P, "/a"), headers=(field("a"), field("b"))),
    Match(path=TextMatch(P, "/a"), headers=(field("a"),), query=(field("a"), field("b"))),
    Match(path=TextMatch(P, "/a"), query=(field("a"), field("b"))),
    Match(path=TextMatch(P, "/a"), query=(field("a"),)),
    Match(path=TextMatch(P, "/a")),
    Match(path=TextMatch(P, "/")),
    Match(path=TextMatch(R, "/a.*")),
]


def test_the_more_is_asked_the_earlier_it_is_asked_wherever_it_stands():
    for seed in range(20):
        shuffled = list(ORDER)
        Random(seed).shuffle(shuffled)
        half = seed % len(shuffled)
        rules = [rule(str(ORDER.index(match)), match) for match in shuffled]
        found = ordered([route("a", *rules[:half]), route("b", *rules[half:])])
        asked = [one.matches[0] for one in found]
        assert [one for one in asked if one != ORDER[-2]] == [one for one in ORDER if one != ORDER[-2]]


def test_of_equal_matches_the_oldest_route_counts_then_its_name_then_the_first_rule():
    a = Match(path=TextMatch(P, "/a"))
    young = route("a", rule("young", a), created="2026-01-02T00:00:00Z")
    old = route("z", rule("old", a), rule("second", a), created="2026-01-01T00:00:00Z")
    undated = route("b", rule("undated", a))
    assert names(undated, young, old) == ["old", "second", "young", "undated"]
    assert names(route("b", rule("b", a)), route("a", rule("a", a))) == ["a", "b"]


def test_routes_of_the_waypoints_namespace_come_first():
    a, longer = Match(path=TextMatch(P, "/a")), Match(path=TextMatch(P, "/longer"))
    assert names(route("a", rule("producer", longer)), route("z", rule("consumer", a), first=True)) == [
        "consumer", "producer",
    ]  # fmt: skip


def test_a_rule_of_two_matches_is_one_where_nothing_comes_between():
    first, second = Match(path=TextMatch(P, "/aa")), Match(path=TextMatch(P, "/a"))
    (found,) = ordered([route("a", rule("r", second, first), ports=(80,))])
    assert [(one.path.text, one.ports) for one in found.matches] == [("/aa", (80,)), ("/a", (80,))]


def test_virtual_services_keep_their_order_and_end_where_everything_is_taken():
    a, b, every = Match(path=TextMatch(P, "/a")), Match(path=TextMatch(P, "/b/b")), Match()
    assert names(service("v", rule("1", a), rule("2", b), rule("3"), rule("4", a))) == ["1", "2", "3"]
    assert names(service("v", rule("1", a, every), rule("2", b))) == ["1"]


def test_of_several_sources_what_takes_everything_comes_last():
    a, b = Match(path=TextMatch(P, "/a")), Match(path=TextMatch(P, "/b"))
    old = service("v", rule("1", a, Match(path=TextMatch(P, "/"))), created="2026-01-01T00:00:00Z")
    young = service("w", rule("2", b), rule("3"), created="2026-01-02T00:00:00Z")
    found = ordered([young, old])
    assert [(one.name, len(one.matches)) for one in found] == [("1", 1), ("2", 1), ("1", 1), ("3", 0)]
    assert names(route("r", rule("http", Match(path=TextMatch(P, "/")))), old, young) == [
        "1", "2", "http", "1", "3",
    ]  # fmt: skip
