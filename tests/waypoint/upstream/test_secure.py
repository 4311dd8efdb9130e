"""TLS with servers: who is believed."""

from __future__ import annotations

import pytest

from tests.waypoint.pooled import Stream
from tests.waypoint.tls_server import Authority, TlsServer
from tests.waypoint.tls_side import NAME, Side, authority, server_paths, simple
from ztunnel.errors import TlsFailed, Unreachable
from ztunnel.model.traffic import ClientTls, TlsMode

__all__ = ["authority", "server_paths"]


def test_a_server_that_is_proved_is_talked_to(authority, server_paths):
    side = Side(simple(authority), TlsServer(server_paths))
    assert side.error is None
    listener = side.listen()
    side.stands.write(b"hello")
    side.stands.write(memoryview(b"!" * 100_000))
    side.pump()
    assert side.server.got == b"hello" + b"!" * 100_000
    side.give(side.server.say(b"back" * 50_000))
    assert listener.got == b"back" * 50_000
    assert side.inner.took == side.inner.given
    assert side.server.asked_for == NAME


REFUSED = [
    ({}, "b.example", "is for a.example"),
    ({"subject_alt_names": ("b.example",)}, NAME, "not for b.example"),
    ({"roots": "other"}, NAME, "certificate was refused"),
    ({"roots": ""}, NAME, "certificate was refused"),  # the system's
    ({"roots": "/nowhere.pem"}, NAME, "No such file"),
    ({"credential": "secret"}, NAME, "credentialName 'secret': the control plane has sent no Secret"),
    ({"revoked": "crl"}, NAME, "revoked"),
]


@pytest.mark.parametrize(("more", "name", "why"), REFUSED)
def test_a_server_that_is_not_proved_is_not_talked_to(authority, tmp_path, more, name, why):
    paths = authority.issue("server-2", NAME, serial=77)
    more = dict(more)
    if more.get("roots") == "other":
        more["roots"] = Authority(tmp_path, "other").roots
    if more.get("revoked"):
        more["revoked"] = authority.revoke(77)
    policy = ClientTls(TlsMode.SIMPLE, **{"roots": authority.roots, **more})
    side = Side(policy, TlsServer(paths), name)
    assert isinstance(side.error, TlsFailed)
    assert why in str(side.error)
    assert side.stands is None
    assert side.inner.aborted is not None


PROVED = [
    ({"subject_alt_names": ("b.example", "spiffe://mesh/ns/a")}, "other.example"),
    ({"skip_verify": True, "roots": ""}, "other.example"),
    ({}, "10.0.0.1"),
]


@pytest.mark.parametrize(("more", "name"), PROVED)
def test_who_else_is_believed(authority, server_paths, more, name):
    policy = ClientTls(TlsMode.SIMPLE, **{"roots": authority.roots, **more})
    side = Side(policy, TlsServer(server_paths), name)
    assert side.error is None
    assert side.stands is not None


def test_with_mutual_the_client_proves_itself(authority, server_paths):
    certificate, key = authority.issue("client", "client.example")
    policy = ClientTls(TlsMode.MUTUAL, certificate, key, authority.roots)
    side = Side(policy, TlsServer(server_paths, authority.roots))
    assert side.error is None
    side.listen()
    side.stands.write(b"x")
    side.pump()
    assert side.server.got == b"x"
    without = Side(simple(authority), TlsServer(server_paths, authority.roots))
    if without.error is None:  # with TLS 1.3 the server's refusal comes after our half of the handshake
        listener = without.listen()
        assert "lost" in listener.log[0] or "ended" in listener.log


@pytest.mark.parametrize(("offers", "stands"), [("h2", True), ("", False), ("http/1.1", False)])
def test_http2_is_spoken_with_who_agrees_upon_it(authority, server_paths, offers, stands):
    side = Side(simple(authority), TlsServer(server_paths, alpn=offers), alpn="h2")
    assert (side.stands is not None) == stands
    if not stands:
        assert "ALPN h2" in str(side.error)


GARBAGE = b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"x" * 70_000


@pytest.mark.parametrize("garbage", GARBAGE)
def test_who_speaks_no_tls_is_not_talked_to(authority, garbage):
    side = Side(simple(authority), None)
    assert side.inner.said()
    side.give(garbage)
    if side.error is None:
        side.inner.receiver.ended()
    assert isinstance(side.error, TlsFailed)
    assert side.inner.aborted is not None


def test_endless_bytes_before_the_end_of_a_handshake_are_refused(authority):
    side = Side(simple(authority), None)
    waits = side.securing._stream
    waits._computing = True  # a thread is at it
    for _ in range(5):
        if side.error is None:
            side.give(b"x" * 65536)
    assert "without end" in str(side.error)


def test_a_handshake_has_its_time(authority):
    side = Side(simple(authority), None)
    side.clock.sleep(4.9)
    assert side.error is None
    side.clock.sleep(0.2)
    assert "too long" in str(side.error)
    assert side.inner.aborted is not None


def test_what_is_given_up_or_lost_says_so_once(authority, server_paths):
    side = Side(simple(authority), None)
    side.securing.cancel()
    assert side.inner.aborted is not None
    assert (side.error, side.stands) == (None, None)
    late = Stream()
    side.securing.start(late, 1.0)
    assert late.aborted is not None
    broken = Side(simple(authority), None)
    broken.inner.receiver.lost(Unreachable("reset"))
    assert str(broken.error) == "reset"
    stands = Side(simple(authority), TlsServer(server_paths))
    listener = stands.listen()
    stands.inner.receiver.lost(Unreachable("reset"))
    assert listener.log == ["lost: reset"]
    assert stands.error is None
