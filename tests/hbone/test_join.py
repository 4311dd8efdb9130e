"""The data path of a tunnel, between two of ours."""

from __future__ import annotations

import fcntl
import random
import socket
import sys
from errno import EPIPE

import h2.events
import pytest

from tests.flow.driving import read
from tests.hbone.peers import OK, Lab
from ztunnel.errors import Denied, Unreachable
from ztunnel.flow.expire import STALLED_SECONDS
from ztunnel.flow.linger import close_with_reset

SIOCOUTQ = 0x5411
"""What a socket's kernel has not sent, or of which it does not know that it arrived."""


def segments_in(sock: socket.socket) -> int:
    """How many it has received (`tcpi_segs_in`)."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 144)
    return int.from_bytes(info[140:144], sys.byteorder)


def test_bulk_arrives_whole_in_both_directions_at_once(lab: Lab) -> None:
    client, _ = lab.sessions()
    caller, _, app = lab.joined(client)
    up = bytes(range(256)) * 8192
    down = up[::-1]
    got_up, got_down, sent_up, sent_down = b"", b"", 0, 0

    def done() -> bool:
        nonlocal got_up, got_down, sent_up, sent_down
        for sock, data, which in ((caller.sock, up, True), (app, down, False)):
            try:
                sent = sock.send(data[sent_up if which else sent_down :])
            except BlockingIOError:
                sent = 0
            if which:
                sent_up += sent
            else:
                sent_down += sent
        got_up += read(app) or b""
        got_down += read(caller.sock) or b""
        return len(got_up) == len(up) and len(got_down) == len(down)

    lab.go(until=done)
    assert got_up == up
    assert got_down == down


@pytest.mark.parametrize("first", ["caller", "app"])
def test_a_half_close_is_passed_on_and_the_other_way_lives_on(lab: Lab, first: str) -> None:
    client, server = lab.sessions()
    caller, callee, app = lab.joined(client)
    one, other = (caller.sock, app) if first == "caller" else (app, caller.sock)
    one.send(b"last")
    one.shutdown(socket.SHUT_WR)
    assert lab.receive(other, 5) == b"last"
    other.send(b"still")
    assert lab.receive(one, 5) == b"still"
    other.close()
    assert lab.receive(one, 1) == b""
    lab.go()
    assert caller.log[1:] == [("ended", None)]
    assert callee.ends == [None]
    assert client.tunnels == server.tunnels == set()
    assert lab.ledger.streams == 0


@pytest.mark.parametrize("first", ["caller", "app"])
def test_last_bytes_and_the_end_behind_them_reach_the_application_in_one_segment(
    lab: Lab, first: str
) -> None:
    client, _ = lab.sessions()
    caller, callee, app = lab.joined(client)
    one, other = (caller.sock, app) if first == "caller" else (app, caller.sock)
    before = segments_in(other)
    one.send(b"last")
    one.shutdown(socket.SHUT_WR)
    assert lab.receive(other, 5) == b"last"
    assert segments_in(other) == before + 1
    other.send(b"still")
    assert lab.receive(one, 5) == b"still"
    other.close()
    lab.go()
    assert (caller.log[1:], callee.ends) == ([("ended", None)], [None])


@pytest.mark.parametrize("first", ["caller", "app"])
def test_who_has_shut_its_side_gets_last_bytes_at_once(lab: Lab, first: str) -> None:
    """Nothing is shut behind them then, which would push them out."""
    client, _ = lab.sessions()
    caller, callee, app = lab.joined(client)
    one, other = (caller.sock, app) if first == "caller" else (app, caller.sock)
    other.shutdown(socket.SHUT_WR)
    assert lab.receive(one, 1) == b""
    one.send(b"last")
    one.close()
    assert lab.receive(other, 5) == b"last"
    lab.go()
    assert (caller.log[1:], callee.ends) == ([("ended", None)], [None])


@pytest.mark.parametrize("first", ["caller", "app"])
def test_last_bytes_that_are_not_taken_at_once_arrive_whole_before_the_end(lab: Lab, first: str) -> None:
    client, _ = lab.sessions()
    caller, callee, app = lab.joined(client)
    one, other = (caller.sock, app) if first == "caller" else (app, caller.sock)
    sent = lab.fill(one)
    one.shutdown(socket.SHUT_WR)
    lab.go()
    assert len(lab.receive(other, sent + 1)) == sent
    other.close()
    lab.go()
    assert (caller.log[1:], callee.ends) == ([("ended", None)], [None])


def test_a_frame_that_has_not_left_says_that_it_is_the_last(lab: Lab) -> None:
    _, peer, caller = lab.answered()
    caller.sock.send(b"last")
    caller.sock.shutdown(socket.SHUT_WR)
    lab.go(until=lambda: peer.of(h2.events.StreamEnded))
    (data,) = peer.of(h2.events.DataReceived)
    assert (data.data, data.stream_ended is None) == (b"last", False)


def test_behind_a_frame_that_has_left_one_that_is_empty_says_it(lab: Lab) -> None:
    _, peer, caller = lab.answered()
    caller.sock.send(b"last")
    lab.go(until=lambda: peer.of(h2.events.DataReceived))
    caller.sock.shutdown(socket.SHUT_WR)
    lab.go(until=lambda: peer.of(h2.events.StreamEnded))
    first, second = peer.of(h2.events.DataReceived)
    assert (first.data, first.stream_ended, second.data) == (b"last", None, b"")
    assert second.stream_ended is not None


@pytest.mark.parametrize("seed", range(8))
def test_ends_of_many_tunnels_are_those_of_their_own_streams(lab: Lab, seed: int) -> None:
    rng = random.Random(seed)
    client, peer = lab.client_to_h2()
    callers = [lab.call(client) for _ in range(6)]
    lab.go(until=lambda: len(peer.of(h2.events.RequestReceived)) == 6)
    for stream_id in range(1, 13, 2):
        peer.conn.send_headers(stream_id, OK)
    lab.go(until=lambda: all(caller.log for caller in callers))
    sent = [b""] * 6
    living = list(range(6))
    while living:
        for at in rng.sample(living, rng.randint(1, len(living))):
            for _ in range(rng.randint(0, 2)):
                part = rng.randbytes(rng.randint(1, 3000))
                sent[at] += part
                callers[at].sock.send(part)
            if rng.random() < 0.4:
                callers[at].sock.shutdown(socket.SHUT_WR)
                living.remove(at)
        for _ in range(rng.randint(0, 2)):
            lab.engine.round()
    lab.go(until=lambda: len(peer.of(h2.events.StreamEnded)) == 6)
    assert [peer.data.get(stream_id, b"") for stream_id in range(1, 13, 2)] == sent
    assert not peer.of(h2.events.StreamReset)


@pytest.mark.parametrize("first", ["caller", "app"])
def test_a_reset_at_one_end_is_a_reset_at_the_other(lab: Lab, first: str) -> None:
    client, _ = lab.sessions()
    caller, callee, app = lab.joined(client)
    one, other = (caller.sock, app) if first == "caller" else (app, caller.sock)
    close_with_reset(one)
    lab.go()
    assert caller.log[1:] == [("ended", None)]
    assert callee.ends == [None]
    with pytest.raises(ConnectionResetError):
        read(other)
    assert lab.ledger.streams == 0


def read_to_the_reset(lab: Lab, sock: socket.socket) -> int:
    """How many bytes come before a reset."""
    received = 0
    try:
        while part := lab.receive(sock, 1):
            received += len(part)
    except ConnectionResetError:
        return received
    raise AssertionError("an end, and no reset")


@pytest.mark.parametrize("first", ["caller", "app"])
def test_a_reset_behind_a_half_close_is_a_reset_at_the_other(lab: Lab, first: str) -> None:
    client, _ = lab.sessions()
    caller, _, app = lab.joined(client)
    one, other = (caller.sock, app) if first == "caller" else (app, caller.sock)
    one.send(b"last")
    one.shutdown(socket.SHUT_WR)
    assert lab.receive(other, 5) == b"last"
    close_with_reset(one)
    # That is how a kernel says it of a socket whose peer had shut its side.
    lab.go(until=lambda: other.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == EPIPE)
    assert not client.tunnels


@pytest.mark.parametrize("first", ["caller", "app"])
def test_an_answer_arrives_although_its_sender_has_not_read_the_question(lab: Lab, first: str) -> None:
    """A server that answers and closes with unread bytes is reset by its kernel (RFC 1122 4.2.2.13)."""
    client, server = lab.sessions()
    caller, callee, app = lab.joined(client)
    one, other = (caller.sock, app) if first == "caller" else (app, caller.sock)
    lab.send(one, b"question" * 1000)
    lab.go()
    answer = bytes(range(256)) * 400
    assert other.send(answer) == len(answer)
    other.close()
    one.send(b"more")
    assert lab.receive(one, len(answer)) == answer
    assert read_to_the_reset(lab, one) == 0
    lab.go()
    assert caller.log[1:] == [("ended", None)]
    assert callee.ends == [None]
    assert client.tunnels == server.tunnels == set()


@pytest.mark.parametrize("first", ["caller", "app"])
def test_what_was_sent_before_a_reset_arrives_before_it_however_slow_the_reader(lab: Lab, first: str) -> None:
    client, _ = lab.sessions()
    caller, callee, app = lab.joined(client)
    one, other = (caller.sock, app) if first == "caller" else (app, caller.sock)
    sent = lab.fill(one)
    held = int.from_bytes(fcntl.ioctl(one, SIOCOUTQ, bytes(4)), sys.byteorder)
    close_with_reset(one)
    lab.go()
    # The kernel of who was reset has thrown away what it had not sent.
    assert read_to_the_reset(lab, other) >= sent - held > 4_000_000
    lab.go()
    assert caller.log[1:] == [("ended", None)]
    assert callee.ends == [None]
    assert (lab.ledger.streams, lab.ledger.buffered_bytes) == (0, 0)


@pytest.mark.parametrize("first", ["caller", "app"])
def test_who_never_takes_the_last_bytes_of_a_peer_that_was_reset_is_not_waited_for(
    lab: Lab, first: str
) -> None:
    client, server = lab.sessions()
    caller, callee, app = lab.joined(client)
    one = caller.sock if first == "caller" else app
    lab.fill(one)
    close_with_reset(one)
    lab.go()
    assert lab.ledger.streams > 0
    for _ in range(30):
        lab.clock.move(STALLED_SECONDS / 10)
        lab.go()
    assert client.alive
    assert client.tunnels == server.tunnels == set()
    assert lab.ledger.buffered_bytes == 0
    assert caller.log[1:] == [("ended", None)]
    assert callee.ends == [None]


def test_a_slow_reader_stops_the_sender_within_the_window_and_nothing_is_lost(lab: Lab) -> None:
    client, _ = lab.sessions()
    caller, _, app = lab.joined(client)
    sent = lab.fill(caller.sock)
    assert lab.ledger.buffered_bytes <= 4 << 20
    assert sent < 20 << 20
    assert len(lab.receive(app, sent)) == sent
    lab.go()
    assert lab.ledger.buffered_bytes == 0


def test_a_slow_reader_does_not_stop_its_neighbour(lab: Lab) -> None:
    client, _ = lab.sessions()
    slow, _, _ = lab.joined(client)
    quick, _, app = lab.joined(client)
    lab.fill(slow.sock)
    quick.sock.send(b"hello")
    assert lab.receive(app, 5) == b"hello"


def test_an_application_that_resets_while_bytes_wait_for_it_frees_them(lab: Lab) -> None:
    client, _ = lab.sessions()
    caller, _, app = lab.joined(client)
    lab.fill(caller.sock)
    assert lab.ledger.buffered_bytes > 0
    close_with_reset(app)
    lab.go()
    assert lab.ledger.buffered_bytes == 0
    again, _, other = lab.joined(client)
    lab.send(again.sock, bytes(1000))
    assert len(lab.receive(other, 1000)) == 1000


def test_aborting_a_tunnel_resets_both_ends_and_no_other(lab: Lab) -> None:
    client, _ = lab.sessions()
    caller, callee, app = lab.joined(client)
    other, _, other_app = lab.joined(client)
    error = Denied("connection closed due to policy rejection")
    callee.tunnel.abort(error)
    callee.tunnel.abort(error)
    lab.go()
    assert callee.ends == [error]
    assert caller.words == ["established", "ended"]
    for sock in (caller.sock, app):
        with pytest.raises(ConnectionResetError):
            read(sock)
    other.sock.send(b"hello")
    assert lab.receive(other_app, 5) == b"hello"


def test_what_the_peer_sent_completely_is_delivered_even_if_the_session_dies(lab: Lab) -> None:
    client, server = lab.sessions()
    caller, _callee, app = lab.joined(client)
    caller.sock.shutdown(socket.SHUT_WR)
    lab.go()
    app.settimeout(None)
    app.setblocking(False)
    sent = 0
    data = bytes(1 << 16)
    for _ in range(40):
        try:
            sent += app.send(data)
        except BlockingIOError:
            lab.go()
    app.shutdown(socket.SHUT_WR)
    lab.go()
    server.abort(Unreachable("gone"))
    lab.go()
    assert len(lab.receive(caller.sock, sent + 1)) == sent
    lab.go()
    assert caller.log[1:] == [("ended", None)]
    assert lab.ledger.buffered_bytes == 0
