"""Originates TLS with servers, as a DestinationRule's `tls` asks for it (SIMPLE, MUTUAL): over any stream, be
it a connection or a tunnel.

```
stream stands ── context, handshake in a thread ──> certificate proved ──> stands: plain bytes in and out
                        │ refused, broken, too slow ──> failed
```

What cannot be proved is not called. Files are read again when they have changed."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from ztunnel.errors import ConnectionFailed, TlsFailed, Unreachable
from ztunnel.flow.compute import Computers
from ztunnel.flow.engine import Engine
from ztunnel.flow.transport import Receiver
from ztunnel.hbone.link import reason
from ztunnel.model.traffic import ClientTls, TlsMode
from ztunnel.waypoint.upstream.san import check_names
from ztunnel.waypoint.upstream.spot import Failed, Stands, Stream

_RECORD: Final = 16 * 1024
_MOST_EARLY: Final = 256 * 1024
"""Bytes of a server before its handshake is done."""
_MOST_KEPT: Final = 256
_Marks = tuple[tuple[str, int, int], ...]


class Contexts:
    """Contexts of TLS by what they were made of; used by one thread at a time."""

    def __init__(self) -> None:
        self._kept: dict[tuple[ClientTls, str], tuple[_Marks, ssl.SSLContext]] = {}

    def of(self, tls: ClientTls, alpn: str) -> ssl.SSLContext:
        """The context for a policy, and a protocol to be agreed upon; empty: none.

        Raises:
            TlsFailed: a file is missing, or is not what it should be; or it is asked for what is not done.
        """
        try:
            marks = tuple(_mark(path) for path in (tls.roots, tls.revoked, tls.certificate, tls.key) if path)
            kept = self._kept.get((tls, alpn))
            if kept is not None and kept[0] == marks:
                return kept[1]
            made = _context(tls, alpn)
        except (OSError, ssl.SSLError) as error:
            raise TlsFailed(f"DestinationRule tls: {error}") from error
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
        self._kept[tls, alpn] = marks, made
        return made


def _mark(path: str) -> tuple[str, int, int]:
    found = os.stat(path)
    return path, found.st_mtime_ns, found.st_size


def _context(tls: ClientTls, alpn: str) -> ssl.SSLContext:
    if tls.credential:
        raise TlsFailed(
            f"DestinationRule tls: credentialName {tls.credential!r}: waypoints read no Secrets; mount it, "
            "and give the paths as caCertificates, clientCertificate and privateKey"
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False  # by check_names, which knows of subjectAltNames
    if tls.skip_verify:
        context.verify_mode = ssl.CERT_NONE
    elif tls.roots:
        context.load_verify_locations(tls.roots)
    else:
        context.load_default_certs()
    if tls.revoked:
        context.load_verify_locations(tls.revoked)
        context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
    if tls.mode is TlsMode.MUTUAL:
        context.load_cert_chain(tls.certificate, tls.key)
    if alpn:
        context.set_alpn_protocols([alpn])
    return context


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
