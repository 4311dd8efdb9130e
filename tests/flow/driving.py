"""Drives an engine by hand, round by round, so that tests decide what happens when."""

from __future__ import annotations

import socket
from collections.abc import Callable

from ztunnel.flow.engine import Engine

ROUNDS = 20_000


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds

    def move(self, seconds: float) -> None:
        self.seconds += seconds


class Bugs(list[BaseException]):
    """What an engine reported; empty at the end of a good test."""

    def __call__(self, bug: BaseException) -> None:
        self.append(bug)


def drive(*engines: Engine, until: Callable[[], object] | None = None) -> None:
    """Rounds until `until` holds; without it, until nothing is left to do."""
    for _ in range(ROUNDS):
        if until is not None and until():
            return
        busy = [engine.round(0) for engine in engines]
        if until is None and not any(busy):
            return
        if until is not None and not any(busy):
            # The kernel may need a moment, between two sockets of a test.
            engines[0].round(0.001)
    raise AssertionError("it did not come to that")


def stream_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection on the loopback, nonblocking: unlike a socketpair it can be reset."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    for end in (near, far):
        end.setblocking(False)
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return near, far


def read(sock: socket.socket) -> bytes | None:
    """What can be read now: None for nothing, b"" for the end; "reset" shows as ConnectionResetError."""
    try:
        return sock.recv(1 << 20)
    except BlockingIOError:
        return None
