"""Requests: the same checks for both versions, and what is sent on of them."""

from __future__ import annotations

import pytest

from ztunnel.l7 import reply
from ztunnel.l7.reply import Refused
from ztunnel.l7.request import read_request, read_stream


def one(*fields: tuple[bytes, bytes], method=b"GET", path=b"/", upgrade=b""):
    return read_request(((b":method", method), (b":path", path), *fields), upgrade, lambda: b"id")


def two(*fields: tuple[bytes, bytes], method=b"GET", path=b"/", authority=b"a", scheme=b"http"):
    pseudo = (b":method", method), (b":scheme", scheme), (b":authority", authority), (b":path", path)
    return read_stream((*pseudo, *fields), lambda: b"id")


HOST = (b"host", b"a")


def test_what_was_for_the_connection_stays_with_it() -> None:
    found = one(
        HOST,
        (b"connection", b"keep-alive, x-mine"),
        (b"keep-alive", b"5"),
        (b"x-mine", b"1"),
        (b"te", b"trailers, deflate"),
        (b"proxy-connection", b"x"),
        (b"transfer-encoding", b"chunked"),
        (b"accept", b"*/*"),
    )
    assert found.fields == [
        (b"accept", b"*/*"),
        (b"te", b"trailers"),
        (b"x-forwarded-proto", b"http"),
        (b"x-request-id", b"id"),
        (b"x-istio-source", b"waypoint"),
    ]
    assert found.authority == b"a"


@pytest.mark.parametrize(
    "name",
    [
        b"x-forwarded-client-cert",
        b"x-envoy-retry-on",
        b"x-envoy-original-path",
        b"x-envoy-internal",
        b"x-istio-source",
    ],
)
def test_what_only_a_trusted_proxy_may_say_is_not_believed(name) -> None:
    for found in (one(HOST, (name, b"evil")), two((name, b"evil"))):
        assert (name, b"evil") not in found.fields


def test_what_a_client_says_of_itself_stays() -> None:
    found = two(
        (b"x-request-id", b"mine"), (b"x-forwarded-proto", b"https"), (b"x-forwarded-for", b"1.2.3.4")
    )
    assert found.get(b"x-request-id") == b"mine"
    assert found.get(b"x-forwarded-proto") == b"https"
    assert found.get(b"x-forwarded-for") == b"1.2.3.4"
    assert [name for name, _ in found.fields].count(b"x-request-id") == 1


FROM_A_GATEWAY = (b"x-forwarded-proto", b"HTTPS")


@pytest.mark.parametrize(("found", "scheme"), [
    (one(HOST), b"http"),
    (one(HOST, FROM_A_GATEWAY), b"https"),
    (one(HOST, (b"x-forwarded-proto", b"ws")), b"http"),
    (one(HOST, (b"x-forwarded-proto", b"")), b"http"),
    (one(HOST, path=b"HTTPS://a/"), b"https"),
    (one(HOST, FROM_A_GATEWAY, path=b"http://a/"), b"http"),
    (two(), b"http"),
    (two(scheme=b"https"), b"https"),
    (two(FROM_A_GATEWAY), b"http"),  # Envoy: the two may differ
])  # fmt: skip
def test_the_scheme_is_what_is_said_of_it(found, scheme) -> None:
    assert found.scheme == scheme
    assert [name for name, _ in found.fields].count(b"x-forwarded-proto") == 1
    assert found.get(b"x-forwarded-proto") in (b"http", b"HTTPS", b"ws", b"")


@pytest.mark.parametrize("name", [b"host", b"x-forwarded-for", b"Authorization", b"content-length"])
def test_a_hop_must_not_be_made_to_remove_what_others_judge_by(name) -> None:
    with pytest.raises(Refused) as refused:
        one(HOST, (b"connection", name))
    assert refused.value.reply.status == 400


def test_a_target_with_an_authority_is_that_of_the_host() -> None:
    found = one((b"host", b"A:80"), path=b"http://a:80/b?c")
    assert (found.authority, found.path) == (b"A:80", b"/b?c")
    assert one(HOST, path=b"http://a?c").path == b"/?c"


