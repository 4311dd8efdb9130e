"""Where tokens are looked for, and how they leave a request."""

from __future__ import annotations

import pytest

from ztunnel.l7.jwt.credentials import USUAL, In, Place, places_of, take_out, tokens_at
from ztunnel.l7.request import Request
from ztunnel.model.jwt import JwtRule, TokenHeader

BEARER, ACCESS_TOKEN = USUAL
X, COOKIE = Place(In.HEADER, b"x-jwt"), Place(In.COOKIE, b"session")


def request(path: bytes = b"/", *fields: tuple[bytes, bytes]) -> Request:
    return Request(b"GET", b"web", path, list(fields))


def authorization(value: bytes) -> Request:
    return request(b"/", (b"authorization", value))


@pytest.mark.parametrize(
    ("value", "tokens"),
    [
        (b"Bearer a.b.c", [b"a.b.c"]),
        (b"Bearer   a.b.c", [b"a.b.c"]),
        (b"Bearer a.b.c, Bearer d.e.f", [b"a.b.c, Bearer d.e.f"]),
        (b"Basic x, Bearer a.b.c", [b"a.b.c"]),
        (b"Bearer \xffa", [b"a"]),
        (b"Bearer \xff", [b"Bearer \xff"]),
        (b"Bearer ", [b"Bearer "]),
        (b"Bearer", []),
        (b"bearer a.b.c", []),
        (b"Basic YTpi", []),
        (b"", []),
    ],
)
def test_what_follows_bearer_is_a_token(value: bytes, tokens: list[bytes]) -> None:
    assert tokens_at(authorization(value), BEARER) == tokens


def test_all_headers_of_a_name_count() -> None:
    found = request(b"/", (b"x-jwt", b"one"), (b"x-other", b"two"), (b"x-jwt", b"three"))
    assert tokens_at(found, X) == [b"one", b"three"]


@pytest.mark.parametrize(
    ("path", "tokens"),
    [
        (b"/", []),
        (b"/?", []),
        (b"/?access_token=a.b.c", [b"a.b.c"]),
        (b"/?x=1&access_token=a.b.c&y", [b"a.b.c"]),
        (b"/?access_token=a&access_token=b", [b"a", b"b"]),
        (b"/?access%5Ftoken=a%2Eb", [b"a.b"]),
        (b"/?access_token", [b""]),
        (b"/?access_token=", [b""]),
        (b"/?Access_Token=a", []),
        (b"/access_token=a", []),
        (b"/?x=access_token=a", []),
        (b"/?access_token=a=b?c", [b"a=b?c"]),
    ],
)
def test_all_parameters_of_a_name_count(path: bytes, tokens: list[bytes]) -> None:
    assert tokens_at(request(path), ACCESS_TOKEN) == tokens


@pytest.mark.parametrize(
    ("cookies", "tokens"),
    [
        ([b"session=a.b.c"], [b"a.b.c"]),
        ([b'x=1; session="a.b.c" ;y=2'], [b"a.b.c"]),
        ([b"session=a", b"session=b; session=c"], [b"a", b"b", b"c"]),
        ([b"xsession=a; sessions=b; Session=c"], []),
        ([b"session"], [b""]),
        ([b'session="'], [b'"']),
        ([b";;=;"], []),
    ],
)
def test_all_cookies_of_a_name_count(cookies: list[bytes], tokens: list[bytes]) -> None:
    assert tokens_at(request(b"/", *((b"cookie", each) for each in cookies)), COOKIE) == tokens


def test_a_header_leaves_as_a_whole() -> None:
    found = request(b"/", (b"x-jwt", b"1"), (b"accept", b"*/*"), (b"x-jwt", b"2"))
    take_out(found, X)
    assert found.fields == [(b"accept", b"*/*")]


@pytest.mark.parametrize(
    ("path", "left"),
    [
        (b"/a?access_token=x", b"/a"),
        (b"/a?b=1&access_token=x&c=%20&access%5ftoken=y&d", b"/a?b=1&c=%20&d"),
        (b"/a?b=access_token", b"/a?b=access_token"),
        (b"/a", b"/a"),
    ],
)
def test_a_parameter_leaves_and_the_rest_stays_as_it_is(path: bytes, left: bytes) -> None:
    found = request(path)
    take_out(found, ACCESS_TOKEN)
    assert found.path == left


def test_cookies_stay() -> None:
    found = request(b"/", (b"cookie", b"session=a"))
    take_out(found, COOKIE)
    assert found.fields == [(b"cookie", b"session=a")]


def test_places_that_are_named_take_the_place_of_the_usual_ones() -> None:
    assert places_of(JwtRule("i")) == USUAL
    named = JwtRule("i", headers=(TokenHeader("x-jwt"), TokenHeader("x-b", "B ")), cookies=("session",))
    assert places_of(named) == (X, Place(In.HEADER, b"x-b", b"B "), COOKIE)
    assert places_of(JwtRule("i", params=("q",))) == (Place(In.PARAM, b"q"),)
