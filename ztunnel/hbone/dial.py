"""Dials a peer's HBONE port: TCP, then TLS."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from typing import Any

import trio

from ztunnel.errors import Unreachable
from ztunnel.hbone.link import Compute, TlsLink, link

_UNDER_WAY = (errno.EINPROGRESS, errno.EALREADY)


async def _connect(sock: socket.socket, address: tuple[Any, ...]) -> None:
    code = sock.connect_ex(address)
    if code in _UNDER_WAY:
        await trio.lowlevel.wait_writable(sock)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise Unreachable(f"{address[0]}:{address[1]}: {os.strerror(code)}")


async def dial(
    sock: socket.socket, address: tuple[Any, ...], context: ssl.SSLContext, compute: Compute
) -> TlsLink:
    """Connect a nonblocking socket to an HBONE port, and link it. The caller sets the deadline;
    `compute` runs the steps of the handshake.

    Takes over `sock`: it is closed when this fails or is cancelled.

    Raises:
        Unreachable: no TCP connection.
        TlsFailed, HandshakeFailed: as `link`.
    """
    try:
        await _connect(sock, address)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return await link(sock, context, server_side=False, compute=compute)
    except BaseException:
        sock.close()
        raise
