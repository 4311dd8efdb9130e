"""The server's side of the handshake within the engine: whatever pieces it comes in, and however it fails."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from tests.flow.driving import Bugs, Clock, drive, read, stream_pair
from tests.hbone.peers import Contexts
from ztunnel.errors import ConnectionFailed, HandshakeFailed, TlsFailed, Unreachable
from ztunnel.flow.engine import Engine
from ztunnel.hbone.accept import FIRST_BYTE_SECONDS, HANDSHAKE_SECONDS, Handshake
from ztunnel.hbone.link import TlsLink


@dataclass
class Arrival:
    """An accepted connection and its client; steps are computed at once, unless `slow`."""

    engine: Engine
    contexts: Contexts
    begins: bool = True
    slow: bool = False
    steps: int = 0
    waiting: list[Callable[[], None]] = field(default_factory=list)
    ends: list[tuple[TlsLink | None, ConnectionFailed]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.client, self.accepted = stream_pair()
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = self.contexts.client.wrap_bio(self.incoming, self.outgoing)
        self.handshake = Handshake(self.engine, self.accepted, self)

    def spoke(self) -> None:
        if self.begins:
            self.handshake.begin(self.contexts.server, self.compute)

    def ended(self, link: TlsLink | None, error: ConnectionFailed) -> None:
        self.ends.append((link, error))

    def compute(self, step: Callable[[], None], done: Callable[[BaseException | None], None]) -> None:
        self.steps += 1

        def run() -> None:
            error: BaseException | None = None
            try:
                step()
            except (ssl.SSLError, OSError) as raised:
                error = raised
            done(error)

        if self.slow:
            self.waiting.append(run)
        else:
            self.engine.post(run)

    def hello(self) -> bytes:
        """What the client says first."""
        with pytest.raises(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self.outgoing.read()

    def answer(self) -> bytes:
        """What the client says to the server's first words."""
        self.incoming.write(self.client.recv(1 << 16))
        self.tls.do_handshake()
        return self.outgoing.read()

    def close(self) -> None:
        self.client.close()
        for link, _ in self.ends:
            if link is not None:
                link.sock.close()


@pytest.fixture
def arrive(engine: Engine, contexts: Contexts):
    made: list[Arrival] = []

    def make(**how: bool) -> Arrival:
        made.append(Arrival(engine, contexts, **how))
        return made[-1]

    yield make
    for each in made:
        each.close()


def failure(arrival: Arrival) -> ConnectionFailed:
    [(link, error)] = arrival.ends
    assert link is None
    assert arrival.handshake.over
    assert arrival.accepted.fileno() < 0
    return error


@pytest.mark.parametrize("piece_bytes", [1, 100, 100_000])
def test_a_handshake_in_any_pieces_gives_a_link(engine: Engine, arrive, piece_bytes: int) -> None:
    arrival = arrive()
    for say in (arrival.hello, arrival.answer):
        words = say() if say == arrival.hello else b""
        if not words:
            drive(engine, until=lambda: _readable(arrival.client))
            words = say()
        for at in range(0, len(words), piece_bytes):
            arrival.client.send(words[at : at + piece_bytes])
            drive(engine)
    drive(engine, until=lambda: arrival.ends)
    [(link, _)] = arrival.ends
    assert link is not None
    assert link.sock is arrival.accepted
    assert link.tls.selected_alpn_protocol() == "h2"
    engine.watch(link.sock.fileno(), 0, lambda mask: None, lambda bug: None)  # it is nobody's any more
    engine.unwatch(link.sock.fileno())
    if piece_bytes == 100_000:
        assert arrival.steps == 2


def test_bytes_behind_the_handshake_stay_for_the_session(engine: Engine, arrive) -> None:
    arrival = arrive()
    arrival.client.send(arrival.hello())
    drive(engine, until=lambda: _readable(arrival.client))
    words = arrival.answer()
    arrival.tls.write(b"and more")
    arrival.client.send(words + arrival.outgoing.read())
    drive(engine, until=lambda: arrival.ends)
    [(link, _)] = arrival.ends
    assert link is not None
    assert link.tls.read(100) == b"and more"


def test_a_certificate_may_come_later_than_the_peers_first_bytes(
    engine: Engine, arrive, clock: Clock
) -> None:
    arrival = arrive(begins=False)
    arrival.client.send(arrival.hello())
    drive(engine)
    clock.move(FIRST_BYTE_SECONDS + 1)
    drive(engine)
    arrival.handshake.begin(arrival.contexts.server, arrival.compute)
    arrival.handshake.begin(arrival.contexts.server, arrival.compute)
    drive(engine, until=lambda: _readable(arrival.client))
    arrival.client.send(arrival.answer())
    drive(engine, until=lambda: arrival.ends)
    assert arrival.ends[0][0] is not None
    assert arrival.steps == 2


def test_who_says_nothing_is_closed_after_some_seconds(engine: Engine, arrive, clock: Clock) -> None:
    arrival = arrive()
    clock.move(FIRST_BYTE_SECONDS - 0.1)
    drive(engine)
    assert not arrival.ends
    clock.move(0.2)
    drive(engine)
    assert str(failure(arrival)) == "the peer connected and said nothing"
    assert read(arrival.client) == b""
    assert not arrival.handshake.begun


