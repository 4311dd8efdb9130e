"""A goodbye reaches a peer that is still sending."""

from __future__ import annotations

import h2.events
import pytest
from h2.errors import ErrorCodes

from tests.flow.driving import read
from tests.hbone.peers import Lab
from ztunnel.errors import HandshakeFailed
from ztunnel.flow.splice import close_with_reset
from ztunnel.hbone.linger import Lingering
from ztunnel.http2.frame import Frame, push_frame


def test_h2_as_client_that_breaks_the_rules_is_told_why_and_gets_the_goaway(lab: Lab) -> None:
    _server, peer, callee = lab.asked()
    app = callee.accept()
    lab.go()
    peer.write(push_frame(Frame.PING, 0, 0, bytes(7)))
    lab.go()
    assert [event.error_code for event in peer.of(h2.events.ConnectionTerminated)] == [
        ErrorCodes.FRAME_SIZE_ERROR
    ]
    assert peer.ended
    assert isinstance(callee.ends[0], HandshakeFailed)
    with pytest.raises(ConnectionResetError):
        read(app)


def test_a_peer_that_goes_on_sending_is_read_for_a_time_only(lab: Lab) -> None:
    near, far = lab.pair()
    Lingering(lab.engine, near, 1.0)
    far.send(b"x" * 1000)
    lab.go()
    assert read(far) == b""
    assert near.fileno() >= 0
    lab.clock.move(1)
    lab.go()
    assert near.fileno() < 0


def test_a_peer_that_closes_ends_it_at_once(lab: Lab) -> None:
    near, far = lab.pair()
    Lingering(lab.engine, near, 1.0)
    far.close()
    lab.go()
    assert near.fileno() < 0


def test_a_peer_that_sends_without_end_is_read_for_an_amount_only(lab: Lab) -> None:
    near, far = lab.pair()
    Lingering(lab.engine, near, 1.0)
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        lab.send(far, bytes(64 << 20))
    assert near.fileno() < 0


def test_a_connection_that_is_gone_already_is_closed(lab: Lab) -> None:
    near, far = lab.pair()
    close_with_reset(far)
    lab.go()
    Lingering(lab.engine, near, 1.0)
    lab.go()
    assert near.fileno() < 0
