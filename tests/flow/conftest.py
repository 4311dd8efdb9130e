"""An engine that is driven by hand, and the sockets of a test, closed at its end."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from tests.flow.driving import Bugs, Clock, stream_pair
from ztunnel.flow.engine import Engine


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def bugs() -> Iterator[Bugs]:
    found = Bugs()
    yield found
    assert not found


@pytest.fixture
def engine(bugs: Bugs, clock: Clock) -> Iterator[Engine]:
    made = Engine(bugs, clock)
    yield made
    made.close()


@pytest.fixture
def pair() -> Iterator[Callable[[], tuple[socket.socket, socket.socket]]]:
    made: list[socket.socket] = []

    def make() -> tuple[socket.socket, socket.socket]:
        ends = stream_pair()
        made.extend(ends)
        return ends

    yield make
    for sock in made:
        sock.close()
