"""Two sockets of one flow, joined."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from tests.flow.driving import Clock, drive, read
from ztunnel.errors import ConnectionFailed, Denied, Exhausted
from ztunnel.flow.engine import Engine
from ztunnel.flow.expire import STALLED_SECONDS
from ztunnel.flow.flow import Counts
from ztunnel.flow.held import HeldBytes
from ztunnel.flow.splice import Splice, close_with_reset, splice

Pair = Callable[[], tuple[socket.socket, socket.socket]]


@dataclass
class Flow:
    """A spliced flow, seen from the outside: the client's and the server's own sockets."""

    engine: Engine
    client: socket.socket
    server: socket.socket
    counts: Counts = field(default_factory=Counts)
    ends: list[ConnectionFailed | None] = field(default_factory=list)
    splice: Splice | None = None
    held: HeldBytes = field(default_factory=HeldBytes)

    def receive(self, sock: socket.socket, count: int) -> bytes:
        """Read so many bytes, driving the engine."""
        parts: list[bytes] = []

        def have() -> bool:
            part = read(sock)
            if part:
                parts.append(part)
            return sum(map(len, parts)) >= count or part == b""

        drive(self.engine, until=have)
        return b"".join(parts)

    def at_end(self, sock: socket.socket) -> bool:
        drive(self.engine)
        return read(sock) == b""


def fill(flow: Flow, sender: socket.socket) -> int:
    """Send until nothing more goes, because nobody reads; how much went."""
    data = bytes(1 << 20)
    sent = 0

    def stuck() -> bool:
        nonlocal sent
        try:
            sent += sender.send(data)
        except BlockingIOError:
            return not flow.engine.round(0)
        return False

    drive(flow.engine, until=stuck)
    return sent


def read_to_the_reset(flow: Flow, sock: socket.socket) -> int:
    """How many bytes come before a reset."""
    received = 0
    try:
        while part := flow.receive(sock, 1):
            received += len(part)
    except ConnectionResetError:
        return received
    raise AssertionError("an end, and no reset")


def waiting_bytes(sock: socket.socket) -> int:
    """What a socket's kernel has not sent, or of which it does not know that it arrived (SIOCOUTQ)."""
    return int.from_bytes(fcntl.ioctl(sock, 0x5411, bytes(4)), sys.byteorder)


@pytest.fixture
def flow(engine: Engine, pair: Pair) -> Flow:
    client, opener = pair()
    target, server = pair()
    made = Flow(engine, client, server)
    share = made.held.share("pod", "source")
    made.splice = splice(engine, opener, target, made.counts, made.ends.append, share)
    return made


def test_bytes_go_both_ways_and_are_counted(flow: Flow) -> None:
    flow.client.send(b"hello")
    assert flow.receive(flow.server, 5) == b"hello"
    flow.server.send(b"hi")
    assert flow.receive(flow.client, 2) == b"hi"
    assert (flow.counts.up, flow.counts.down) == (5, 2)


@pytest.mark.parametrize("first", ["client", "server"])
def test_a_half_close_is_passed_on_and_the_other_way_lives_on(flow: Flow, first: str) -> None:
    one, other = (flow.client, flow.server) if first == "client" else (flow.server, flow.client)
    one.send(b"last")
    one.shutdown(socket.SHUT_WR)
    assert flow.receive(other, 4) == b"last"
    assert flow.at_end(other)
    other.send(b"still")
    assert flow.receive(one, 5) == b"still"
    assert flow.ends == []
    other.close()
    assert flow.at_end(one)
    assert flow.ends == [None]


def test_a_reader_that_is_slow_stops_the_sender_within_bounded_memory(flow: Flow) -> None:
    data = bytes(1 << 20)
    sent = 0

    def stuck() -> bool:
        nonlocal sent
        try:
            sent += flow.client.send(data)
        except BlockingIOError:
            return not flow.engine.round(0)
        return False

    drive(flow.engine, until=stuck)
    assert flow.splice is not None
    assert flow.splice._target.backlog.held_bytes <= 200_000
    assert flow.splice.held_bytes == flow.held.total_bytes > 0
    received = 0
    while received < sent:
        received += len(flow.receive(flow.server, 1))
    assert received == sent == flow.counts.up
    assert flow.held.total_bytes == 0


@pytest.mark.parametrize("end", ["gives way", "receiver resets", "sender resets", "aborted"])
def test_a_flow_that_is_over_holds_nothing(flow: Flow, end: str) -> None:
    fill(flow, flow.client)
    assert flow.splice is not None
    assert flow.held.total_bytes > 0
    if end == "gives way":
        flow.splice.give_way()
    elif end == "aborted":
        flow.splice.abort(Denied("enough"))
    elif end == "receiver resets":
        close_with_reset(flow.server)
    else:
        close_with_reset(flow.client)
        read_to_the_reset(flow, flow.server)
    drive(flow.engine, until=lambda: flow.ends)
    assert flow.held.total_bytes == 0
    if end == "gives way":
        [error] = flow.ends
        assert isinstance(error, Exhausted)
        assert "ZTUNNEL_BUFFER_LIMIT" in str(error)


def test_at_the_limit_a_flow_that_nobody_reads_is_ended(engine: Engine, pair: Pair) -> None:
    held = HeldBytes(100_000)
    flows = []
    for _ in range(3):
        (client, opener), (target, server) = pair(), pair()
        made = Flow(engine, client, server)
        made.splice = splice(
            engine, opener, target, made.counts, made.ends.append, held.share("pod", "source")
        )
        flows.append(made)
    for made in flows[:2]:
        with contextlib.suppress(ConnectionResetError):
            fill(made, made.client)
    drive(engine)
    assert any(made.ends for made in flows[:2])
    assert held.total_bytes <= 100_000
    flows[2].client.send(b"still here")
    assert flows[2].receive(flows[2].server, 10) == b"still here"


