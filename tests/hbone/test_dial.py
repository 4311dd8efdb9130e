"""Dialling an HBONE port."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import trio
from trio.to_thread import run_sync

from tests.hbone.peers import Contexts
from ztunnel.errors import TlsFailed, Unreachable
from ztunnel.hbone.dial import dial
from ztunnel.hbone.link import TlsLink, link


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.setblocking(False)
        yield made


def fresh() -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    return sock


async def test_a_session_can_begin_when_both_have_shaken_hands(
    listener: socket.socket, contexts: Contexts
) -> None:
    links: list[TlsLink] = []

    async def answer() -> None:
        await trio.lowlevel.wait_readable(listener)
        accepted, _ = listener.accept()
        accepted.setblocking(False)
        links.append(await link(accepted, contexts.server, server_side=True))

    with trio.fail_after(2):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            dialled = await dial(fresh(), listener.getsockname(), contexts.client, run_sync)
    assert dialled.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    for made in (dialled, *links):
        made.sock.close()


async def test_a_refused_connection_is_unreachable_and_its_socket_closed(
    listener: socket.socket, contexts: Contexts
) -> None:
    address = listener.getsockname()
    listener.close()
    sock = fresh()
    with pytest.raises(Unreachable, match="refused"):
        await dial(sock, address, contexts.client, run_sync)
    assert sock.fileno() < 0


async def test_a_peer_without_tls_is_a_failure_and_its_socket_closed(
    listener: socket.socket, contexts: Contexts
) -> None:
    sock = fresh()

    async def answer() -> None:
        await trio.lowlevel.wait_readable(listener)
        accepted, _ = listener.accept()
        with accepted:
            accepted.send(b"220 smtp\r\n")
            accepted.shutdown(socket.SHUT_WR)
            await trio.lowlevel.wait_readable(accepted)
            accepted.recv(10_000)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        with pytest.raises(TlsFailed):
            await dial(sock, listener.getsockname(), contexts.client, run_sync)
    assert sock.fileno() < 0


async def test_a_cancelled_dial_closes_its_socket(
    listener: socket.socket, contexts: Contexts, autojump_clock: trio.testing.MockClock
) -> None:
    sock = fresh()
    with trio.move_on_after(5) as scope:
        await dial(sock, listener.getsockname(), contexts.client, run_sync)
    assert scope.cancelled_caught
    assert sock.fileno() < 0