def test_who_goes_on_slowly_is_closed_at_the_deadline(engine: Engine, arrive, clock: Clock) -> None:
    arrival = arrive()
    words = arrival.hello()
    for at in range(10):
        arrival.client.send(words[at : at + 1])
        drive(engine)
        clock.move(HANDSHAKE_SECONDS / 11)
    drive(engine)
    assert not arrival.ends
    clock.move(HANDSHAKE_SECONDS / 10)
    drive(engine)
    assert "in time" in str(failure(arrival))


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\n\r\n", bytes(2000), b"\x16\x03\x01\xff\xff" + bytes(99)]
)
def test_garbage_is_refused_and_an_alert_tells_why(engine: Engine, arrive, garbage: bytes) -> None:
    arrival = arrive()
    arrival.client.send(garbage)
    drive(engine, until=lambda: arrival.ends)
    error = failure(arrival)
    assert isinstance(error, TlsFailed)
    assert str(error).startswith("TLS handshake: ")


def test_who_closes_before_or_during_the_handshake_is_noticed(engine: Engine, arrive) -> None:
    before, during = arrive(), arrive()
    before.client.close()
    during.client.send(during.hello())
    drive(engine, until=lambda: _readable(during.client))
    during.client.recv(1 << 16)
    during.client.shutdown(socket.SHUT_WR)
    drive(engine, until=lambda: before.ends and during.ends)
    assert "closed the connection" in str(failure(before))
    assert "closed the connection" in str(failure(during))


def test_a_reset_while_a_step_is_computed_ends_it_at_once(engine: Engine, arrive) -> None:
    arrival = arrive(slow=True)
    arrival.client.send(arrival.hello())
    drive(engine, until=lambda: arrival.waiting)
    arrival.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    arrival.client.close()
    drive(engine, until=lambda: arrival.ends)
    assert isinstance(failure(arrival), Unreachable)
    arrival.waiting.pop()()  # the step's end comes to nothing
    drive(engine)
    assert len(arrival.ends) == 1


def test_nothing_is_computed_for_a_peer_that_went_while_it_waited_for_its_turn(
    engine: Engine, arrive
) -> None:
    arrival = arrive(slow=True)
    arrival.client.send(arrival.hello())
    drive(engine, until=lambda: arrival.waiting)
    arrival.handshake.fail(TlsFailed("gone"))
    arrival.waiting.pop()()
    assert not arrival.handshake._outgoing.pending
    assert arrival.handshake._tls.version() is None
    drive(engine)
    assert len(arrival.ends) == 1


def test_it_can_be_given_up_at_every_step(engine: Engine, arrive) -> None:
    gone = TlsFailed("others have less")
    silent, spoke, computing, reading = arrive(), arrive(begins=False), arrive(slow=True), arrive()
    for each in (spoke, computing, reading):
        each.client.send(each.hello())
    drive(engine, until=lambda: computing.waiting and _readable(reading.client))
    for each in (silent, spoke, computing, reading):
        each.handshake.fail(gone)
        each.handshake.fail(gone)
        assert failure(each) is gone
        each.handshake.begin(each.contexts.server, each.compute)
    computing.waiting.pop()()
    drive(engine)
    assert all(len(each.ends) == 1 for each in (silent, spoke, computing, reading))


def test_a_peer_that_offers_no_http2_is_refused(engine: Engine, arrive, contexts: Contexts) -> None:
    arrival = arrive()
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.check_hostname, bare.verify_mode = False, ssl.CERT_NONE
    bare.set_alpn_protocols(["http/1.1"])
    arrival.tls = bare.wrap_bio(arrival.incoming, arrival.outgoing)
    arrival.client.send(arrival.hello())
    drive(engine, until=lambda: arrival.ends or _readable(arrival.client))
    if not arrival.ends:
        arrival.client.send(arrival.answer())
        drive(engine, until=lambda: arrival.ends)
    assert isinstance(failure(arrival), (HandshakeFailed, TlsFailed))


def test_a_peer_that_does_not_read_our_words_gets_them_later(engine: Engine, arrive) -> None:
    """Its receive window is full: what we say waits, and nobody spins."""
    arrival = arrive()
    arrival.accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    filled = 0
    try:
        while True:
            filled += arrival.accepted.send(bytes(1 << 16))
    except BlockingIOError:
        pass
    arrival.client.send(arrival.hello())
    drive(engine, until=lambda: arrival.steps == 1)
    drive(engine)
    while filled:
        drive(engine, until=lambda: _readable(arrival.client))
        filled -= len(arrival.client.recv(min(filled, 1 << 16)))
    drive(engine, until=lambda: _readable(arrival.client))
    arrival.client.send(arrival.answer())
    drive(engine, until=lambda: arrival.ends)
    assert arrival.ends[0][0] is not None


def test_a_step_that_cannot_be_computed_ends_the_handshake(engine: Engine, arrive) -> None:
    arrival = arrive(begins=False)
    arrival.client.send(arrival.hello())
    drive(engine, until=lambda: arrival.handshake._words)

    def compute(step: object, done: object) -> None:
        raise OSError(24, "Too many open files")

    arrival.handshake.begin(arrival.contexts.server, compute)
    assert "Too many open files" in str(failure(arrival))


def test_a_bug_in_a_step_ends_the_handshake_and_is_told(bugs: Bugs, clock: Clock, contexts: Contexts) -> None:
    engine = Engine(bugs, clock)
    arrival = Arrival(engine, contexts, slow=True)
    arrival.client.send(arrival.hello())
    drive(engine, until=lambda: arrival.waiting)
    engine.post(lambda: arrival.handshake._stepped(RuntimeError("a bug")))
    drive(engine, until=lambda: arrival.ends)
    assert "internal error" in str(failure(arrival))
    assert [str(bug) for bug in bugs] == ["a bug"]
    bugs.clear()
    arrival.close()
    engine.close()


def _readable(sock: socket.socket) -> bool:
    try:
        return bool(sock.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False
