"""Accepting within the engine."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from tests.flow.driving import Clock, drive
from ztunnel.flow.accept import Acceptor
from ztunnel.flow.engine import Engine
from ztunnel.model.address import PeerAddress

Accepted = list[tuple[socket.socket, PeerAddress]]


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.setblocking(False)
        yield made


@pytest.fixture
def accepted() -> Iterator[Accepted]:
    found: Accepted = []
    yield found
    for sock, _ in found:
        sock.close()


def call(listener: socket.socket) -> socket.socket:
    return socket.create_connection(listener.getsockname())


def test_each_connection_is_handed_on_with_its_peer(
    engine: Engine, listener: socket.socket, accepted: Accepted
) -> None:
    acceptor = Acceptor(engine, listener, lambda sock, peer: accepted.append((sock, peer)))
    with call(listener) as one, call(listener) as two:
        drive(engine, until=lambda: len(accepted) == 2)
        assert [peer for _, peer in accepted] == [
            PeerAddress(ip_address("127.0.0.1"), caller.getsockname()[1]) for caller in (one, two)
        ]
        assert not accepted[0][0].getblocking()
    acceptor.close()


def test_a_closed_acceptor_accepts_no_more(
    engine: Engine, listener: socket.socket, accepted: Accepted
) -> None:
    acceptor = Acceptor(engine, listener, lambda sock, peer: accepted.append((sock, peer)))
    address = listener.getsockname()
    acceptor.close()
    acceptor.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
    drive(engine)
    assert accepted == []


def test_running_out_of_descriptors_is_survived_without_spinning(
    engine: Engine, clock: Clock, listener: socket.socket, accepted: Accepted
) -> None:
    acceptor = Acceptor(engine, listener, lambda sock, peer: accepted.append((sock, peer)))
    with call(listener):
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
        try:
            drive(engine)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        drive(engine)
        assert accepted == []
        clock.move(1)
        drive(engine, until=lambda: accepted)
    acceptor.close()