def test_what_was_sent_before_a_half_close_arrives_before_it(flow: Flow) -> None:
    data = bytes(range(256)) * 16384
    sent = 0
    while sent < len(data):
        try:
            sent += flow.client.send(data[sent:])
        except BlockingIOError:
            flow.engine.round(0)
            if not flow.engine.round(0):
                break
    flow.client.shutdown(socket.SHUT_WR)
    assert flow.receive(flow.server, sent) == data[:sent]
    assert flow.at_end(flow.server)


@pytest.mark.parametrize("first", ["client", "server"])
def test_a_reset_is_passed_on_and_counts_as_an_end(flow: Flow, first: str) -> None:
    one, other = (flow.client, flow.server) if first == "client" else (flow.server, flow.client)
    close_with_reset(one)
    drive(flow.engine, until=lambda: flow.ends)
    assert flow.ends == [None]
    with pytest.raises(ConnectionResetError):
        read(other)


@pytest.mark.parametrize("first", ["client", "server"])
def test_what_was_sent_before_a_reset_arrives_before_it(flow: Flow, first: str) -> None:
    one, other = (flow.client, flow.server) if first == "client" else (flow.server, flow.client)
    sent = fill(flow, one)
    held = waiting_bytes(one)
    close_with_reset(one)
    received = read_to_the_reset(flow, other)
    # The kernel of who was reset has thrown away what it had not sent.
    assert received >= sent - held > 1_000_000
    drive(flow.engine, until=lambda: flow.ends)
    assert flow.ends == [None]


@pytest.mark.parametrize("first", ["client", "server"])
def test_an_answer_arrives_although_its_sender_has_not_read_the_question(flow: Flow, first: str) -> None:
    """A server that answers and closes with unread bytes is reset by its kernel (RFC 1122 4.2.2.13)."""
    one, other = (flow.client, flow.server) if first == "client" else (flow.server, flow.client)
    one.send(b"question" * 1000)
    drive(flow.engine)
    answer = bytes(range(256)) * 400
    assert other.send(answer) == len(answer)
    other.close()
    one.send(b"more")
    assert flow.receive(one, len(answer)) == answer
    assert read_to_the_reset(flow, one) == 0
    drive(flow.engine, until=lambda: flow.ends)
    assert flow.ends == [None]


def test_who_never_takes_the_last_bytes_of_a_peer_that_was_reset_is_not_waited_for(
    flow: Flow, clock: Clock
) -> None:
    fill(flow, flow.client)
    close_with_reset(flow.client)
    drive(flow.engine)
    for _ in range(int(STALLED_SECONDS / 5)):
        assert flow.ends == []
        clock.move(5)
        drive(flow.engine)
    assert flow.ends == [None]
    assert len(flow.engine.last_words) == 0


@pytest.mark.parametrize("first", ["client", "server"])
@pytest.mark.parametrize("inline", [0, 1])
def test_an_urgent_byte_is_urgent_at_the_other_end_and_in_its_place(
    flow: Flow, first: str, inline: int
) -> None:
    one, other = (flow.client, flow.server) if first == "client" else (flow.server, flow.client)
    other.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, inline)
    one.send(b"abc")
    one.send(b"!", socket.MSG_OOB)
    one.send(b"def")
    drive(flow.engine)
    assert flow.receive(other, 3) == b"abc"
    if inline:
        assert flow.receive(other, 4) == b"!def"
    else:
        assert other.recv(1, socket.MSG_OOB) == b"!"
        assert flow.receive(other, 3) == b"def"


def test_an_urgent_byte_with_nothing_around_it_arrives(flow: Flow) -> None:
    flow.client.send(b"!", socket.MSG_OOB)
    drive(flow.engine)
    assert flow.counts.up == 1
    assert flow.server.recv(1, socket.MSG_OOB) == b"!"


def test_a_sender_that_closed_both_ways_while_it_is_not_read_does_not_make_the_engine_spin(
    flow: Flow,
) -> None:
    flow.server.shutdown(socket.SHUT_WR)
    assert flow.at_end(flow.client)
    fill(flow, flow.client)
    flow.client.shutdown(socket.SHUT_WR)
    drive(flow.engine)
    total = flow.counts.up
    received = len(flow.receive(flow.server, 1))
    while flow.ends == []:
        part = flow.receive(flow.server, 1)
        if not part:
            break
        received += len(part)
    assert received >= total
    assert flow.ends == [None]


def test_aborting_resets_both_sides_and_tells_why(flow: Flow) -> None:
    error = Denied("explicitly denied by: default/p")
    assert flow.splice is not None
    flow.splice.abort(error)
    flow.splice.abort(error)
    assert flow.ends == [error]
    for sock in (flow.client, flow.server):
        with pytest.raises(ConnectionResetError):
            read(sock)


def test_a_socket_that_cannot_be_reset_is_closed_all_the_same() -> None:
    near, far = socket.socketpair()
    near.close()
    close_with_reset(near)
    assert far.recv(1) == b""
    far.close()


def test_a_flow_that_has_ended_leaves_nothing_for_the_garbage_collector(flow: Flow) -> None:
    gc.collect()
    gc.disable()
    try:
        for sock in (flow.client, flow.server):
            sock.shutdown(socket.SHUT_WR)
        drive(flow.engine, until=lambda: flow.ends)
        del flow.splice
        assert not [each for each in gc.get_objects() if isinstance(each, Splice)]
    finally:
        gc.enable()
