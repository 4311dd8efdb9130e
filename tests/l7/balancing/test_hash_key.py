"""Keys of requests."""

import re
from ipaddress import ip_address
from random import Random

import pytest

from ztunnel.l7.balancing.hash_key import hash_key
from ztunnel.l7.balancing.host import hash_of
from ztunnel.l7.request import Request
from ztunnel.model.traffic import ConsistentHash, HashCookie

V4, V6 = ip_address("10.0.0.1"), ip_address("fd00::1")


def request(*fields, path=b"/"):
    return Request(b"GET", b"a.example", path, list(fields))


def found(by, asked, source=V4):
    return hash_key(by, asked, source, Random(1))


KEYS = [
    (ConsistentHash(header="x-user"), request((b"x-user", b"jason")), b"jason"),
    (ConsistentHash(header="x-user"), request((b"x-user", b"b"), (b"x-user", b"a")), b"a,b"),
    (ConsistentHash(header="x-user"), request((b"x-user", b"")), b""),
    (ConsistentHash(header="x-user"), request((b"x-other", b"a")), None),
    (ConsistentHash(header="host"), request(), b"a.example"),
    (ConsistentHash(query="u"), request(path=b"/a?b=1&u=x%20y&u=z"), b"x%20y"),
    (ConsistentHash(query="u"), request(path=b"/a?u"), b""),
    (ConsistentHash(query="u"), request(path=b"/a?uu=1"), None),
    (ConsistentHash(query="u"), request(path=b"/u=1"), None),
    (ConsistentHash(cookie=HashCookie("s")), request((b"cookie", b"a=b; s=me; s=other")), b"me"),
    (ConsistentHash(cookie=HashCookie("s")), request((b"cookie", b"a=b"), (b"cookie", b"s=me")), b"me"),
    (ConsistentHash(cookie=HashCookie("s")), request((b"cookie", b's="q"')), b"q"),
    (ConsistentHash(cookie=HashCookie("s")), request((b"cookie", b"ss=me; xs=1")), None),
    (ConsistentHash(cookie=HashCookie("s", ttl_seconds=5)), request((b"cookie", b"s=me")), b"me"),
    (ConsistentHash(), request(), None),
]


@pytest.mark.parametrize(("by", "asked", "key"), KEYS)
def test_where_the_key_is(by, asked, key):
    made = found(by, asked)
    assert made.key == (None if key is None else hash_of(key))
    assert made.cookie == b""


@pytest.mark.parametrize("source", [V4, V6])
def test_the_callers_address(source):
    assert found(ConsistentHash(source_ip=True), request(), source).key == hash_of(source.packed)


COOKIES = [
    (HashCookie("s", ttl_seconds=0), rb's="[0-9a-f]{16}"; HttpOnly'),
    (HashCookie("s", "/p", 60), rb's="[0-9a-f]{16}"; Max-Age=60; Path=/p; HttpOnly'),
    (HashCookie("s", "", 0.5), rb's="[0-9a-f]{16}"; Max-Age=1; HttpOnly'),
    (HashCookie("s", "", 0, (("SameSite", "Lax"), ("Secure", ""))),
     rb's="[0-9a-f]{16}"; SameSite=Lax; Secure; HttpOnly'),
]  # fmt: skip


@pytest.mark.parametrize(("cookie", "written"), COOKIES)
@pytest.mark.parametrize("asked", [request(), request((b"cookie", b"s=")), request((b"cookie", b"s"))])
def test_a_cookie_that_is_missing_is_made_and_leads_to_the_same_endpoint(cookie, written, asked):
    by = ConsistentHash(cookie=cookie)
    made = found(by, asked)
    assert re.fullmatch(written, made.cookie)
    sent = made.cookie.partition(b";")[0]
    again = found(by, request((b"cookie", b"a=b; " + sent)))
    assert (again.key, again.cookie) == (made.key, b"")


def test_each_client_gets_a_cookie_of_its_own():
    rng, by = Random(1), ConsistentHash(cookie=HashCookie("s", ttl_seconds=0))
    assert len({hash_key(by, request(), V4, rng).cookie for _ in range(100)}) == 100
