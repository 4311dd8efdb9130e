"""TLS with servers: who is believed, and that bytes arrive as they are, cut anywhere."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.waypoint.pooled import Stream
from tests.waypoint.rig import Clock
from tests.waypoint.tls_server import Authority, TlsServer
from ztunnel.errors import TlsFailed, Unreachable
from ztunnel.model.traffic import ClientTls, TlsMode
from ztunnel.waypoint.upstream.secure import Contexts, Securing

NAME = "a.example"


class Computers:
    """They compute at once."""

    def submit(self, pod, source, step, done) -> None:
        try:
            step()
        except Exception as error:  # noqa: BLE001 (as a thread's future has it)
            done(error)
        else:
            done(None)


class Listener:
    def __init__(self) -> None:
        self.got = b""
        self.log: list[str] = []
        self.stream = None
        self.takes = True

    def received(self, untrusted) -> None:
        self.got += untrusted
        if self.takes:
            self.stream.taken(len(untrusted))

    def ended(self) -> None:
        self.log.append("ended")

    def writable(self) -> None:
        self.log.append("writable")

    def lost(self, error) -> None:
        self.log.append(f"lost: {error}")


class Side:
    """A client's side, with a server at the other end."""

    def __init__(self, tls: ClientTls, server: TlsServer | None, name: str = NAME, alpn: str = "") -> None:
        self.clock = Clock()
        self.inner = Stream()
        self.server = server
        self.stands = None
        self.error = None
        self.contexts = Contexts()
        self.securing = Securing(
            self.clock, Computers(), self.contexts, (tls, name, alpn), (self._stand, self._fail)
        )
        self.securing.start(self.inner, 5.0)
        self.pump()

    def _stand(self, stream) -> None:
        self.stands = stream

    def _fail(self, error) -> None:
        assert self.error is None
        self.error = error

    def pump(self, size: int = 0) -> None:
        """Until nothing moves; what the server sends is cut into pieces of that size."""
        while self.server is not None and (said := self.inner.said()):
            answer = self.server.take(said)
            self.give(answer, size)

    def give(self, cipher: bytes, size: int = 0) -> None:
        for at in range(0, len(cipher), size or len(cipher) or 1):
            if self.inner.receiver is not None and not self.inner.aborted:
                self.inner.send(cipher[at : at + (size or len(cipher))])

    def listen(self) -> Listener:
        listener = Listener()
        listener.stream = self.stands
        self.stands.attach(listener)
        self.pump()
        return listener


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def server_paths(authority):
    return authority.issue("server", NAME, "spiffe://mesh/ns/a", "10.0.0.1")


def simple(authority, **more) -> ClientTls:
    return ClientTls(TlsMode.SIMPLE, roots=authority.roots, **more)


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
    ({"credential": "secret"}, NAME, "credentialName 'secret': waypoints read no Secrets"),
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


def test_both_sides_can_say_goodbye(authority, server_paths):
    side = Side(simple(authority), TlsServer(server_paths))
    listener = side.listen()
    side.stands.write(b"all")
    side.stands.finish()
    side.pump()
    assert side.inner.finished
    assert (side.server.got, side.server.ended) == (b"all", True)
    other = Side(simple(authority), TlsServer(server_paths))
    listener = other.listen()
    other.give(other.server.say(b"last") + other.server.end())
    other.inner.receiver.ended()
    assert (listener.got, listener.log) == (b"last", ["ended"])


def test_what_is_not_taken_holds_the_server_up(authority, server_paths):
    side = Side(simple(authority), TlsServer(server_paths))
    listener = side.listen()
    before = side.inner.given - side.inner.took
    assert before == 0
    listener.takes = False
    side.give(side.server.say(b"x" * 10_000))
    assert side.inner.given - side.inner.took > 10_000
    side.stands.taken(4_000)
    assert side.inner.given - side.inner.took > 6_000
    side.stands.taken(6_000)
    assert side.inner.took == side.inner.given
    side.inner.unsent_bytes = 5
    assert side.stands.unsent_bytes == 5
    side.inner.receiver.writable()
    assert listener.log == ["writable"]


def test_garbage_on_a_connection_that_stands_cuts_it(authority, server_paths):
    side = Side(simple(authority), TlsServer(server_paths))
    listener = side.listen()
    side.give(b"\x17\x03\x03\x00\x20" + b"y" * 32)
    assert listener.log
    assert listener.log[0].startswith("lost: the connection broke")
    side.stands.write(b"x")
    side.stands.taken(1)
    side.stands.finish()


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.integers(1, 200), st.lists(st.binary(max_size=300), max_size=5))
def test_any_cut_of_what_a_server_sends_gives_the_same(authority, server_paths, size, parts):
    side = Side(simple(authority), None)
    side.server = TlsServer(server_paths)
    side.pump(size)
    assert side.error is None
    listener = side.listen()
    for part in parts:
        if part:
            side.give(side.server.say(part), size)
    assert listener.got == b"".join(parts)


def test_files_are_read_again_when_they_have_changed(authority, tmp_path):
    contexts = Contexts()
    path = tmp_path / "roots.pem"
    path.write_text(Path(authority.roots).read_text())
    policy = ClientTls(TlsMode.SIMPLE, roots=str(path))
    first = contexts.of(policy, "")
    assert contexts.of(policy, "") is first
    assert contexts.of(policy, "h2") is not first
    os.utime(path, ns=(1, 1))
    assert contexts.of(policy, "") is not first
    assert first.minimum_version is ssl.TLSVersion.TLSv1_2
    path.write_text("no certificate")
    with pytest.raises(TlsFailed, match="DestinationRule tls"):
        contexts.of(policy, "")
