"""Answers a peer that asks for a tunnel: joins the application to it, or refuses."""

from __future__ import annotations

import socket
from collections.abc import Callable

from ztunnel.errors import ConnectionFailed
from ztunnel.flow.flow import Counts
from ztunnel.hbone.hold import TunnelSession
from ztunnel.hbone.join import Tunnel
from ztunnel.http2.fields import Fields
from ztunnel.http2.frame import Code

OnEnd = Callable[[ConnectionFailed | None], None]


def _nobody() -> None:
    """Nobody wants to know."""


class IncomingTunnel(Tunnel):
    """A tunnel that the peer asks for, until somebody accepts or refuses it.

    Attributes:
        headers: the request's fields, not checked yet.
        cancelled: called when the peer gives up before an answer; set it to stop what is under way for the
            tunnel.
    """

    __slots__ = ("_on_end", "cancelled", "headers")

    def __init__(self, session: TunnelSession, untrusted: Fields) -> None:
        super().__init__(session, opener=False)
        self.headers = untrusted
        self.cancelled: Callable[[], None] = _nobody
        self._on_end: OnEnd | None = None

    def accept(self, block: bytes, app: socket.socket, counts: Counts, on_end: OnEnd) -> None:
        """Answer with an encoded header block (the 200 included) and join `app`, which belongs to the tunnel
        from now on.

        Where the peer has given up meanwhile, `app` is closed and `on_end` is called before this returns.
        """
        if self._over:
            app.close()
            on_end(None)
            return
        self._on_end = on_end
        self._session.h2.answer(self, block)
        self._reading = True
        self._join(app, counts)
        if self._backlog.held_bytes:
            self._flush()
        elif self.remote_closed:
            self._shut()

    def refuse(self, block: bytes) -> None:
        """Answer with an encoded header block (a status that is not 200) and end the stream."""
        if self._over:
            return
        h2 = self._session.h2
        h2.standing.churn.take(1, h2.now)
        h2.answer(self, block, end=True)
        h2.reset(self, Code.NO_ERROR)
        self._leave()
        self.cancelled = _nobody

    def on_reset(self, code: int) -> None:
        if self._on_end is not None:
            super().on_reset(code)
        else:
            self._cancel()

    def session_lost(self, error: ConnectionFailed) -> None:
        if self._on_end is not None:
            super().session_lost(error)
        else:
            self.closed = True
            self._cancel()

    def _cancel(self) -> None:
        if not self._over:
            self._leave()
            self._ended(None)

    def _ended(self, error: ConnectionFailed | None) -> None:
        on_end, cancelled = self._on_end, self.cancelled
        # Whoever is told holds the tunnel in turn: a cycle, and with each request one for the collector.
        self._on_end, self.cancelled = None, _nobody
        if on_end is None:
            cancelled()
        else:
            on_end(error)
