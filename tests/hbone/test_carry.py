"""Sessions on real TLS as a whole: their tunnels, their limits, time, and how they end."""

from __future__ import annotations

import gc
import socket
import weakref

import h2.events
import pytest
from h2.errors import ErrorCodes

from tests.flow.driving import read
from tests.hbone.peers import CONNECT, OK, OK_BLOCK, H2Peer, Lab
from tests.http2.recording import pull_frames
from ztunnel.errors import ConnectionFailed, HandshakeFailed, Unreachable
from ztunnel.flow.flow import Counts
from ztunnel.flow.pieces import AT_ONCE
from ztunnel.flow.splice import close_with_reset
from ztunnel.hbone.carry import Session
from ztunnel.http2.fields import push_fields
from ztunnel.http2.frame import Code, Frame, push_frame, push_headers, push_ping, push_reset
from ztunnel.http2.standing import CHURN, DEBT_POINTS, Standing


def test_a_call_goes_through_and_its_bytes_are_counted_at_both_ends(lab: Lab) -> None:
    client, _server = lab.sessions()
    caller, callee, app = lab.joined(client)
    assert caller.log == [("established", OK)]
    caller.sock.send(b"hello")
    assert lab.receive(app, 5) == b"hello"
    app.send(b"hi")
    assert lab.receive(caller.sock, 2) == b"hi"
    for counts in (caller.counts, callee.counts):
        assert (counts.up, counts.down) == (5, 2)
    assert (lab.ledger.sessions, lab.ledger.streams, lab.ledger.buffered_bytes) == (2, 2, 0)
    assert client.tls.version() == "TLSv1.3"
    assert client.idle_since is None


def test_many_tunnels_share_a_session_and_keep_their_bytes_apart(lab: Lab) -> None:
    client, _ = lab.sessions()
    calls = [lab.joined(client) for _ in range(20)]
    for number, (caller, _, _) in enumerate(calls):
        caller.sock.send(b"%d" % number * 50)
    for number, (_, _, app) in enumerate(calls):
        assert lab.receive(app, 50) == (b"%d" % number * 50)[: 50 * len(b"%d" % number)]


HELD = 64_000
"""Less than a stream's first window."""


