"""Tunnels that we ask for: between two of ours, and with `h2` as the server."""

from __future__ import annotations

import errno
import os
import socket

import h2.events
import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from tests.flow.driving import read
from tests.hbone.peers import CONNECT_BLOCK, OK, OK_BLOCK, Caller, Lab
from ztunnel.errors import HandshakeFailed, Unreachable
from ztunnel.flow.splice import close_with_reset
from ztunnel.hbone.ask import OutgoingTunnel
from ztunnel.hbone.carry import Session
from ztunnel.hbone.request import render_response
from ztunnel.http2.frame import Frame, push_frame
from ztunnel.http2.limits import Limits


def test_a_lost_call_can_be_made_again_on_another_session(lab: Lab) -> None:
    client, server = lab.sessions()
    lab.go()
    waiting = lab.call(client)
    waiting.sock.send(b"hello")
    server.abort(Unreachable("gone"))
    lab.go(until=lambda: waiting.log)
    again, _ = lab.sessions()
    assert waiting.handed_back is not None
    again.open(CONNECT_BLOCK, waiting.handed_back, waiting.counts, waiting, 5)
    before = len(lab.callees)
    lab.go(until=lambda: len(lab.callees) > before)
    app = lab.callees[-1].accept()
    assert lab.receive(app, 5) == b"hello"
    assert waiting.words == ["lost", "established"]


def test_a_call_that_nobody_answers_is_lost_at_the_deadline(lab: Lab) -> None:
    client, server = lab.sessions()
    caller = lab.call(client, answer_seconds=3)
    lab.go(until=lambda: lab.callees)
    lab.clock.move(3)
    lab.go()
    assert caller.words == ["lost"]
    assert isinstance(caller.log[0][1], HandshakeFailed)
    assert lab.callees[0].cancelled
    assert server.tunnels == set()


def test_a_refused_call_is_handed_back_with_its_status(lab: Lab) -> None:
    client, server = lab.sessions()
    caller = lab.call(client)
    caller.sock.send(b"hello")
    lab.go(until=lambda: lab.callees)
    lab.callees[0].tunnel.refuse(render_response(401))
    lab.callees[0].tunnel.refuse(render_response(401))
    lab.go()
    assert caller.log == [("refused", 401)]
    assert caller.handed_back is not None
    assert caller.handed_back.recv(10) == b"hello"
    assert client.tunnels == server.tunnels == set()
    assert lab.ledger.glitches == 0


def test_an_application_that_gives_up_before_the_answer_withdraws_its_call(lab: Lab) -> None:
    client, _ = lab.sessions()
    caller = lab.call(client)
    lab.go(until=lambda: lab.callees)
    close_with_reset(caller.sock)
    lab.go()
    assert caller.log == [("ended", None)]
    callee = lab.callees[0]
    assert callee.cancelled
    app = callee.accept()
    assert callee.ends == [None]
    assert read(app) == b""


