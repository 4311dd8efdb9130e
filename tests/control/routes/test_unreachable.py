"""Rules and matches that no request comes to are found."""

import pytest

from ztunnel.control.routes.route_parts import Why
from ztunnel.control.routes.unreachable import is_catch_all, unreachable
from ztunnel.model.route_match import FieldMatch, Match, TextKind, TextMatch
from ztunnel.state.meta import Meta
from ztunnel.state.virtual_match import RequestMatch, Sources
from ztunnel.state.virtual_service import RequestRule, VirtualService


def path(text, kind=TextKind.PREFIX):
    return Match(path=TextMatch(kind, text))


A, B, ALL = path("/a"), path("/b"), path("/")


def found(*rules):
    http = tuple(RequestRule(matches=tuple(RequestMatch(one, Sources({})) for one in rule)) for rule in rules)
    problems = unreachable(VirtualService(Meta("v", "shop", {}, {}), ("a",), (), http))
    return [(one.why, one.field) for one in problems]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([[A], [B], []], []),
        ([[], [A]], [(Why.UNREACHABLE, "http[1]")]),
        ([[A, ALL], [B], []], [(Why.UNREACHABLE, "http[1]"), (Why.UNREACHABLE, "http[2]")]),
        ([[A], [A]], [(Why.UNREACHABLE, "http[1]")]),
        ([[A], [B, A]], [(Why.INEFFECTIVE, "http[1].match[1]")]),
        ([[Match(name="x", path=A.path)], [Match(name="y", path=A.path)]], [(Why.UNREACHABLE, "http[1]")]),
        ([[Match(ports=(80,))], [A]], []),
        ([[Match(ports=(80,), path=A.path)], [A]], []),
    ],
)
def test_what_comes_too_late(rules, expected):
    assert found(*rules) == expected


@pytest.mark.parametrize(
    ("match", "takes"),
    [
        (Match(), True), (ALL, True), (path("/", TextKind.SEGMENTS), True),
        (path(".*", TextKind.REGEX), True),
        (Match(name="x", ports=(80,)), True), (A, False), (path("/", TextKind.EXACT), False),
        (Match(method=TextMatch(TextKind.EXACT, "GET")), False),
        (Match(headers=(FieldMatch("a", TextMatch(TextKind.PRESENT)),)), False),
        (Match(query=(FieldMatch("a", TextMatch(TextKind.PRESENT)),)), False),
    ],
)  # fmt: skip
def test_what_takes_every_request(match, takes):
    assert is_catch_all(match) is takes
