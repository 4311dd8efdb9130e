"""Preflights, and responses to pages of other origins."""

from __future__ import annotations

import pytest

from ztunnel.http1.head import Fields
from ztunnel.l7.request import Request
from ztunnel.l7.routing.cors import CorsAnswers
from ztunnel.model.route_match import TextKind, TextMatch
from ztunnel.model.route_policy import Cors

ORIGINS = (TextMatch(TextKind.EXACT, "https://a.b"), TextMatch(TextKind.REGEX, r"https://.*\.c\.d"))
CORS = Cors(ORIGINS, ("GET", "PUT"), ("x-a", "x-b"), ("x-c",), 60, credentials=True)


def request(origin: str = "https://a.b", method: str = "OPTIONS", asked: str = "PUT") -> Request:
    fields = [(b"origin", origin.encode()), (b"access-control-request-headers", b"x-q")]
    if asked:
        fields.append((b"access-control-request-method", asked.encode()))
    return Request(method.encode(), b"a", b"/", [field for field in fields if field[1]])


WHOLE = (
    (b"access-control-allow-origin", b"https://a.b"),
    (b"vary", b"origin"),
    (b"access-control-allow-credentials", b"true"),
    (b"access-control-allow-methods", b"GET,PUT"),
    (b"access-control-allow-headers", b"x-a,x-b"),
    (b"access-control-expose-headers", b"x-c"),
    (b"access-control-max-age", b"60"),
)
SMALL = ((b"access-control-allow-origin", b"https://a.b"), (b"vary", b"origin"))
STARS = Cors(ORIGINS, ("*",), ("*",))
STAR_FIELDS = ((b"access-control-allow-methods", b"*"), (b"access-control-allow-headers", b"*"))
NAMED = ((b"access-control-allow-methods", b"PUT"), (b"access-control-allow-headers", b"x-q"))


@pytest.mark.parametrize(
    ("cors", "asked", "expected"),
    [
        (CORS, request(), WHOLE),
        (Cors(ORIGINS), request(), SMALL),
        (Cors(ORIGINS, max_age_seconds=0), request(), (*SMALL, (b"access-control-max-age", b"0"))),
        (STARS, request(), (*SMALL, *STAR_FIELDS)),
        (Cors(ORIGINS, ("*",), ("*",), credentials=True), request(), (*WHOLE[:3], *NAMED)),
        (CORS, request("https://x.y"), None),
        (Cors(ORIGINS, forward_unmatched=False), request("https://x.y"), ()),
        (CORS, request(method="GET"), None),
        (CORS, request(asked=""), None),
        (CORS, request(origin=""), None),
    ],
)
def test_a_preflight_is_answered(cors: Cors, asked: Request, expected: Fields | None) -> None:
    assert CorsAnswers(cors).preflight(asked) == expected


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("https://a.b", True),
        ("https://x.c.d", True),
        ("https://c.d", False),
        ("https://a.bc", False),
        ("", False),
    ],
)
def test_an_origin_is_allowed(origin: str, expected: bool) -> None:
    assert CorsAnswers(CORS).allowed(origin.encode()) is expected


def test_what_the_rule_says_stands_in_the_place_of_what_the_server_says() -> None:
    fields = [
        (b"access-control-allow-origin", b"*"),
        (b"access-control-expose-headers", b"x"),
        (b"access-control-allow-credentials", b"false"),
        (b"x", b"y"),
    ]
    assert CorsAnswers(CORS).shared(b"https://a.b", fields) == [
        (b"x", b"y"),
        (b"access-control-allow-origin", b"https://a.b"),
        (b"vary", b"origin"),
        (b"access-control-allow-credentials", b"true"),
        (b"access-control-expose-headers", b"x-c"),
    ]
    assert CorsAnswers(Cors(ORIGINS)).shared(b"https://a.b", fields)[:2] == fields[1:3]
