"""Tunnels that are asked for in this process: one answer each."""

from __future__ import annotations

import h2.errors
import h2.events
import pytest

from tests.hbone.inner import Answers, Listener, Pair
from tests.hbone.peers import CONNECT_BLOCK, OK, Lab
from ztunnel.errors import Busy, ConnectionFailed, HandshakeFailed, Unreachable


def asked(lab: Lab):
    client, peer = lab.client_to_h2()
    answers = Answers()
    tunnel = client.originate(CONNECT_BLOCK, answers, 5.0)
    lab.go(until=lambda: peer.of(h2.events.RequestReceived))
    return client, peer, tunnel, answers


def test_h2_as_server_answers_and_its_bytes_arrive(lab: Lab) -> None:
    _, peer, tunnel, answers = asked(lab)
    peer.conn.send_headers(1, OK)
    peer.conn.send_data(1, b"hello", end_stream=True)
    lab.go(until=lambda: answers.log)
    here = Listener()
    here.tunnel = tunnel
    tunnel.attach(here)
    lab.go()
    assert bytes(here.got) == b"hello"
    assert here.words == ["ended"]
    tunnel.write(b"back")
    tunnel.finish()
    lab.go(until=lambda: peer.of(h2.events.StreamEnded))
    assert peer.data[1] == b"back"


@pytest.mark.parametrize("status", [b"401", b"503"])
def test_another_status_is_a_refusal(lab: Lab, status: bytes) -> None:
    client, peer, _, answers = asked(lab)
    peer.conn.send_headers(1, [(b":status", status)])
    lab.go(until=lambda: answers.log)
    assert answers.log == [int(status)]
    assert client.tunnels == set()


@pytest.mark.parametrize(
    ("code", "kind"),
    [(h2.errors.ErrorCodes.REFUSED_STREAM, Busy), (h2.errors.ErrorCodes.INTERNAL_ERROR, HandshakeFailed)],
)
def test_a_reset_in_the_place_of_an_answer(lab: Lab, code, kind) -> None:
    _, peer, _, answers = asked(lab)
    peer.conn.reset_stream(1, code)
    lab.go(until=lambda: answers.log)
    assert type(answers.log[0]) is kind


def test_no_answer_in_time(lab: Lab) -> None:
    client, peer, _, answers = asked(lab)
    lab.clock.move(6.0)
    lab.go(until=lambda: answers.log)
    assert isinstance(answers.log[0], HandshakeFailed)
    lab.go(until=lambda: peer.of(h2.events.StreamReset))
    assert client.tunnels == set()


def test_a_session_that_goes_before_the_answer(lab: Lab) -> None:
    client, _, _, answers = asked(lab)
    client.abort(Unreachable("cut"))
    lab.go()
    assert [str(each) for each in answers.log] == ["cut"]


def test_one_that_is_given_up_is_reset_and_says_nothing(lab: Lab) -> None:
    _, peer, tunnel, answers = asked(lab)
    tunnel.abort(ConnectionFailed("not wanted"))
    lab.go(until=lambda: peer.of(h2.events.StreamReset))
    assert answers.log == []


def test_a_session_that_takes_no_more_says_so(lab: Lab) -> None:
    pair = Pair(lab)
    lab.go()
    pair.client.retire()
    with pytest.raises(Unreachable):
        pair.client.originate(CONNECT_BLOCK, Answers(), 5.0)


@pytest.mark.parametrize("drained", [True, False])
def test_a_tunnel_says_that_its_session_takes_no_more(lab: Lab, drained: bool) -> None:
    client, server = lab.sessions()
    answers = Answers()
    tunnel = client.originate(CONNECT_BLOCK, answers, 5.0)
    lab.go(until=lambda: lab.callees)
    assert not tunnel.leaving
    server.drain() if drained else client.retire()
    lab.go(until=lambda: tunnel.leaving)
    assert client.alive