@pytest.mark.parametrize("which", ["caller", "callee"])
def test_an_application_that_cannot_be_watched_is_cut_off_and_the_other_end_told(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    """The engine's epoll set is full (epoll_ctl(2), ENOSPC)."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    client, server = lab.sessions()
    lab.go()
    if which == "caller":
        monkeypatch.setattr(lab.engine, "watch", full)
    caller = lab.call(client)
    own = caller.sock
    if which == "callee":
        lab.go(until=lambda: lab.callees)
        monkeypatch.setattr(lab.engine, "watch", full)
        own = lab.callees[0].accept()
    lab.go()
    with pytest.raises(ConnectionResetError):
        own.recv(1)
    words = [str(error) for _, error in caller.log if isinstance(error, Unreachable)]
    words += [str(error) for callee in lab.callees for error in callee.ends if error]
    assert any("the connection cannot be carried" in word for word in words)
    assert client.tunnels == server.tunnels == set()


def test_bytes_that_came_before_the_answer_and_do_not_fit_follow_when_there_is_room(lab: Lab) -> None:
    _server, peer, callee = lab.asked()
    app, own = lab.pair()
    app.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 12)
    own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 12)
    for _ in range(4):
        peer.conn.send_data(1, bytes(16_384))
    lab.go(until=lambda: lab.ledger.buffered_bytes == 1 << 16)
    callee.tunnel.accept(OK_BLOCK, app, callee.counts, callee.ends.append)
    assert len(lab.receive(own, 1 << 16)) == 1 << 16
    assert lab.ledger.buffered_bytes == 0


def test_h2_as_server_understands_the_request_and_its_settings(lab: Lab) -> None:
    _client, peer, caller = lab.answered()
    request = peer.of(h2.events.RequestReceived)[0]
    assert list(map(tuple, request.headers)) == [(b":method", b"CONNECT"), (b":authority", b"10.0.0.1:80")]
    assert peer.conn.remote_settings.initial_window_size == Limits().first_window_bytes(100)
    assert peer.conn.remote_settings.max_frame_size == 1 << 20
    assert peer.conn.outbound_flow_control_window == 16 << 20
    assert caller.log == [("established", OK)]


def test_h2_as_server_carries_bytes_and_half_closes(lab: Lab) -> None:
    _client, peer, caller = lab.answered()
    lab.send(caller.sock, bytes(range(256)) * 1024)
    lab.go(until=lambda: len(peer.data.get(1, b"")) == 256 * 1024)
    assert peer.data[1] == bytes(range(256)) * 1024
    assert max(len(event.data) for event in peer.of(h2.events.DataReceived)) <= 16_384
    caller.sock.shutdown(socket.SHUT_WR)
    lab.go(until=lambda: peer.of(h2.events.StreamEnded))
    peer.conn.send_data(1, b"bye", end_stream=True)
    assert lab.receive(caller.sock, 4) == b"bye"
    lab.go()
    assert caller.log[1:] == [("ended", None)]


def test_h2_as_server_is_not_sent_more_than_its_windows(lab: Lab) -> None:
    _client, peer, caller = lab.answered()
    peer.acknowledges = False
    sent = lab.fill(caller.sock)
    assert len(peer.data[1]) == 65_535
    peer.conn.increment_flow_control_window(1)
    peer.conn.increment_flow_control_window(1, 1)
    lab.go()
    assert len(peer.data[1]) == 65_536
    peer.acknowledges = True
    peer.conn.increment_flow_control_window(1 << 30)
    peer.conn.increment_flow_control_window(1 << 30, 1)
    lab.go()
    assert len(peer.data[1]) == sent == caller.counts.up


def test_h2_as_server_with_a_window_of_one_byte_gets_every_byte(lab: Lab) -> None:
    client, peer = lab.client_to_h2()
    peer.conn.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1})
    lab.go()
    caller = lab.call(client)
    lab.go(until=lambda: peer.of(h2.events.RequestReceived))
    peer.conn.send_headers(1, OK)
    caller.sock.send(bytes(range(200)))
    lab.go(until=lambda: len(peer.data.get(1, b"")) == 200)
    assert peer.data[1] == bytes(range(200))
    assert {len(event.data) for event in peer.of(h2.events.DataReceived)} == {1}


@pytest.mark.parametrize(
    ("code", "ends_with_error"),
    [(ErrorCodes.NO_ERROR, False), (ErrorCodes.CANCEL, False), (ErrorCodes.INTERNAL_ERROR, True)],
)
def test_h2_as_server_resets_a_tunnel(lab: Lab, code: ErrorCodes, ends_with_error: bool) -> None:
    client, peer, caller = lab.answered()
    peer.conn.send_data(1, b"first")
    lab.go()
    peer.conn.reset_stream(1, code)
    lab.go()
    assert caller.words == ["established", "ended"]
    assert (caller.log[1][1] is not None) == ends_with_error
    assert read(caller.sock) == b"first"
    if code == ErrorCodes.NO_ERROR:
        assert read(caller.sock) == b""
    else:
        with pytest.raises(ConnectionResetError):
            read(caller.sock)
    assert client.alive


def test_h2_as_server_goes_away_with_tunnels_in_flight(lab: Lab) -> None:
    client, peer, caller = lab.answered()
    waiting = lab.call(client)
    lab.go()
    peer.conn.close_connection(last_stream_id=1)
    peer.write(peer.conn.data_to_send())
    lab.go()
    assert waiting.words == ["lost"]
    assert waiting.log[0][1].retryable
    assert not client.can_take()
    # h2 counts itself closed after its GOAWAY; the frames of the tunnel that lives on are written by hand.
    peer.write(push_frame(Frame.DATA, 1, 1, b"still here"))
    assert lab.receive(caller.sock, 10) == b"still here"
    assert client.alive


def test_h2_as_server_refuses_streams(lab: Lab) -> None:
    client, peer = lab.client_to_h2()
    peer.conn.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: 1})
    lab.go()
    caller = lab.call(client)
    assert not client.can_take()
    lab.go(until=lambda: peer.of(h2.events.RequestReceived))
    peer.conn.reset_stream(1, ErrorCodes.REFUSED_STREAM)
    lab.go()
    assert caller.words == ["lost"]
    assert caller.log[0][1].retryable
    assert client.can_take()


def test_h2_as_server_answers_with_a_status_and_a_body(lab: Lab) -> None:
    client, peer = lab.client_to_h2()
    caller = lab.call(client)
    lab.go(until=lambda: peer.of(h2.events.RequestReceived))
    peer.conn.send_headers(1, [(b":status", b"403")])
    peer.conn.send_data(1, b"RBAC: access denied", end_stream=True)
    lab.go()
    assert caller.log == [("refused", 403)]
    assert client.alive
    assert client.tunnels == set()


def test_h2_as_server_answers_without_a_status(lab: Lab) -> None:
    client, peer = lab.client_to_h2()
    caller = lab.call(client)
    lab.go(until=lambda: peer.of(h2.events.RequestReceived))
    peer.write(push_frame(Frame.HEADERS, 4, 1, b"\x08\x01x"))
    lab.go()
    assert caller.words == ["lost"]


# --- the application's socket follows ----------------------------------------------------


def deferred(lab: Lab, session: Session) -> tuple[Caller, OutgoingTunnel, socket.socket]:
    """A call whose application waits until it is answered; the tunnel, and the socket to attach."""
    app, own = lab.pair()
    caller = Caller(own)
    return caller, session.open(CONNECT_BLOCK, None, caller.counts, caller, 5), app


def answered(lab: Lab) -> tuple[Caller, OutgoingTunnel, socket.socket, socket.socket]:
    """Caller, tunnel, the caller's socket to attach, and the called application's own."""
    client, _ = lab.sessions()
    caller, tunnel, app = deferred(lab, client)
    lab.go(until=lambda: lab.callees)
    far = lab.callees[-1].accept()
    lab.go(until=lambda: caller.log)
    assert caller.words == ["established"]
    assert tunnel.waits_for_app
    return caller, tunnel, app, far


def test_an_application_that_comes_after_the_answer_is_joined(lab: Lab) -> None:
    caller, tunnel, app, far = answered(lab)
    tunnel.attach(app)
    assert not tunnel.waits_for_app
    caller.sock.send(b"up")
    assert lab.receive(far, 2) == b"up"
    far.send(b"down")
    assert lab.receive(caller.sock, 4) == b"down"
    assert (caller.counts.up, caller.counts.down) == (2, 4)
    caller.sock.close()
    far.close()
    lab.go(until=lambda: len(caller.log) > 1)
    assert caller.log[1:] == [("ended", None)]


@pytest.mark.parametrize("size", [0, 5, 300_000])
def test_what_a_server_sends_first_and_its_end_wait_for_the_application(lab: Lab, size: int) -> None:
    caller, tunnel, app, far = answered(lab)
    far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    far.sendall(bytes(size))
    far.shutdown(socket.SHUT_WR)
    held_bytes = min(size, 60_000)  # of the rest the stream's window keeps the sender
    lab.go(until=lambda: lab.ledger.buffered_bytes >= held_bytes)
    tunnel.attach(app)
    assert len(lab.receive(caller.sock, size)) == size
    lab.go(until=lambda: read(caller.sock) == b"")
    assert lab.ledger.buffered_bytes == 0
    caller.sock.send(b"still open")
    assert lab.receive(far, 10) == b"still open"


def test_a_tunnel_that_is_reset_before_the_application_came_gives_it_what_it_had(lab: Lab) -> None:
    caller, tunnel, app, far = answered(lab)
    far.send(b"last")
    lab.go()
    close_with_reset(far)
    lab.go()
    assert caller.words == ["established"]
    tunnel.attach(app)
    lab.go(until=lambda: len(caller.log) > 1)
    assert caller.sock.recv(9) == b"last"
    with pytest.raises(ConnectionResetError):
        caller.sock.recv(9)
    assert lab.ledger.buffered_bytes == 0


def test_a_session_that_is_lost_before_the_application_came_ends_the_call(lab: Lab) -> None:
    caller, tunnel, app, _far = answered(lab)
    lab.callees[-1].tunnel._session.abort(Unreachable("gone"))
    lab.go()
    tunnel.attach(app)
    lab.go(until=lambda: len(caller.log) > 1)
    assert caller.words == ["established", "ended"]
    assert not tunnel.waits_for_app
    with pytest.raises(ConnectionResetError):
        caller.sock.recv(9)


def test_a_call_that_is_ended_before_the_application_came_cancels_the_tunnel(lab: Lab) -> None:
    caller, tunnel, app, far = answered(lab)
    tunnel.abort(Unreachable("given up"))
    lab.go()
    assert caller.words == ["established", "ended"]
    with pytest.raises(ConnectionResetError):
        far.recv(1)
    app.close()


@pytest.mark.parametrize("status", [401, 503])
def test_a_refusal_without_an_application_gives_nothing_back(lab: Lab, status: int) -> None:
    client, _ = lab.sessions()
    caller, tunnel, app = deferred(lab, client)
    lab.go(until=lambda: lab.callees)
    lab.callees[0].tunnel.refuse(render_response(status))
    lab.go()
    assert caller.log == [("refused", status)]
    assert caller.handed_back is None
    assert not tunnel.waits_for_app
    app.close()


def test_a_loss_without_an_application_gives_nothing_back(lab: Lab) -> None:
    client, server = lab.sessions()
    caller, _, app = deferred(lab, client)
    lab.go(until=lambda: lab.callees)
    server.abort(Unreachable("gone"))
    lab.go(until=lambda: caller.log)
    assert (caller.words, caller.handed_back) == (["lost"], None)
    app.close()
