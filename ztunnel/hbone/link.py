"""Links two proxies by TLS: the handshake, and what a session gets to work with after it."""

from __future__ import annotations

import socket
import ssl
from typing import NamedTuple

import trio

from ztunnel.errors import HandshakeFailed, TlsFailed, Unreachable

_READ_BYTES = 16 * 1024


class TlsLink(NamedTuple):
    """A nonblocking TCP socket, the TLS state, and the two memories between them. Bytes that came behind the
    handshake are still in `incoming`."""

    sock: socket.socket
    tls: ssl.SSLObject
    incoming: ssl.MemoryBIO
    outgoing: ssl.MemoryBIO


async def _send(sock: socket.socket, cipher: bytes) -> None:
    view = memoryview(cipher)
    while view:
        try:
            sent = sock.send(view)
            view = view[sent:]
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock)


async def _shake(link: TlsLink) -> None:
    while True:
        try:
            link.tls.do_handshake()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            # The alert tells the peer why; whether it arrives is not our concern.
            await _send(link.sock, link.outgoing.read())
            raise TlsFailed(f"TLS handshake: {error.reason or error}") from error
        else:
            await _send(link.sock, link.outgoing.read())
            return
        await _send(link.sock, link.outgoing.read())
        await trio.lowlevel.wait_readable(link.sock)
        received = link.sock.recv(_READ_BYTES)
        if not received:
            raise TlsFailed("the peer closed the connection during the TLS handshake")
        link.incoming.write(received)


async def link(sock: socket.socket, context: ssl.SSLContext, server_side: bool) -> TlsLink:
    """Do a TLS handshake on a connected nonblocking socket. Who the peer is remains to be checked.

    The caller sets the deadline, and owns `sock` until this returns: it is not closed here.

    Raises:
        TlsFailed: the handshake failed, on either side's demand.
        HandshakeFailed: TLS stands, but the peer does not speak HTTP/2.
        Unreachable: the connection broke.
    """
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_side=server_side)
    made = TlsLink(sock, tls, incoming, outgoing)
    try:
        await _shake(made)
    except OSError as error:
        raise Unreachable(f"the connection broke during the TLS handshake: {error}") from error
    if tls.selected_alpn_protocol() != "h2":
        raise HandshakeFailed("the peer does not offer HTTP/2 (ALPN h2)")
    return made