@pytest.mark.parametrize(
    ("said", "host", "scheme"),
    [
        (b"a", b"a:80", b"http"),
        (b"a:80", b"a", b"http"),
        (b"A:443", b"a", b"https"),
        (b"[fd00::1]", b"[FD00::1]:80", b"http"),
    ],
)
def test_a_port_that_goes_without_saying_may_be_said_once(said: bytes, host: bytes, scheme: bytes) -> None:
    """Clients that know of a proxy do (RFC 9112 section 3.2.2)."""
    assert one((b"host", host), path=scheme + b"://" + said + b"/x").authority == host
    assert two((b"host", host), authority=said, scheme=scheme).authority == said
    assert one(HOST, path=b"*", method=b"OPTIONS").path == b"*"


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: one(), reply.NO_HOST),
        (lambda: one(HOST, HOST), reply.BAD_HOST),
        (lambda: one((b"host", b"")), reply.BAD_HOST),
        (lambda: one((b"host", b"u@a")), reply.BAD_HOST),
        (lambda: one((b"host", b"a:b")), reply.BAD_HOST),
        (lambda: one((b"host", b"[::1")), reply.BAD_HOST),
        (lambda: one(HOST, path=b"http://b/"), reply.BAD_HOST),
        (lambda: one(HOST, path=b"http://a:443/"), reply.BAD_HOST),
        (lambda: one(HOST, path=b"https://a:80/"), reply.BAD_HOST),
        (lambda: one(HOST, path=b"a/b"), reply.BAD_PATH),
        (lambda: one(HOST, path=b"*"), reply.BAD_PATH),
        (lambda: one(HOST, path=b"/%00"), reply.BAD_PATH),
        (lambda: one(HOST, method=b"CONNECT", path=b"a:80"), reply.NO_ROUTE),
        (lambda: one(HOST, upgrade=b"x"), reply.FORBIDDEN_UPGRADE),
        (lambda: two(method=b"GET / HTTP/1.1"), reply.MALFORMED),
        (lambda: two(scheme=b"HTTP"), reply.MALFORMED),
        (lambda: two(authority=b"u@a"), reply.BAD_HOST),
        (lambda: two(authority=b""), reply.NO_HOST),
        (lambda: two((b"host", b"b")), reply.BAD_HOST),
        (lambda: two(path=b"/a b"), reply.BAD_PATH),
        (lambda: two(path=b"/a#b"), reply.BAD_PATH),
        (lambda: two(path=b"a"), reply.BAD_PATH),
        (lambda: two((b"content-length", b"1"), (b"content-length", b"1")), reply.MALFORMED),
        (lambda: two((b"content-length", b"+1")), reply.MALFORMED),
        (lambda: two((b"x\xff", b"a")), reply.MALFORMED),
        (lambda: two((b"x(", b"a")), reply.MALFORMED),
        (lambda: two((b"x", b"a\x0bb")), reply.MALFORMED),
    ],
)
def test_what_two_could_read_otherwise_is_refused(make, expected) -> None:
    with pytest.raises(Refused) as refused:
        make()
    assert refused.value.reply == expected


def test_upgrades_are_websocket_and_what_clients_offer_with_each_request_is_passed_over() -> None:
    for said in (b"websocket", b"websocket,websocket", b"websocket, h2c"):
        assert one(HOST, upgrade=said).upgrade == b"websocket"
    with pytest.raises(Refused):
        one(HOST, upgrade=b"websocket,x")
    for offered in (b"h2c", b"tls/1.2"):
        options = (
            (b"connection", b"Upgrade, HTTP2-Settings"),
            (b"upgrade", offered),
            (b"http2-settings", b"AA"),
        )
        found = one(HOST, *options, upgrade=offered)
        assert found.upgrade == b""
        assert not {b"connection", b"upgrade", b"http2-settings"} & {name for name, _ in found.fields}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (b"application/grpc", True),
        (b"application/grpc+proto", True),
        (b"application/grpc;x", True),
        (b"application/grpc-web", False),
        (b"text/plain", False),
    ],
)
def test_grpc_is_told_by_its_content(kind, expected) -> None:
    assert two((b"content-type", kind)).is_grpc is expected


def test_as_http2_it_has_its_pseudo_headers_first() -> None:
    assert two().as_fields()[:4] == (
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":authority", b"a"),
        (b":path", b"/"),
    )


def test_cookies_in_crumbs_are_one_field() -> None:
    found = two((b"cookie", b"a=1"), (b"accept", b"*/*"), (b"cookie", b"b=2"))
    assert [field for field in found.fields if field[0] == b"cookie"] == [(b"cookie", b"a=1; b=2")]
