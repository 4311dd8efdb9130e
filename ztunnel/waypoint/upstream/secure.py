"""Originates TLS with servers, as a DestinationRule's `tls` asks for it (SIMPLE, MUTUAL): over any stream, be
it a connection or a tunnel.

```
stream stands ── context, handshake in a thread ──> certificate proved ──> stands: plain bytes in and out
                        │ refused, broken, too slow ──> failed
```

What cannot be proved is not called."""

from __future__ import annotations

import ssl
from collections.abc import Callable

from ztunnel.errors import ConnectionFailed, TlsFailed, Unreachable
from ztunnel.flow.compute import Computers
from ztunnel.flow.engine import Engine
from ztunnel.model.traffic import ClientTls
from ztunnel.waypoint.upstream.encrypt import SecureStream
from ztunnel.waypoint.upstream.load import Contexts
from ztunnel.waypoint.upstream.san import check_names
from ztunnel.waypoint.upstream.spot import Failed, Stands, Stream


class Securing:
    """A handshake on a stream. One of `stands` and `failed` is called, once."""

    def __init__(
        self,
        engine: Engine,
        computers: Computers,
        contexts: Contexts,
        policy: tuple[ClientTls, str, str],
        ends: tuple[Stands, Failed],
    ) -> None:
        """`policy` is what is asked for, the name that the server is called by, and the protocol."""
        self._engine = engine
        self._computers = computers
        self._contexts = contexts
        self._tls, self._name, self._alpn = policy
        self._stands, self._failed = ends
        self._stream: SecureStream | None = None
        self._over = False

    def start(self, inner: Stream, seconds: float) -> None:
        """It stands; there is so long for the handshake."""
        if self._over:
            inner.abort(Unreachable("it is not wanted any more"))
            return
        stream = self._stream = SecureStream(inner, self._wrap, self._compute, self._done)
        self._engine.after(seconds, self._too_slow)
        inner.attach(stream)
        stream.shake()

    def cancel(self) -> None:
        """It is not wanted any more."""
        self._end(None)

    def _wrap(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> ssl.SSLObject:
        """In a thread."""
        context = self._contexts.of(self._tls, self._alpn)
        return context.wrap_bio(incoming, outgoing, server_hostname=self._name or None)

    def _compute(self, step: Callable[[], None], done: Callable[[BaseException | None], None]) -> None:
        self._computers.submit(0, 0, step, done)

    def _too_slow(self) -> None:
        if not self._over:
            self._end(TlsFailed("the TLS handshake took too long"))

    def _done(self, error: ConnectionFailed | None) -> None:
        stream = self._stream
        if self._over or stream is None:
            return
        if error is None:
            error = self._check(stream)
        if error is not None:
            self._end(error)
            return
        self._over = True
        self._stands(stream)

    def _check(self, stream: SecureStream) -> ConnectionFailed | None:
        if self._alpn == "h2" and stream.protocol != "h2":
            return TlsFailed("the server does not agree upon HTTP/2 (ALPN h2), which its port says")
        if self._tls.skip_verify:
            return None
        wrong = check_names(stream.certificate, self._tls.subject_alt_names, self._name)
        return TlsFailed(wrong) if wrong else None

    def _end(self, error: ConnectionFailed | None) -> None:
        if self._over:
            return
        self._over = True
        if self._stream is not None:
            self._stream.abort(error or Unreachable("it is not wanted any more"))
        if error is not None:
            self._failed(error)
