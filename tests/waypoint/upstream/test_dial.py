"""Servers that are not in the mesh: a TCP connection as a transport."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from ipaddress import ip_address

import pytest

from tests.flow.conftest import bugs, clock, engine, pair
from tests.flow.driving import drive
from ztunnel.errors import Unreachable
from ztunnel.flow.engine import Engine
from ztunnel.flow.held import HeldBytes
from ztunnel.kernel.netns import NetworkNamespace, own
from ztunnel.model.address import Endpoint
from ztunnel.waypoint.upstream.dial import Dialling

__all__ = ["bugs", "clock", "engine", "pair"]
HERE = ip_address("127.0.0.1")
Pair = Callable[[], tuple[socket.socket, socket.socket]]


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        made.listen()
        made.setblocking(False)
        yield made


class Outcome:
    """What becomes of a call."""

    def __init__(self, engine: Engine) -> None:
        self.log: list = []
        share = HeldBytes().share(1, HERE)
        self.dialling = Dialling(engine, share, self.log.append, self.log.append)

    def start(self, namespace: NetworkNamespace, port: int) -> None:
        self.dialling.start(namespace, Endpoint(HERE, port), 5.0)


@pytest.fixture
def namespace() -> Iterator[NetworkNamespace]:
    with own() as opened:
        yield opened


def test_a_call_stands(engine: Engine, listener: socket.socket, namespace: NetworkNamespace) -> None:
    outcome = Outcome(engine)
    outcome.start(namespace, listener.getsockname()[1])
    assert outcome.log == []
    drive(engine, until=lambda: outcome.log)
    (stream,) = outcome.log
    stream.write(b"hello")
    there, _ = listener.accept()
    with there:
        assert there.recv(5) == b"hello"
        stream.abort(Unreachable(""))


def test_a_refused_call_fails(engine: Engine, listener: socket.socket, namespace: NetworkNamespace) -> None:
    port = listener.getsockname()[1]
    listener.close()
    outcome = Outcome(engine)
    outcome.start(namespace, port)
    drive(engine, until=lambda: outcome.log)
    (error,) = outcome.log
    assert isinstance(error, Unreachable)
    assert str(error) == "connection failed: Connection refused"


class Without:
    """A namespace in which no socket can be had."""

    def tcp_socket(self, family: int) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")


def test_without_a_socket_it_fails_later_and_not_for_whoever_is_gone(engine: Engine) -> None:
    first, second = Outcome(engine), Outcome(engine)
    for each in (first, second):
        each.start(Without(), 1)  # type: ignore[arg-type]
    assert first.log == []
    second.dialling.cancel()
    drive(engine)
    assert [str(error) for error in first.log] == ["connection failed: Too many open files"]
    assert second.log == []


def test_a_cancelled_call_is_closed(
    engine: Engine, listener: socket.socket, namespace: NetworkNamespace
) -> None:
    outcome = Outcome(engine)
    outcome.start(namespace, listener.getsockname()[1])
    outcome.dialling.cancel()
    drive(engine)
    assert outcome.log == []
    there, _ = listener.accept()
    with there:
        assert there.recv(1) == b""
