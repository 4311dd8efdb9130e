"""Takes up a connection that came in on the HBONE port."""

from __future__ import annotations

import socket
import ssl

import trio

from ztunnel.hbone.link import Compute, TlsLink, link


async def welcome(
    sock: socket.socket, context: ssl.SSLContext, compute: Compute = trio.to_thread.run_sync
) -> TlsLink:
    """Do the server's side of the TLS handshake on an accepted nonblocking socket. The caller sets the
    deadline.

    Takes over `sock`: it is closed when this fails or is cancelled.

    Raises:
        TlsFailed, HandshakeFailed, Unreachable: as `link`.
    """
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return await link(sock, context, server_side=True, compute=compute)
    except BaseException:
        sock.close()
        raise
