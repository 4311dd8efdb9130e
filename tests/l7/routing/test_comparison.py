"""Every field of a match: what it asks of a request."""

from __future__ import annotations

import pytest

from ztunnel.l7.request import Request
from ztunnel.l7.routing.comparison import Asked, Conditions
from ztunnel.model.route_match import ClaimMatch, FieldMatch, Match, TextKind, TextMatch

EXACT, PREFIX, SEGMENTS, REGEX, PRESENT = TextKind


def text(kind: TextKind, value: str = "", ignore_case: bool = False) -> TextMatch:
    return TextMatch(kind, value, ignore_case)


def header(kind: TextKind, value: str = "", name: str = "x-user", negated: bool = False) -> Match:
    return Match(headers=(FieldMatch(name, text(kind, value), negated),))


def parameter(kind: TextKind, value: str = "", negated: bool = False) -> Match:
    return Match(query=(FieldMatch("User", text(kind, value), negated),))


def asked(path: bytes = b"/", *fields: tuple[bytes, bytes], method: bytes = b"GET") -> Asked:
    request = Request(method, b"Reviews:9080", path, list(fields))
    request.claims = {"group": ["admin", "dev"], "sub": "jason", "realm": {"roles": ["a"]}, "n": 1}
    return Asked(request)


@pytest.mark.parametrize(
    ("match", "path", "expected"),
    [
        (text(EXACT, "/a"), b"/a", True),
        (text(EXACT, "/a"), b"/a?b=c", True),
        (text(EXACT, "/a"), b"/a/", False),
        (text(EXACT, "/a"), b"/A", False),
        (text(EXACT, "/a", True), b"/A", True),
        (text(PREFIX, "/foo"), b"/foobar", True),
        (text(PREFIX, "/foo"), b"/FOO", False),
        (text(PREFIX, "/Foo", True), b"/FOO/x", True),
        (text(SEGMENTS, "/foo"), b"/foo", True),
        (text(SEGMENTS, "/foo"), b"/foo/", True),
        (text(SEGMENTS, "/foo"), b"/foo/bar?x", True),
        (text(SEGMENTS, "/foo"), b"/foobar", False),
        (text(SEGMENTS, "/"), b"/x", True),
        (text(REGEX, "/(a|b)"), b"/b?c", True),
        (text(REGEX, "/a"), b"/ab", False),
        (text(REGEX, "/a.*"), b"/a?b", True),
        (text(PRESENT), b"/", True),
    ],
)
def test_a_path_is_compared_without_its_query(match: TextMatch, path: bytes, expected: bool) -> None:
    assert Conditions(Match(path=match)).meets(asked(path)) is expected


@pytest.mark.parametrize(
    ("match", "fields", "expected"),
    [
        (header(EXACT, "jason"), [(b"x-user", b"jason")], True),
        (header(EXACT, "jason"), [(b"x-user", b"Jason")], False),
        (header(EXACT, "jason"), [], False),
        (header(EXACT, "a,b"), [(b"x-user", b"a"), (b"x-user", b"b")], True),
        (header(PREFIX, "ja"), [(b"x-user", b"jason")], True),
        (header(REGEX, "j.*n"), [(b"x-user", b"jason")], True),
        (header(PRESENT), [(b"x-user", b"")], True),
        (header(PRESENT), [], False),
        (header(EXACT, "jason", negated=True), [(b"x-user", b"jason")], False),
        (header(EXACT, "jason", negated=True), [(b"x-user", b"x")], True),
        (header(EXACT, "jason", negated=True), [], True),
        (header(EXACT, "", negated=True), [], False),
        (header(REGEX, ".*", negated=True), [], False),
        (header(PREFIX, "", negated=True), [], False),
        (header(PRESENT, negated=True), [], True),
        (header(PRESENT, negated=True), [(b"x-user", b"")], False),
        (header(EXACT, "Reviews:9080", "host"), [], True),
        (header(REGEX, "^(.*?;)?(user=jason)(;.*)?$", "cookie"), [(b"cookie", b"a=1;user=jason")], True),
        (header(EXACT, "a=1; b=2", "cookie"), [(b"cookie", b"a=1"), (b"cookie", b"b=2")], True),
    ],
)
def test_a_header(match: Match, fields: list[tuple[bytes, bytes]], expected: bool) -> None:
    assert Conditions(match).meets(asked(b"/", *fields)) is expected


@pytest.mark.parametrize(
    ("match", "path", "expected"),
    [
        (parameter(EXACT, "jason"), b"/?User=jason", True),
        (parameter(EXACT, "jason"), b"/?a=b&User=jason&c", True),
        (parameter(EXACT, "jason"), b"/?user=jason", False),
        (parameter(EXACT, "jason"), b"/?User=other&User=jason", False),
        (parameter(EXACT, "a=b"), b"/?User=a=b", True),
        (parameter(PREFIX, "ja"), b"/?User=jason", True),
        (parameter(REGEX, "[0-9]+"), b"/?User=12", True),
        (parameter(REGEX, "[0-9]+"), b"/?User=12a", False),
        (parameter(PRESENT), b"/?User", True),
        (parameter(PRESENT), b"/?x", False),
        (parameter(PRESENT), b"/", False),
        (parameter(PRESENT, negated=True), b"/?x", True),
    ],
)
def test_a_parameter(match: Match, path: bytes, expected: bool) -> None:
    assert Conditions(match).meets(asked(path)) is expected


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        (Match(), True),
        (Match(method=text(EXACT, "GET")), True),
        (Match(method=text(EXACT, "POST")), False),
        (Match(method=text(REGEX, "GET|HEAD")), True),
        (Match(scheme=text(EXACT, "http")), True),
        (Match(scheme=text(EXACT, "https")), False),
        (Match(authority=text(EXACT, "REVIEWS:9080")), True),
        (Match(authority=text(PREFIX, "Rev")), True),
        (Match(authority=text(EXACT, "reviews")), False),
        (Match(claims=(ClaimMatch(("sub",), text(EXACT, "jason")),)), True),
        (Match(claims=(ClaimMatch(("sub",), text(EXACT, "x")),)), False),
        (Match(claims=(ClaimMatch(("group",), text(EXACT, "dev")),)), True),
        (Match(claims=(ClaimMatch(("realm", "roles"), text(EXACT, "a")),)), True),
        (Match(claims=(ClaimMatch(("realm",), text(PREFIX, "")),)), False),
        (Match(claims=(ClaimMatch(("n",), text(EXACT, "1")),)), False),
        (Match(claims=(ClaimMatch(("none", "x"), text(EXACT, "dev")),)), False),
        (Match(claims=(ClaimMatch(("sub",), text(EXACT, "jason"), negated=True),)), False),
        (Match(claims=(ClaimMatch(("none",), text(EXACT, "jason"), negated=True),)), True),
        (Match(path=text(EXACT, "/"), method=text(EXACT, "POST")), False),
    ],
)
def test_all_else_that_a_match_asks(match: Match, expected: bool) -> None:
    assert Conditions(match).meets(asked()) is expected


def test_a_request_without_a_token_has_no_claims() -> None:
    match = Conditions(Match(claims=(ClaimMatch(("sub",), text(PREFIX, "")),)))
    assert not match.meets(Asked(Request(b"GET", b"a", b"/", [])))


def test_a_switch_of_protocols_is_a_header_too() -> None:
    request = Request(b"GET", b"a", b"/", [])
    request.upgrade = b"websocket"
    assert Conditions(header(EXACT, "websocket", "upgrade")).meets(Asked(request))
