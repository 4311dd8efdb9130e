"""A reset, at once or behind what was sent."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from tests.flow.driving import Clock, drive, read
from ztunnel.flow.engine import Engine
from ztunnel.flow.expire import STALLED_SECONDS
from ztunnel.flow.linger import close_with_reset, reset_when_sent

Pair = Callable[[], tuple[socket.socket, socket.socket]]


def fill(sock: socket.socket) -> int:
    """Send until nothing more goes; how much went."""
    sent = 0
    while True:
        try:
            sent += sock.send(bytes(1 << 16))
        except BlockingIOError:
            return sent


def is_closed(sock: socket.socket) -> bool:
    return sock.fileno() < 0


def test_a_reset_with_nothing_under_way_is_made_at_once(engine: Engine, pair: Pair) -> None:
    near, far = pair()
    near.send(b"taken")
    assert read(far) == b"taken"
    reset_when_sent(engine, near)
    assert is_closed(near)
    with pytest.raises(ConnectionResetError):
        read(far)


def test_a_reset_waits_for_a_reader_that_is_slow(engine: Engine, pair: Pair, clock: Clock) -> None:
    near, far = pair()
    sent = fill(near)
    reset_when_sent(engine, near)
    assert not is_closed(near)
    received = 0
    while received < sent:
        received += len(read(far) or b"")
        clock.move(0.5)
        drive(engine)
    assert is_closed(near)
    with pytest.raises(ConnectionResetError):
        read(far)


def test_a_reader_that_takes_nothing_is_waited_for_for_a_minute(
    engine: Engine, pair: Pair, clock: Clock
) -> None:
    near, _far = pair()
    fill(near)
    reset_when_sent(engine, near)
    waited = 0.0
    while not is_closed(near):
        clock.move(0.5)
        waited += 0.5
        drive(engine)
    assert STALLED_SECONDS - 3 <= waited <= STALLED_SECONDS + 3


def test_a_reader_that_goes_away_is_not_waited_for(engine: Engine, pair: Pair) -> None:
    near, far = pair()
    fill(near)
    reset_when_sent(engine, near)
    close_with_reset(far)
    drive(engine, until=lambda: is_closed(near))


def test_what_is_no_tcp_socket_is_closed(engine: Engine) -> None:
    near, far = socket.socketpair()
    reset_when_sent(engine, near)
    assert is_closed(near)
    far.close()
