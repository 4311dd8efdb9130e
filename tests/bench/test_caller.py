"""The client that opens connections at a steady rate."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from bench.caller import Outcome, open_many, paced, stay


@pytest.fixture
def place() -> Iterator[tuple[str, int]]:
    """An echo server."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)

    def serve() -> None:
        while True:
            try:
                accepted, _ = listener.accept()
            except OSError:
                return
            with accepted:
                while said := accepted.recv(9):
                    accepted.sendall(said)

    thread = threading.Thread(target=serve)
    thread.start()
    yield listener.getsockname()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def test_so_many_connections_are_opened_as_were_asked_for(place: tuple[str, int]) -> None:
    outcome = open_many(320, 0.2, [place])
    assert len(outcome.seconds) == 64
    assert not outcome.failed


def test_what_cannot_be_reached_is_counted_by_its_error() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        outcome = open_many(160, 0.1, [nobody.getsockname()])
    assert outcome.failed == {"Connection refused": 16}
    assert json.loads(outcome.render()) == {"seconds": [], "failed": {"Connection refused": 16}}


def test_one_connection_is_asked_again_and_again(place: tuple[str, int]) -> None:
    assert len(stay(100, 0.1, place).seconds) == 10


def test_who_is_late_catches_up() -> None:
    began = time.monotonic()
    times: list[float] = []
    paced(lambda _: times.append(time.monotonic() - began), 1000, 0.01)
    assert len(times) == 10
    assert times[-1] >= 0.009
    assert Outcome().seconds == []