def unread(lab: Lab, peer: H2Peer, *streams: int) -> None:
    """On each of these so much comes that nobody reads, because no application is there yet."""
    for stream_id in streams:
        for _ in range(4):
            peer.conn.send_data(stream_id, bytes(HELD // 4))
    lab.go()


def test_new_streams_of_who_holds_the_most_are_refused_when_too_much_is_buffered(lab: Lab) -> None:
    lab.limits(buffered_bytes=HELD * 5 // 4)
    _, peer, callee = lab.asked()
    unread(lab, peer, 1)
    assert lab.ledger.buffered_bytes == HELD
    peer.conn.send_headers(3, CONNECT)
    lab.go()
    [reset] = peer.of(h2.events.StreamReset)
    assert (reset.stream_id, reset.error_code) == (3, ErrorCodes.REFUSED_STREAM)
    assert lab.ledger.held.refused_total == 1
    assert len(lab.receive(callee.accept(), HELD)) == HELD
    assert lab.ledger.buffered_bytes == 0
    peer.conn.send_headers(5, CONNECT)
    lab.go(until=lambda: len(lab.callees) == 2)


def test_beyond_the_limit_the_newest_tunnel_gives_way_and_the_others_go_on(lab: Lab) -> None:
    lab.limits(buffered_bytes=HELD * 5 // 2)
    _, peer, first = lab.asked()
    for stream_id in (3, 5, 7):
        peer.conn.send_headers(stream_id, CONNECT)
        lab.go()
        lab.clock.move(1)
    unread(lab, peer, 1, 3)
    assert peer.of(h2.events.StreamReset) == []
    unread(lab, peer, 5)
    [reset] = peer.of(h2.events.StreamReset)
    assert (reset.stream_id, reset.error_code) == (5, ErrorCodes.CANCEL)
    assert [callee.cancelled for callee in lab.callees] == [False, False, True, False]
    assert lab.ledger.buffered_bytes == 2 * HELD
    assert lab.ledger.held.gave_way_total == 1
    assert len(lab.receive(first.accept(), HELD)) == HELD
    own = lab.callees[3].accept()
    peer.conn.send_data(7, b"still here")
    assert lab.receive(own, 10) == b"still here"


def test_who_holds_less_is_not_refused_when_too_much_is_buffered(lab: Lab) -> None:
    lab.limits(buffered_bytes=HELD * 5 // 4)
    _, peer, _ = lab.asked()
    unread(lab, peer, 1)
    server, other = lab.server_to_h2()
    server.share = lab.ledger.held.share("another", "peer")
    lab.go()
    other.conn.send_headers(1, CONNECT)
    lab.go(until=lambda: len(lab.callees) == 2)


def test_a_full_session_takes_tunnels_again_when_some_have_ended(lab: Lab) -> None:
    lab.limits(open_streams=2)
    client, _ = lab.sessions()
    first, _, app = lab.joined(client)
    lab.joined(client)
    assert not client.can_take()
    first.sock.close()
    app.close()
    lab.go()
    assert client.can_take()


def test_a_retired_session_serves_what_it_has_and_then_closes(lab: Lab) -> None:
    client, server = lab.sessions()
    caller, _, app = lab.joined(client)
    client.retire()
    assert not client.can_take()
    caller.sock.send(b"hello")
    assert lab.receive(app, 5) == b"hello"
    caller.sock.close()
    app.close()
    lab.go()
    assert {id(session): error for session, error in lab.session_ends} == {id(client): None, id(server): None}
    assert lab.ledger.sessions == 0


def test_an_idle_session_that_is_retired_closes_at_once(lab: Lab) -> None:
    client, _ = lab.sessions()
    lab.go()
    assert client.idle_since is not None
    client.retire()
    lab.go()
    assert len(lab.session_ends) == 2


def test_draining_lets_tunnels_end_and_takes_no_more(lab: Lab) -> None:
    client, server = lab.sessions()
    caller, _, app = lab.joined(client)
    server.drain()
    server.drain()
    lab.go()
    assert not client.can_take()
    assert server.alive
    caller.sock.send(b"hello")
    assert lab.receive(app, 5) == b"hello"
    caller.sock.close()
    app.close()
    lab.go()
    assert lab.session_ends[0][1] is None
    assert lab.ledger.sessions == 0


def test_a_call_under_way_when_the_peer_drains_is_not_lost(lab: Lab) -> None:
    client, server = lab.sessions()
    lab.go()
    caller = lab.call(client)
    server.drain()
    lab.go(until=lambda: lab.callees)
    lab.callees[0].accept()
    lab.go(until=lambda: caller.log)
    assert caller.words == ["established"]


def test_aborting_a_session_ends_every_tunnel_with_the_reason(lab: Lab) -> None:
    client, _ = lab.sessions()
    caller, callee, app = lab.joined(client)
    error = Unreachable("the workload has gone")
    client.abort(error)
    lab.go()
    assert caller.log[1:] == [("ended", error)]
    assert isinstance(callee.ends[0], Unreachable)
    for sock in (caller.sock, app):
        with pytest.raises(ConnectionResetError):
            read(sock)
    assert lab.ledger.sessions == lab.ledger.streams == 0


def test_a_connection_that_is_cut_resets_its_tunnels_and_hands_waiting_calls_back(lab: Lab) -> None:
    client, server = lab.sessions()
    caller, callee, _app = lab.joined(client)
    waiting = lab.call(client)
    waiting.sock.send(b"not read before the answer")
    lab.go(until=lambda: len(lab.callees) == 2)
    server.pipe._sock.shutdown(socket.SHUT_RDWR)
    lab.go()
    assert caller.words == ["established", "ended"]
    assert isinstance(caller.log[1][1], Unreachable)
    assert isinstance(callee.ends[0], Unreachable)
    with pytest.raises(ConnectionResetError):
        read(caller.sock)
    assert waiting.words == ["lost"]
    assert waiting.log[0][1].retryable
    assert waiting.handed_back is not None
    assert waiting.handed_back.recv(100) == b"not read before the answer"
    assert lab.callees[1].cancelled


@pytest.mark.parametrize("end", ["cut", "calmed"])
def test_of_many_tunnels_of_a_session_that_is_over_a_few_end_in_each_round(lab: Lab, end: str) -> None:
    client, server = lab.sessions()
    calls = [lab.joined(client) for _ in range(3 * AT_ONCE)]
    waiting = [lab.call(client) for _ in range(AT_ONCE)]
    lab.go(until=lambda: len(lab.callees) == 4 * AT_ONCE)
    answers = [lab.callees[-1].accept]
    for caller, _, app in calls:  # which is seen before the tunnel is told
        caller.sock.send(b"too late")
        app.send(b"too late")
    close_with_reset(calls[-1][2])
    if end == "cut":
        server.pipe._sock.shutdown(socket.SHUT_RDWR)
    else:
        server.received(memoryview(push_ping(bytes(8)) * 500))

    def over() -> int:
        return sum("ended" in caller.words for caller, _, _ in calls) + sum(
            bool(each.words) for each in waiting
        )

    before, rounds = 0, 0
    while lab.ledger.streams:
        lab.engine.round(0.001)
        told = over() + sum(bool(each.ends) or each.cancelled for each in lab.callees)
        assert told - before <= AT_ONCE + 1
        before, rounds = told, rounds + (told > before)
        if not server.alive and answers:
            answers.pop()()  # an application answers before its tunnel is told
    assert rounds >= 8 - 1
    lab.go()
    assert over() == 4 * AT_ONCE
    assert all(isinstance(caller.log[1][1], ConnectionFailed) for caller, _, _ in calls[:-1])
    assert [each.words for each in waiting] == [["lost"]] * AT_ONCE
    assert not client.alive
    assert not server.alive
    assert lab.ledger.sessions == lab.ledger.streams == lab.ledger.buffered_bytes == 0


def test_who_ends_a_session_behind_its_tunnels_pays_as_if_it_had_reset_them(lab: Lab) -> None:
    costs = {}
    for count, seconds in ((0, 0), (30, 0), (30, 2)):
        server, peer = lab.server_to_h2()
        lab.go()
        for stream_id in range(1, 2 * count, 2):
            peer.conn.send_headers(stream_id, CONNECT)
        lab.go()
        lab.clock.move(seconds)
        before = server.standing.churn.level(lab.clock())
        lab.peers.clear()
        close_with_reset(peer.link.sock)
        lab.go()
        assert not server.alive
        costs[count, seconds] = before - server.standing.churn.level(lab.clock())
    assert costs == {(0, 0): 0, (30, 0): 30, (30, 2): 0}


def test_who_is_sent_away_with_its_tunnels_pays_nothing(lab: Lab) -> None:
    server, peer = lab.server_to_h2()
    lab.go()
    for stream_id in range(1, 60, 2):
        peer.conn.send_headers(stream_id, CONNECT)
    lab.go()
    before = server.standing.churn.level(lab.clock())
    server.abort(Unreachable("the pod has gone"))
    assert server.standing.churn.level(lab.clock()) == before
    assert lab.ledger.streams == 0
    lab.go()


def test_a_peer_that_sends_no_settings_is_given_up(lab: Lab) -> None:
    client, peer = lab.client_to_h2()
    peer.reads = False
    peer.conn.clear_outbound_data_buffer()
    caller = lab.call(client, answer_seconds=100)
    lab.go()
    lab.clock.move(10)
    lab.go()
    assert caller.words == ["lost"]
    assert isinstance(caller.log[0][1], HandshakeFailed)
    assert not client.alive


def test_pings_keep_a_session_and_silence_ends_it(lab: Lab) -> None:
    client, peer = lab.client_to_h2()
    caller = lab.call(client, answer_seconds=1000)
    lab.go()
    for _ in range(5):
        lab.clock.move(10)
        lab.go()
    assert len(peer.of(h2.events.PingReceived)) == 5
    assert client.alive
    lab.clock.move(10)
    peer.reads = False
    lab.go()
    lab.clock.move(20)
    lab.go()
    assert not client.alive
    assert caller.words == ["lost"]
    assert caller.log[0][1].retryable


def test_a_drain_is_told_in_two_steps(lab: Lab) -> None:
    server, peer, _callee = lab.asked()
    # h2 takes a GOAWAY for the end of the connection, so what follows is read without it.
    peer.parses, peer.raw = False, b""
    server.drain()
    lab.go()
    first, ping = pull_frames(peer.raw)
    assert (first.kind, first.payload) == (Frame.GOAWAY, b"\x7f\xff\xff\xff" + bytes(4))
    peer.raw = b""
    peer.write(push_ping(ping.payload, ack=True))
    lab.go()
    (last,) = pull_frames(peer.raw)
    assert (last.kind, last.payload) == (Frame.GOAWAY, b"\0\0\0\x01" + bytes(4))
    assert server.alive


@pytest.mark.parametrize(
    "frame",
    [push_ping(bytes(8)), push_frame(Frame.DATA, 0, 1), push_frame(Frame.PRIORITY, 0, 1, bytes(5))],
    ids=["PING", "empty DATA", "PRIORITY"],
)
def test_h2_as_client_that_floods_is_told_to_calm_down_and_counted(lab: Lab, frame: bytes) -> None:
    server, peer, _ = lab.asked()
    peer.write(frame * 2000)
    lab.go()
    assert not server.alive
    assert peer.of(h2.events.ConnectionTerminated)[0].error_code == ErrorCodes.ENHANCE_YOUR_CALM
    assert lab.ledger.calmed == 1
    assert 0 < lab.ledger.glitches <= 401


def test_a_neighbours_session_does_not_feel_a_flood(lab: Lab) -> None:
    _server, peer, _ = lab.asked()
    client, _ = lab.sessions()
    caller, _, app = lab.joined(client)
    peer.write(push_ping(bytes(8)) * 2000)
    caller.sock.send(b"hello")
    assert lab.receive(app, 5) == b"hello"


def resets(first: int, count: int) -> bytes:
    """Tunnels that are asked for and reset at once."""
    ids = range(first, first + 2 * count, 2)
    block = push_fields(CONNECT)
    return b"".join(
        push_headers(stream_id, block, False, 16_384) + push_reset(stream_id, Code.CANCEL)
        for stream_id in ids
    )


def test_rapid_resets_never_end_a_session_and_start_few_tunnels(lab: Lab) -> None:
    server, peer, callee = lab.asked()
    app = callee.accept()
    sent = 0

    def second() -> None:
        """A second of the clock, in which all is read that is read then."""
        for _ in range(50):
            for _ in range(20):
                lab.engine.round(0)
            peer.pump()
            lab.clock.move(0.02)

    for _ in range(10):
        peer.write(resets(3 + 2 * sent, 1000))
        sent += 1000
        second()
    assert len(lab.callees) <= CHURN.capacity + 10 * CHURN.per_second + 100
    assert lab.ledger.slowed > 0
    app.send(b"still here")
    peer.conn.send_data(1, b"and you")
    for _ in range(10):
        second()
    assert peer.data[1] == b"still here"
    assert read(app) == b"and you"
    assert server.alive
    assert (lab.ledger.calmed, lab.ledger.streams) == (0, 1)


def test_who_resets_faster_than_tunnels_begin_is_read_as_fast_as_it_pays(lab: Lab) -> None:
    server, peer, _ = lab.asked()
    lab.go()
    server.standing.churn.take(CHURN.capacity + DEBT_POINTS + 100, lab.engine.now)
    peer.write(resets(3, 1000))
    for _ in range(100):
        lab.engine.round(0)
    assert server.h2._peer_id < 100
    lab.clock.move(100 / CHURN.per_second)
    for _ in range(20):
        lab.engine.round(0)
        lab.clock.move(0.005)
    assert 100 < server.h2._peer_id < 1000
    lab.peers.clear()
    close_with_reset(peer.link.sock)
    lab.go()
    assert not server.alive  # although it is not read


def test_tunnels_of_a_peer_whose_others_came_to_nothing_begin_one_by_one(lab: Lab) -> None:
    server, peer = lab.server_to_h2()
    lab.go()
    server.standing.churn.take(CHURN.capacity, lab.engine.now)
    for stream_id in (1, 3, 5):
        peer.conn.send_headers(stream_id, CONNECT)
    lab.go()
    assert lab.callees == []
    peer.conn.reset_stream(3)
    lab.go()
    lab.clock.move(1.5 / CHURN.per_second)
    lab.go()
    assert [callee.tunnel.stream_id for callee in lab.callees] == [1]
    lab.clock.move(0.006)
    lab.go()
    assert [callee.tunnel.stream_id for callee in lab.callees] == [1, 5]
    lab.callees[1].accept()
    lab.go()
    assert len(peer.of(h2.events.ResponseReceived)) == 1
    server.abort(Unreachable("gone"))
    lab.go()


def test_a_session_that_ends_takes_those_that_wait_with_it(lab: Lab) -> None:
    server, peer = lab.server_to_h2()
    lab.go()
    server.standing.churn.take(CHURN.capacity, lab.engine.now)
    peer.conn.send_headers(1, CONNECT)
    lab.go()
    lab.peers.clear()
    peer.close()
    lab.clock.move(10)
    lab.go()
    assert lab.callees == []
    assert not server.alive
    assert lab.ledger.streams == 0


def test_two_sessions_of_one_peer_share_what_it_may_do(lab: Lab) -> None:
    standing = Standing(lab.engine.now)
    for number in (1, 2):
        near, far = lab._links()
        peer = H2Peer(near, client=True)
        lab.peers.append(peer)
        server = Session(lab.engine, far, lab.ledger, lambda *_: None, lambda _: None, standing)
        lab.go()
        peer.write(push_ping(bytes(8)) * 500)
        lab.go()
        assert not server.alive
        assert lab.ledger.calmed == number
    assert standing.glitches.level(lab.engine.now) < 10


def test_what_does_not_fit_into_one_round_is_carried_in_the_next_ones(lab: Lab) -> None:
    client, _server = lab.sessions()
    caller, _, app = lab.joined(client)
    frames = b"".join(push_frame(Frame.DATA, 0, 1, bytes((number % 251,))) for number in range(5000))
    client.push(frames)
    text = bytes(number % 251 for number in range(5000))
    assert lab.receive(app, len(text)) == text
    caller.sock.send(b"and on")
    assert lab.receive(app, 6) == b"and on"


def test_a_neighbour_has_its_turn_between_the_rounds_of_a_busy_peer(lab: Lab) -> None:
    _server, peer, callee = lab.asked()
    callee.accept()
    client, _ = lab.sessions()
    caller, _, app = lab.joined(client)
    peer.write(push_frame(Frame.DATA, 0, 1, b"x") * 6000)
    caller.sock.send(b"hello")
    seen = b""
    rounds = 0
    while not seen:
        lab.engine.round(0)
        rounds += 1
        seen = read(app) or b""
    assert seen == b"hello"
    assert callee.counts.up < 6000


def test_a_bug_in_a_callback_ends_its_session_only(lab: Lab, contexts) -> None:
    client, server = lab.sessions()
    lab.go()
    caller = lab.call(client)
    found: list[BaseException] = []
    lab.engine._on_bug = found.append

    def fail(tunnel: object) -> None:
        raise LookupError("wrong")

    server._on_request = fail
    lab.go()
    assert [str(bug) for bug in found] == ["wrong"]
    assert caller.words == ["lost"]
    assert not server.alive
    again, _ = lab.sessions()
    lab.joined(again)


def test_counts_begin_where_the_caller_says(lab: Lab) -> None:
    client, _ = lab.sessions()
    caller = lab.call(client)
    assert isinstance(caller.counts, Counts)
    assert (caller.counts.up, caller.counts.down) == (0, 0)


@pytest.mark.parametrize("end", ["retired", "aborted", "cut", "calmed", "unsettled"])
def test_a_session_that_is_over_is_freed_at_once_and_not_by_the_garbage_collector(lab: Lab, end: str) -> None:
    """With each go 50 KiB of TLS; the collector looks for what is old rarely."""
    gc.disable()
    try:
        client, server = lab.sessions()
        if end != "unsettled":
            lab.go()
        lab.call(client)
        caller = lab.call(client)
        if end == "retired":
            close_with_reset(caller.sock)
            lab.go(until=lambda: lab.callees)
            for callee in lab.callees:
                callee.tunnel.refuse(OK_BLOCK)
            client.retire()
        elif end == "aborted":
            server.abort(Unreachable("enough"))
        elif end == "cut":
            client.pipe._sock.shutdown(socket.SHUT_RDWR)
        elif end == "calmed":
            client.push(push_ping(bytes(8)) * 500)
        elif end == "unsettled":
            lab.clock.move(11)
        lab.go()
        lab.clock.move(20)
        lab.go()
        assert not client.alive
        assert not server.alive
        seen = [weakref.ref(each) for each in (client, server, client.tls, server.tls)]
        lab.session_ends.clear()
        lab.callees.clear()
        del client, server, caller
        if end == "retired":
            del callee
        assert [each() for each in seen] == [None] * 4
    finally:
        gc.enable()


def test_a_tunnel_may_deliver_its_last_bytes_when_its_session_is_gone(lab: Lab) -> None:
    client, server = lab.sessions()
    caller, _, app = lab.joined(client)
    lab.fill(app)
    held = lab.ledger.buffered_bytes
    assert held > 0
    server.abort(Unreachable("enough"))
    lab.go()
    assert not client.alive
    assert len(lab.receive(caller.sock, held)) >= held
    while lab.ledger.buffered_bytes:
        lab.receive(caller.sock, 1)
    assert caller.words == ["established", "ended"]
