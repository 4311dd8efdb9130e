"""A request as policies look at it."""

from ipaddress import ip_address

import pytest

from ztunnel.l7.policy.attributes import Attributes
from ztunnel.l7.request import Request

PEER = ip_address("10.0.0.1")


def asked(*fields, path=b"/a?b", hops=0, claims=None):
    request = Request(b"GET", b"Web:80", path, list(fields))
    request.claims = claims or {}
    return Attributes(request, PEER, hops)


def test_what_heads_it():
    found = asked()
    assert (found.path, found.method, found.host) == ("/a", "GET", "web:80")
    assert asked(path=b"*").path == "*"
    assert found.header(":authority") == found.header("host") == "Web:80"
    assert found.header(":path") == "/a?b"


def test_headers_of_one_name_are_one():
    found = asked((b"a", b"1"), (b"b", b""), (b"a", b"2"))
    assert [found.header(name) for name in "abc"] == ["1,2", "", None]


def test_bytes_that_are_no_text_are_equal_to_nothing_else():
    one, other = asked((b"a", b"\xff")), asked((b"a", b"\xfe"))
    assert one.header("a") != other.header("a")
    assert asked((b"a", "é".encode())).header("a") == "é"


@pytest.mark.parametrize(
    ("value", "hops", "expected"),
    [
        (b"192.0.2.1", 0, "192.0.2.1"),
        (b" 192.0.2.1 , 2001:db8::1", 0, "2001:db8::1"),
        (b"192.0.2.1, 192.0.2.2, 192.0.2.3", 2, "192.0.2.1"),
        (b"192.0.2.1, 192.0.2.2", 2, "10.0.0.1"),
        (b"192.0.2.1:80", 0, "192.0.2.1"),
        (b"[2001:db8::1]:80, 192.0.2.2:443", 1, "2001:db8::1"),
        (b"[2001:db8::1]", 0, "2001:db8::1"),
        (b"[192.0.2.1", 0, "192.0.2.1"),
        (b"2001:db8::1:80", 0, "2001:db8::1:80"),
        (b":80", 0, "10.0.0.1"),
        (b"[]:80", 0, "10.0.0.1"),
        (b"", 0, "10.0.0.1"),
    ],
)
def test_the_client_is_who_the_last_that_is_not_trusted_was_called_by(value, hops, expected):
    found = asked((b"x-forwarded-for", value), hops=hops)
    assert str(found.remote_ip) == str(found.remote_ip) == expected


def test_claims():
    found = asked(claims={"iss": "i", "sub": "s", "a": {"b": ["x", 1, "y"], "c": None, "d": True}})
    assert (found.issuer, found.subject) == ("i", "s")
    assert found.claim(("a", "b")) == ["x", "y"]
    assert [found.claim(path) for path in (("a",), ("a", "c"), ("a", "d"), ("iss", "x"), ("z",))] == [[]] * 5
    assert (asked().issuer, asked().claim(("iss",))) == ("", [])
