"""Encrypts what is sent over another stream, be it a connection or a tunnel, and decrypts what comes."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from ztunnel.errors import ConnectionFailed, TlsFailed, Unreachable
from ztunnel.flow.transport import Receiver
from ztunnel.hbone.link import reason
from ztunnel.waypoint.upstream.spot import Stream

_RECORD: Final = 16 * 1024
_MOST_EARLY: Final = 256 * 1024
"""Bytes of a server before its handshake is done."""


class SecureStream:
    """Plain bytes over TLS over another stream: the receiver of that one, and a transport itself."""

    def __init__(
        self,
        inner: Stream,
        wrap: Callable[[ssl.MemoryBIO, ssl.MemoryBIO], ssl.SSLObject],
        compute: Callable[[Callable[[], None], Callable[[BaseException | None], None]], None],
        done: Callable[[ConnectionFailed | None], None],
    ) -> None:
        self._inner = inner
        self._wrap = wrap
        self._compute = compute
        self._done: Callable[[ConnectionFailed | None], None] | None = done
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = None
        self._early = bytearray()
        self._computing = False
        self._receiver: Receiver | None = None
        self._held = 0
        self._untaken = 0
        self._ended = False
        self._told_end = False
        self._over = False

    @property
    def protocol(self) -> str:
        """That was agreed upon; empty: none."""
        return (self._tls.selected_alpn_protocol() if self._tls is not None else None) or ""

    @property
    def certificate(self) -> dict[str, object]:
        """The server's, as `ssl` reads it; empty where it was not verified."""
        return dict(self._tls.getpeercert() or {}) if self._tls is not None else {}

    # The handshake.

    def shake(self) -> None:
        """Do a step of it."""
        if self._early:
            self._incoming.write(bytes(self._early))
            self._early.clear()
        if self._ended:
            self._incoming.write_eof()
        self._computing = True
        self._compute(self._step, self._stepped)

    def _step(self) -> None:
        """In a thread; nobody else touches what it does meanwhile."""
        if self._tls is None:
            self._tls = self._wrap(self._incoming, self._outgoing)
        self._tls.do_handshake()

    def _stepped(self, error: BaseException | None) -> None:
        self._computing = False
        if self._over:
            return
        self._flush()
        if error is None:
            if self._early:
                self._incoming.write(bytes(self._early))
                self._early.clear()
            self._tell(None)
        elif isinstance(error, ssl.SSLWantReadError):
            if self._early or self._ended:
                self.shake()
        elif isinstance(error, ssl.SSLEOFError):
            self._tell(TlsFailed("the server closed the connection during the TLS handshake"))
        elif isinstance(error, ssl.SSLError):
            self._tell(TlsFailed(f"TLS handshake: {reason(error)}"))
        elif isinstance(error, ConnectionFailed):
            self._tell(error)
        else:
            raise error

    def _tell(self, error: ConnectionFailed | None) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(error)

    # As a transport.

    @property
    def unsent_bytes(self) -> int:
        """What was written and has not left."""
        return self._inner.unsent_bytes

    @property
    def leaving(self) -> bool:
        """As what carries it."""
        return self._inner.leaving

    def attach(self, receiver: Receiver) -> None:
        """Read from now on."""
        self._receiver = receiver
        self._read()

    def write(self, part: bytes | memoryview) -> None:
        """Send."""
        tls = self._tls
        if self._over or tls is None or not len(part):
            return
        view = memoryview(part)
        try:
            for at in range(0, len(view), _RECORD):
                tls.write(view[at : at + _RECORD])
        except ssl.SSLError as error:
            self._lose(Unreachable(f"the connection broke: {reason(error)}"))
            return
        self._flush()

    def finish(self) -> None:
        """Nothing more will be written."""
        if self._over or self._tls is None:
            return
        with suppress(ssl.SSLError):  # the server's own goodbye has not come yet
            self._tls.unwrap()
        self._flush()
        self._inner.finish()

    def taken(self, count: int) -> None:
        """Plain bytes have left our hands: as many of those that carried them, and with the last one all."""
        if self._over:
            return
        self._held -= count
        part = min(count, self._untaken) if self._held > 0 else self._untaken
        self._untaken -= part
        if part:
            self._inner.taken(part)

    def abort(self, error: ConnectionFailed) -> None:
        """End it now."""
        if not self._over:
            self._over = True
            self._receiver = None
            self._inner.abort(error)

    # As a receiver.

    def received(self, untrusted: memoryview) -> None:
        if self._over:
            return
        count = len(untrusted)
        if self._done is not None:
            self._inner.taken(count)
            self._early += untrusted
            if len(self._early) > _MOST_EARLY:
                self._tell(TlsFailed("the server sends without end before its TLS handshake is done"))
            elif not self._computing:
                self.shake()
            return
        self._untaken += count
        self._incoming.write(untrusted)
        self._read()

    def _read(self) -> None:
        tls, receiver = self._tls, self._receiver
        if tls is None or receiver is None:
            return
        while not self._over:
            try:
                plain = tls.read(4 * _RECORD)
            except ssl.SSLWantReadError:
                break
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                self._end()
                break
            except ssl.SSLError as error:
                self._lose(Unreachable(f"the connection broke: {reason(error)}"))
                return
            if not plain:
                self._end()
                break
            self._held += len(plain)
            receiver.received(memoryview(plain))
        if not self._over and not self._held and self._untaken:
            untaken, self._untaken = self._untaken, 0
            self._inner.taken(untaken)
        self._flush()

    def ended(self) -> None:
        self._ended = True
        if self._done is not None:
            if not self._computing:
                self.shake()
            return
        self._read()
        self._end()

    def _end(self) -> None:
        if self._receiver is not None and not self._told_end and not self._over:
            self._told_end = True
            self._receiver.ended()

    def writable(self) -> None:
        if self._receiver is not None:
            self._receiver.writable()

    def lost(self, error: ConnectionFailed | None) -> None:
        if self._done is not None:
            self._tell(error or Unreachable("the connection broke during the TLS handshake"))
            return
        receiver, self._receiver = self._receiver, None
        self._over = True
        if receiver is not None:
            receiver.lost(error)

    def _lose(self, error: ConnectionFailed) -> None:
        receiver, self._receiver = self._receiver, None
        self._over = True
        self._inner.abort(error)
        if receiver is not None:
            receiver.lost(error)

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._inner.write(self._outgoing.read())
