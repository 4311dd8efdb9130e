"""Connecting within the engine."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

import pytest

from tests.flow.driving import Clock, drive
from ztunnel.flow.connect import connect
from ztunnel.flow.engine import Engine

Outcomes = list[OSError | None]


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    with socket.socket() as made:
        made.setblocking(False)
        yield made


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        made.listen()
        yield made


@pytest.fixture
def full() -> Iterator[socket.socket]:
    """A listener whose backlog is full: the kernel does not answer further calls."""
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        made.listen(0)
        callers = []
        for _ in range(2):
            caller = socket.socket()
            caller.setblocking(False)
            caller.connect_ex(made.getsockname())
            callers.append(caller)
        yield made
        for caller in callers:
            caller.close()


def test_a_connection_within_the_machine_stands_in_the_same_round(
    engine: Engine, sock: socket.socket, listener: socket.socket
) -> None:
    outcomes: Outcomes = []
    connect(engine, sock, listener.getsockname(), 5, outcomes.append)
    assert outcomes == []
    engine.round(0)
    assert outcomes == [None]
    assert sock.getpeername() == listener.getsockname()


def test_a_refusal_is_told(engine: Engine, sock: socket.socket, listener: socket.socket) -> None:
    outcomes: Outcomes = []
    address = listener.getsockname()
    listener.close()
    connect(engine, sock, address, 5, outcomes.append)
    drive(engine, until=lambda: outcomes)
    assert outcomes[0] is not None
    assert outcomes[0].errno == errno.ECONNREFUSED


def test_silence_ends_at_the_deadline(
    engine: Engine, clock: Clock, sock: socket.socket, full: socket.socket
) -> None:
    outcomes: Outcomes = []
    connect(engine, sock, full.getsockname(), 5, outcomes.append)
    drive(engine)
    assert outcomes == []
    clock.move(5)
    drive(engine, until=lambda: outcomes)
    assert isinstance(outcomes[0], TimeoutError)
    assert sock.fileno() >= 0


def test_an_answer_after_a_wait_is_told(engine: Engine, sock: socket.socket, full: socket.socket) -> None:
    outcomes: Outcomes = []
    connect(engine, sock, full.getsockname(), 5, outcomes.append)
    drive(engine)
    # A reset is an answer as well, and does not wait for the SYN to be sent again.
    sock.shutdown(socket.SHUT_RDWR)
    drive(engine, until=lambda: outcomes)
    assert len(outcomes) == 1


def test_a_withdrawn_question_gets_no_answer(
    engine: Engine, clock: Clock, sock: socket.socket, listener: socket.socket, full: socket.socket
) -> None:
    outcomes: Outcomes = []
    connect(engine, sock, listener.getsockname(), 5, outcomes.append).cancel()
    with socket.socket() as other:
        other.setblocking(False)
        connect(engine, other, full.getsockname(), 5, outcomes.append).cancel()
        clock.move(10)
        drive(engine)
    assert outcomes == []


def test_an_address_that_cannot_be_reached_is_told(engine: Engine, sock: socket.socket) -> None:
    outcomes: Outcomes = []
    connect(engine, sock, ("255.255.255.255", 1), 5, outcomes.append)
    drive(engine, until=lambda: outcomes)
    assert isinstance(outcomes[0], OSError)
