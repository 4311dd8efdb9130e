"""TLS handshakes between two of ours, and with peers that do not mean well."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

import pytest
import trio

from tests.flow.driving import stream_pair
from tests.hbone.peers import Contexts
from ztunnel.errors import ConnectionFailed, HandshakeFailed, TlsFailed, Unreachable
from ztunnel.flow.splice import close_with_reset
from ztunnel.hbone.link import TlsLink, link


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = stream_pair()
    yield near, far
    near.close()
    far.close()


async def both(
    ends: tuple[socket.socket, socket.socket], contexts: Contexts
) -> list[TlsLink | ConnectionFailed]:
    """What comes of a handshake at the client's and at the server's end."""
    made: list[TlsLink | ConnectionFailed | None] = [None, None]

    async def one(place: int, context: ssl.SSLContext) -> None:
        try:
            made[place] = await link(ends[place], context, server_side=bool(place))
        except ConnectionFailed as error:
            made[place] = error

    with trio.fail_after(2):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one, 0, contexts.client)
            nursery.start_soon(one, 1, contexts.server)
    return [entry for entry in made if entry is not None]


async def test_both_ends_agree_on_http2(
    ends: tuple[socket.socket, socket.socket], contexts: Contexts
) -> None:
    client, server = await both(ends, contexts)
    assert isinstance(client, TlsLink)
    assert isinstance(server, TlsLink)
    assert client.tls.selected_alpn_protocol() == server.tls.selected_alpn_protocol() == "h2"
    assert client.sock is ends[0]


async def test_a_peer_without_http2_is_refused(
    ends: tuple[socket.socket, socket.socket], contexts: Contexts
) -> None:
    plain = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    plain.check_hostname = False
    plain.verify_mode = ssl.CERT_NONE
    client, server = await both(ends, Contexts(contexts.server, plain))
    assert isinstance(client, HandshakeFailed)
    assert isinstance(server, HandshakeFailed)


async def test_a_peer_that_is_not_trusted_is_refused_and_told(
    ends: tuple[socket.socket, socket.socket], contexts: Contexts
) -> None:
    strict = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    strict.check_hostname = False
    strict.set_alpn_protocols(["h2"])
    client, server = await both(ends, Contexts(contexts.server, strict))
    assert isinstance(client, TlsFailed)
    assert "refused: self-signed certificate" in str(client)
    assert isinstance(server, TlsLink | TlsFailed)


@pytest.mark.parametrize("server_side", [False, True])
async def test_garbage_is_no_handshake(
    ends: tuple[socket.socket, socket.socket], contexts: Contexts, server_side: bool
) -> None:
    ends[1].send(b"GET / HTTP/1.1\r\n\r\n" * 10)
    with pytest.raises(TlsFailed):
        await link(ends[0], contexts.server if server_side else contexts.client, server_side)


async def test_a_peer_that_closes_is_told_apart_from_one_that_resets(contexts: Contexts) -> None:
    for end, error in ((socket.socket.close, TlsFailed), (close_with_reset, Unreachable)):
        near, far = stream_pair()
        end(far)
        with pytest.raises(error):
            await link(near, contexts.server, server_side=True)
        near.close()


async def test_silence_ends_with_the_callers_deadline(
    ends: tuple[socket.socket, socket.socket], contexts: Contexts, autojump_clock: trio.testing.MockClock
) -> None:
    with pytest.raises(trio.TooSlowError), trio.fail_after(5):
        await link(ends[0], contexts.server, server_side=True)
    assert ends[0].fileno() >= 0
