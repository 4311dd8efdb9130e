"""Links two proxies by TLS: the handshake of whoever dials, and what a session gets to work with after it.
That of whoever is dialled is `accept`'s matter."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import trio

from ztunnel.errors import HandshakeFailed, TlsFailed, Unreachable

READ_BYTES = 16 * 1024

_HINTS = {
    9: " (compare the clocks of both nodes)",
    10: " (compare the clocks of both nodes; its control plane may not have renewed it)",
    18: " (it is signed by nobody else)",
    19: " (its root is none of ours)",
    20: " (its root is none of ours, or it was presented without its intermediate)",
    21: " (its issuer is none of ours, or it was presented without its intermediate)",
}
"""By OpenSSL's numbers (x509_vfy.h)."""


Compute = Callable[[Callable[[], None]], Awaitable[None]]


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


async def _shake(link: TlsLink, compute: Compute) -> None:
    while True:
        try:
            # Two milliseconds of signatures: in a thread, so that nobody's bytes wait for them.
            await compute(link.tls.do_handshake)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            # The alert tells the peer why; whether it arrives is not our concern.
            await _send(link.sock, link.outgoing.read())
            raise TlsFailed(f"TLS handshake: {reason(error)}") from error
        else:
            await _send(link.sock, link.outgoing.read())
            return
        await _send(link.sock, link.outgoing.read())
        await trio.lowlevel.wait_readable(link.sock)
        received = link.sock.recv(READ_BYTES)
        if not received:
            raise TlsFailed("the peer closed the connection during the TLS handshake")
        link.incoming.write(received)


def reason(error: ssl.SSLError) -> str:
    """Why, in OpenSSL's words; of a certificate what is wrong with it, and where to look."""
    if not isinstance(error, ssl.SSLCertVerificationError):
        return error.reason or str(error)
    hint = _HINTS.get(error.verify_code, "")
    return f"the peer's certificate was refused: {error.verify_message}{hint}"


async def link(
    sock: socket.socket,
    context: ssl.SSLContext,
    server_side: bool,
    compute: Compute = trio.to_thread.run_sync,
) -> TlsLink:
    """Do a TLS handshake on a connected nonblocking socket. Who the peer is remains to be checked.

    The caller sets the deadline, and owns `sock` until this returns: it is not closed here.

    Args:
        compute: runs a step of the handshake; some wait for others.

    Raises:
        TlsFailed: the handshake failed, on either side's demand.
        HandshakeFailed: TLS stands, but the peer does not speak HTTP/2.
        Unreachable: the connection broke.
    """
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_side=server_side)
    made = TlsLink(sock, tls, incoming, outgoing)
    try:
        await _shake(made, compute)
    except OSError as error:
        raise Unreachable(f"the connection broke during the TLS handshake: {error}") from error
    check_protocol(tls)
    return made


def check_protocol(tls: ssl.SSLObject) -> None:
    """Whether HTTP/2 is spoken behind the handshake. Raises HandshakeFailed."""
    if tls.selected_alpn_protocol() != "h2":
        raise HandshakeFailed("the peer does not offer HTTP/2 (ALPN h2)")
