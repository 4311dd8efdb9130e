"""A connection with a server outside of the mesh, as a transport, over real sockets."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

import pytest

from tests.flow.conftest import bugs, clock, engine, pair
from tests.flow.driving import drive, read
from tests.hbone.inner import Listener
from ztunnel.errors import NOT_TAKEN, Unreachable
from ztunnel.flow.engine import Engine
from ztunnel.flow.held import HeldBytes
from ztunnel.flow.linger import close_with_reset
from ztunnel.flow.transport import HIGH_BYTES
from ztunnel.waypoint.upstream.carry import PlainStream

__all__ = ["bugs", "clock", "engine", "pair"]
Pair = Callable[[], tuple[socket.socket, socket.socket]]


class Ends:
    """A stream of ours, who listens to it, and the server's socket."""

    def __init__(self, engine: Engine, pair: Pair, takes: bool = True, limit_bytes: int = 2**62) -> None:
        self.engine = engine
        near, self.server = pair()
        self.held = HeldBytes(limit_bytes)
        self.stream = PlainStream(engine, near, self.held.share(1, "server"))
        self.heard = Listener(takes)
        self.heard.tunnel = self.stream
        self.stream.attach(self.heard)
        self.near = near

    def drain(self) -> bytes:
        """All that is there for the server, until nothing moves."""
        got = bytearray()
        for _ in range(1000):
            drive(self.engine)
            part = read(self.server)
            if not part:
                break
            got += part
        return bytes(got)

    def fill(self) -> int:
        """The server sends until nothing more goes; how much went."""
        sent = 0
        for _ in range(1000):
            try:
                sent += self.server.send(bytes(1 << 16))
            except BlockingIOError:
                break
            drive(self.engine)
        return sent


def test_bytes_go_both_ways_and_each_side_ends_by_itself(engine: Engine, pair: Pair) -> None:
    ends = Ends(engine, pair)
    ends.stream.write(b"question")
    ends.stream.finish()
    assert ends.drain() == b"question"
    assert read(ends.server) == b""
    ends.server.send(b"answer")
    ends.server.shutdown(socket.SHUT_WR)
    drive(engine, until=lambda: ends.heard.words)
    assert (bytes(ends.heard.got), ends.heard.words) == (b"answer", ["ended"])
    assert ends.near.fileno() < 0
    assert ends.held.total_bytes == 0


def test_a_server_that_ends_first_can_be_written_to(engine: Engine, pair: Pair) -> None:
    ends = Ends(engine, pair)
    ends.server.shutdown(socket.SHUT_WR)
    drive(engine, until=lambda: ends.heard.words)
    ends.stream.write(b"more")
    assert ends.drain() == b"more"
    ends.stream.finish()
    drive(engine)
    assert read(ends.server) == b""
    assert ends.heard.words == ["ended"]
    assert ends.near.fileno() < 0


def test_what_the_server_does_not_take_is_kept_in_order_and_accounted(engine: Engine, pair: Pair) -> None:
    ends = Ends(engine, pair)
    data = bytes(range(256)) * (1 << 16)
    for at in range(0, len(data), 1 << 18):
        ends.stream.write(memoryview(data)[at : at + (1 << 18)])
    ends.stream.finish()
    ends.stream.write(b"too late")
    assert ends.stream.unsent_bytes == ends.held.total_bytes > 0
    assert ends.drain() == data
    assert (ends.stream.unsent_bytes, ends.held.total_bytes) == (0, 0)
    assert read(ends.server) == b""


def test_whoever_writes_hears_when_all_has_left(engine: Engine, pair: Pair) -> None:
    ends = Ends(engine, pair)
    ends.stream.write(bytes(1 << 24))
    assert ends.heard.words == []
    assert len(ends.drain()) == 1 << 24
    assert ends.heard.words == ["writable"]


def test_what_is_not_taken_fills_the_servers_buffers(engine: Engine, pair: Pair) -> None:
    ends = Ends(engine, pair, takes=False)
    sent = ends.fill()
    most = HIGH_BYTES + len(engine.inbox.view)
    assert HIGH_BYTES <= len(ends.heard.got) <= most < sent
    assert ends.held.total_bytes == len(ends.heard.got)
    ends.heard.takes = True
    ends.stream.taken(len(ends.heard.got))
    drive(engine, until=lambda: len(ends.heard.got) == sent)
    assert ends.held.total_bytes == 0


def test_a_reset_is_heard_of_once_also_by_whoever_reads_nothing(engine: Engine, pair: Pair) -> None:
    for takes in (True, False):
        ends = Ends(engine, pair, takes)
        if not takes:
            ends.fill()
        close_with_reset(ends.server)
        drive(engine, until=lambda ends=ends: ends.heard.words)
        assert ends.heard.words == ["lost"]
        assert isinstance(ends.heard.error, Unreachable)
        assert ends.held.total_bytes == 0
        ends.stream.write(b"x")
        ends.stream.finish()
        ends.stream.taken(1)
        ends.stream.abort(Unreachable(""))
        drive(engine)
        assert ends.heard.words == ["lost"]


def test_writing_to_what_is_broken_is_told_later(engine: Engine, pair: Pair) -> None:
    ends = Ends(engine, pair)
    ends.near.shutdown(socket.SHUT_WR)
    ends.stream.write(b"x")
    assert ends.heard.words == []
    drive(engine, until=lambda: ends.heard.words)
    assert ends.heard.words == ["lost"]


@pytest.mark.parametrize("waits", [False, True])
def test_what_the_server_said_before_it_broke_is_heard(engine: Engine, pair: Pair, waits: bool) -> None:
    """Also where there is something that waits for it to read."""
    ends = Ends(engine, pair)
    ends.stream.write(bytes(1 << 24) if waits else b"unread")
    drive(engine)
    ends.server.send(b"answer")
    ends.server.close()  # with something unread: a reset
    ends.stream.write(b"more")
    drive(engine, until=lambda: ends.heard.words)
    assert (bytes(ends.heard.got), ends.heard.words) == (b"answer", ["lost"])
    assert isinstance(ends.heard.error, Unreachable)
    assert ends.held.total_bytes == 0


def test_nothing_that_carries_it_leaves(engine: Engine, pair: Pair) -> None:
    assert not Ends(engine, pair).stream.leaving


def test_aborted_it_is_reset_and_silent(engine: Engine, pair: Pair) -> None:
    ends = Ends(engine, pair)
    ends.stream.write(bytes(1 << 24))
    ends.stream.abort(Unreachable("enough"))
    assert ends.held.total_bytes == 0
    drive(engine)
    assert ends.server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET
    assert ends.heard.words == []


def test_where_too_much_is_held_it_gives_way(engine: Engine, pair: Pair) -> None:
    ends = Ends(engine, pair, limit_bytes=1 << 20)
    ends.stream.write(bytes(1 << 24))
    drive(engine, until=lambda: ends.heard.words)
    assert ends.heard.words == ["lost"]
    assert str(ends.heard.error) == NOT_TAKEN
    assert ends.held.total_bytes == 0
