"""Opens a connection that speaks h2, for a client: by TLS, or in plaintext with prior knowledge (RFC 9113
section 3.3)."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Final

import trio

from ztunnel.rpc.limits import Limits
from ztunnel.rpc.status import Code, RpcError

Context = Callable[[], ssl.SSLContext]
"""The TLS context for a new connection, with the certificates and roots of this moment."""

Tls = trio.SSLStream[trio.SocketStream]

ANOTHER_SECONDS: Final = 1.0
"""After which one more connection is begun: the address may be that of a service of Kubernetes, and what it
picked for the first one have just gone, so that nobody refuses that."""


async def connect(
    host: str, port: int, context: Context | None, server_name: str, limits: Limits
) -> Tls | trio.SocketStream:
    """A connection to the first address of `host` that answers, after its handshake.

    Args:
        context: None for plaintext.
        server_name: sent as SNI, and what the server's certificate has to be for where the context checks it.

    Raises:
        RpcError: UNAVAILABLE, with what the network, TLS or `context` said.
    """
    where = f"{host}:{port}"
    tcp: trio.SocketStream | None = None
    try:
        with trio.fail_after(limits.connect_seconds):
            tcp = await _open(host, port)
        if context is None:
            return tcp
        tls = trio.SSLStream(tcp, context(), server_hostname=server_name, https_compatible=True)
        with trio.fail_after(limits.handshake_seconds):
            await tls.do_handshake()
    except BaseException as error:
        if tcp is not None:
            await trio.aclose_forcefully(tcp)
        if isinstance(error, trio.TooSlowError):
            what = "answer" if tcp is None else "complete the TLS handshake"
            raise RpcError(Code.UNAVAILABLE, f"{where} did not {what} in time") from error
        if isinstance(error, trio.BrokenResourceError):
            raise RpcError(
                Code.UNAVAILABLE, f"TLS with {where} failed: {error.__cause__ or error}"
            ) from error
        if isinstance(error, OSError):  # ssl.SSLError is one
            raise RpcError(Code.UNAVAILABLE, f"no connection to {where}: {_reason(error)}") from error
        raise
    if tls.selected_alpn_protocol() != "h2":
        await trio.aclose_forcefully(tls)
        raise RpcError(Code.UNAVAILABLE, f"{where} does not speak h2 (ALPN)")
    return tls


async def _open(host: str, port: int) -> trio.SocketStream:
    """Of the connections that are begun one after the other, the one that first comes to something. Raises
    OSError: what the first that failed said."""
    found: list[trio.SocketStream] = []
    failures: list[OSError] = []

    async def attempt(scope: trio.CancelScope) -> None:
        try:
            found.append(await trio.open_tcp_stream(host, port))
        except OSError as error:
            failures.append(error)
        scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            while not (found or failures):
                nursery.start_soon(attempt, nursery.cancel_scope)
                await trio.sleep(ANOTHER_SECONDS)
    except BaseException:
        for each in found:
            await trio.aclose_forcefully(each)
        raise
    for late in found[1:]:
        await trio.aclose_forcefully(late)
    if not found:
        raise failures[0]
    return found[0]


def _reason(error: OSError) -> str:
    """Trio puts the attempts for several addresses into a group below its error."""
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):
        return "; ".join(
            dict.fromkeys(str(getattr(one, "strerror", None) or one) for one in cause.exceptions)
        )
    return str(error.strerror or error)
