"""Tunnels that we are asked for, by `h2` as the client."""

from __future__ import annotations

import socket

import h2.events
import pytest
from h2.errors import ErrorCodes

from tests.flow.driving import read
from tests.hbone.peers import OK, Lab
from ztunnel.hbone.request import render_response

REFUSAL = render_response(503)


def test_bytes_that_come_before_the_answer_wait_for_the_application(lab: Lab) -> None:
    server, peer = lab.server_to_h2()
    lab.go()
    peer.conn.send_headers(1, [(b":method", b"CONNECT"), (b":authority", b"10.0.0.1:80")])
    peer.conn.send_data(1, b"early", end_stream=True)
    lab.go(until=lambda: lab.callees)
    assert lab.ledger.buffered_bytes == 5
    app = lab.callees[0].accept()
    assert lab.receive(app, 6) == b"early"
    assert lab.ledger.buffered_bytes == 0
    assert server.alive


def test_h2_as_client_gets_its_answer_and_its_bytes(lab: Lab) -> None:
    _server, peer, callee = lab.asked()
    assert callee.tunnel.headers == ((b":method", b"CONNECT"), (b":authority", b"10.0.0.1:80"))
    app = callee.accept()
    lab.go(until=lambda: peer.of(h2.events.ResponseReceived))
    assert tuple(map(tuple, peer.of(h2.events.ResponseReceived)[0].headers)) == OK
    peer.conn.send_data(1, b"hello", end_stream=True)
    assert lab.receive(app, 6) == b"hello"
    app.send(b"answer")
    app.close()
    lab.go(until=lambda: peer.of(h2.events.StreamEnded))
    assert peer.data[1] == b"answer"
    assert callee.ends == [None]
    assert peer.conn.remote_settings.max_concurrent_streams == 200


def test_the_end_of_an_application_that_has_closed_leaves_with_its_last_bytes(lab: Lab) -> None:
    """So a peer is woken up once for a short answer."""
    _server, peer, callee = lab.asked()
    app = callee.accept()
    lab.go(until=lambda: peer.of(h2.events.ResponseReceived))
    app.send(b"answer")
    app.shutdown(socket.SHUT_WR)
    lab.engine.round()
    peer.pump()
    assert peer.data[1] == b"answer"
    assert peer.of(h2.events.StreamEnded)


def test_bulk_of_an_application_that_has_closed_arrives_whole(lab: Lab) -> None:
    _server, peer, callee = lab.asked()
    app = callee.accept()
    lab.go(until=lambda: peer.of(h2.events.ResponseReceived))
    sent = app.send(bytes(150_000))
    app.shutdown(socket.SHUT_WR)
    lab.go(until=lambda: peer.of(h2.events.StreamEnded))
    assert len(peer.data[1]) == sent


def test_h2_as_client_may_send_only_as_much_as_the_application_reads(lab: Lab) -> None:
    _server, peer, callee = lab.asked()
    app = callee.accept()
    lab.go()
    sent = 0
    while (room := min(peer.conn.local_flow_control_window(1), 16_384)) > 0 and sent < 40 << 20:
        peer.conn.send_data(1, bytes(room))
        sent += room
        lab.go()
    assert sent < 20 << 20
    assert lab.ledger.buffered_bytes <= 4 << 20
    assert len(lab.receive(app, sent)) == sent
    lab.go()
    assert peer.conn.local_flow_control_window(1) >= 2 << 20


def test_h2_as_client_is_refused(lab: Lab) -> None:
    server, peer, callee = lab.asked()
    callee.tunnel.refuse(REFUSAL)
    lab.go()
    assert peer.of(h2.events.ResponseReceived)[0].headers[0] == (b":status", b"503")
    assert peer.of(h2.events.StreamEnded)
    assert peer.of(h2.events.StreamReset)[0].error_code == ErrorCodes.NO_ERROR
    assert server.tunnels == set()
    assert server.alive


def test_h2_as_client_resets_before_the_answer_and_after_it(lab: Lab) -> None:
    server, peer, callee = lab.asked()
    peer.conn.reset_stream(1, ErrorCodes.CANCEL)
    lab.go()
    assert callee.cancelled
    peer.conn.send_headers(3, [(b":method", b"CONNECT"), (b":authority", b"10.0.0.1:80")])
    lab.go(until=lambda: len(lab.callees) == 2)
    app = lab.callees[1].accept()
    lab.go()
    peer.conn.reset_stream(3, ErrorCodes.CANCEL)
    lab.go()
    assert lab.callees[1].ends == [None]
    with pytest.raises(ConnectionResetError):
        read(app)
    assert server.tunnels == set()


@pytest.mark.parametrize("ended", [False, True])
def test_a_refusal_costs_the_peer_a_point(lab: Lab, ended: bool) -> None:
    """Also where the peer had ended the stream by then: that is no tunnel that has carried anything."""
    server, peer, callee = lab.asked()
    if ended:
        peer.conn.end_stream(1)
        lab.go()
    before = server.standing.churn.level(lab.engine.now)
    callee.tunnel.refuse(render_response(401))
    assert server.standing.churn.level(lab.engine.now) == before - 1
