"""Takes a connection on the HBONE port through its TLS handshake, within the engine.

```
silent ── its first bytes ──> spoke ── begin ──> computing ── wants more ──> reading
  │                                                 ^  │                        │
  └── in 3 s nothing: over                          │  └── done: a link         │
                                                    └───────── bytes ───────────┘
```

Only the steps of the handshake itself, 2 ms of signatures, are computed elsewhere. Trio has no part in it: a
task for each connection would take ten turns of its loop, each of which waits for the engine.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT
from typing import Protocol

from ztunnel.errors import ConnectionFailed, TlsFailed, Unreachable
from ztunnel.flow.engine import Engine
from ztunnel.flow.held import Share
from ztunnel.flow.timers import Timer
from ztunnel.hbone.link import READ_BYTES, TlsLink, check_protocol, reason

FIRST_BYTE_SECONDS = 3.0
"""For the peer's first byte, which it sends as soon as TCP stands."""

HANDSHAKE_SECONDS = 10.0

Compute = Callable[[Callable[[], None], Callable[[BaseException | None], None]], None]
"""Has a step computed, and calls back in the engine with what it raised, or None. Raises OSError: it is not
computed."""


class Arriving(Protocol):
    """Whose connection it is."""

    def spoke(self) -> None:
        """The peer has said something: `begin`, now or later, or `fail`."""

    def ended(self, link: TlsLink | None, error: ConnectionFailed) -> None:
        """TLS stands, and the link's socket is the receiver's; or there is none, and why."""


_NOT_OVER = ConnectionFailed("internal error")


class Handshake:
    """One connection. Owns its socket until `ended` hands it on; where it is not handed on it is closed.

    Attributes:
        over: `ended` has been called.
        begun: `begin` has been called.
    """

    __slots__ = (
        "_arriving",
        "_compute",
        "_engine",
        "_fd",
        "_incoming",
        "_outgoing",
        "_sock",
        "_stands",
        "_timer",
        "_tls",
        "_unsent",
        "_words",
        "begun",
        "over",
    )

    def __init__(
        self, engine: Engine, sock: socket.socket, arriving: Arriving, share: Share | None = None
    ) -> None:
        """Takes over an accepted nonblocking socket, which waits beside what else is ready of `share`. Raises
        OSError; then it is still the caller's."""
        self._engine = engine
        self._sock = sock
        self._fd = sock.fileno()
        self._arriving = arriving
        self._words = b""
        self._incoming: ssl.MemoryBIO | None = None
        self._outgoing: ssl.MemoryBIO | None = None
        self._tls: ssl.SSLObject | None = None
        self._compute: Compute | None = None
        self._unsent = b""
        self._stands = False
        self.begun = False
        self.over = False
        engine.watch(self._fd, EPOLLIN, self._ready, self._abandon, share)
        self._timer: Timer = engine.after(FIRST_BYTE_SECONDS, self._silent)

    def begin(self, context: ssl.SSLContext, compute: Compute) -> None:
        """Do the server's side of the handshake, now that the peer has spoken."""
        if self.over or self.begun:
            return
        self.begun = True
        self._compute = compute
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._incoming.write(self._words)
        self._words = b""
        self._step()

    def fail(self, error: ConnectionFailed) -> None:
        """Give it up. Nothing happens where it is over."""
        if not self.over:
            self._end(None, error)

    def _ready(self, mask: int) -> None:
        if mask & EPOLLOUT:
            self._flush()
        elif mask & EPOLLIN:
            self._read()
        elif mask & (EPOLLERR | EPOLLHUP):  # whatever one asks for, and it would not stop
            self.fail(Unreachable("the connection broke during the TLS handshake"))

    def _read(self) -> None:
        try:
            received = self._sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self.fail(Unreachable(f"the connection broke during the TLS handshake: {error}"))
            return
        if not received:
            self.fail(TlsFailed("the peer closed the connection during the TLS handshake"))
            return
        if self._incoming is not None:
            self._incoming.write(received)
            self._step()
            return
        self._words = received
        self._engine.rewatch(self._fd, 0)
        self._timer.cancel()
        self._timer = self._engine.after(HANDSHAKE_SECONDS, self._slow)
        self._arriving.spoke()

    def _step(self) -> None:
        compute = self._compute
        assert compute is not None
        self._engine.rewatch(self._fd, 0)
        try:
            compute(self._shake, self._stepped)
        except OSError as error:
            self.fail(Unreachable(f"the TLS handshake cannot be computed: {error}"))

    def _shake(self) -> None:
        """In a thread; nothing is computed for a peer that has gone while it waited for its turn."""
        if not self.over and self._tls is not None:
            self._tls.do_handshake()

    def _stepped(self, error: BaseException | None) -> None:
        if self.over:
            return
        self._stands = error is None
        assert self._outgoing is not None
        self._unsent += self._outgoing.read()
        if error is None or isinstance(error, ssl.SSLWantReadError):
            self._flush()
        elif isinstance(error, ssl.SSLError):
            self._flush()  # the alert that tells the peer why; whether it arrives is not our concern
            self.fail(TlsFailed(f"TLS handshake: {reason(error)}"))
        elif isinstance(error, OSError):
            self.fail(Unreachable(f"the connection broke during the TLS handshake: {error}"))
        else:
            self.fail(ConnectionFailed(f"internal error: {error!r}"))
            raise error

    def _flush(self) -> None:
        """Send what there is, and go on when all of it has left."""
        try:
            while self._unsent:
                sent = self._sock.send(self._unsent)
                self._unsent = self._unsent[sent:]
        except BlockingIOError:
            self._engine.rewatch(self._fd, EPOLLOUT)
            return
        except OSError as error:
            self.fail(Unreachable(f"the connection broke during the TLS handshake: {error}"))
            return
        if not self._stands:
            self._engine.rewatch(self._fd, EPOLLIN)
            return
        assert self._tls is not None
        assert self._incoming is not None
        assert self._outgoing is not None
        try:
            check_protocol(self._tls)
        except ConnectionFailed as error:
            self.fail(error)
        else:
            self._end(TlsLink(self._sock, self._tls, self._incoming, self._outgoing), _NOT_OVER)

    def _silent(self) -> None:
        self.fail(TlsFailed("the peer connected and said nothing"))

    def _slow(self) -> None:
        self.fail(TlsFailed("the peer did not complete the TLS handshake in time"))

    def _abandon(self, bug: BaseException) -> None:
        self.fail(ConnectionFailed(f"internal error: {bug!r}"))

    def _end(self, link: TlsLink | None, error: ConnectionFailed) -> None:
        self.over = True
        self._timer.cancel()
        if link is None:
            self._engine.forget(self._fd)
            self._sock.close()
        else:
            self._engine.unwatch(self._fd)
        arriving = self._arriving
        # Whoever is told holds the handshake in turn: a cycle, and with each a piece for the collector.
        self._arriving = _NOBODY
        arriving.ended(link, error)


class _Nobody:
    """Nobody wants to know."""

    def spoke(self) -> None:
        """Nothing follows."""

    def ended(self, link: TlsLink | None, error: ConnectionFailed) -> None:
        """Nothing follows."""


_NOBODY = _Nobody()
