"""Asks the peer for a tunnel, and joins the application to it once the peer has answered."""

from __future__ import annotations

import socket
from errno import EHOSTUNREACH
from typing import Final, Protocol

from ztunnel.errors import Busy, ConnectionFailed, HandshakeFailed
from ztunnel.flow.flow import Counts
from ztunnel.flow.linger import close_with_reset
from ztunnel.hbone.hold import TunnelSession
from ztunnel.hbone.join import Tunnel
from ztunnel.http2.fields import Fields
from ztunnel.http2.frame import Code, code_name

_OK: Final = b"200"


class TunnelEvents(Protocol):
    """What becomes of a tunnel that we open: first `established`, `refused` or `lost`, and after
    `established` in any case `ended`. Where the application is reset before the answer, or the tunnel
    aborted, `ended` alone."""

    def established(self, untrusted: Fields) -> None:
        """The peer answered 200; bytes flow from now on."""

    def refused(self, status: int, untrusted: Fields, app: socket.socket | None) -> None:
        """The peer answered otherwise. The application's socket is the receiver's again, unwatched."""

    def lost(self, app: socket.socket | None, error: ConnectionFailed) -> None:
        """No answer came: no byte of the application was read, and its socket is the receiver's again.
        Worth another session where `error.retryable`."""

    def ended(self, error: ConnectionFailed | None) -> None:
        """The tunnel is over and the application's socket closed."""


class OutgoingTunnel(Tunnel):
    """A tunnel that we open. No byte of the application is read before the peer has answered 200.

    It may be opened without the application's socket, which follows once the peer has answered: what comes
    meanwhile is kept, within the stream's window.
    """

    __slots__ = ("_receiver",)

    def __init__(self, session: TunnelSession, receiver: TunnelEvents) -> None:
        super().__init__(session, opener=True)
        self._receiver = receiver

    def begin(self, app: socket.socket | None, counts: Counts, answer_seconds: float) -> None:
        """Wait for the answer to a CONNECT just sent, noticing meanwhile if the application is reset."""
        self._session.unanswered.set(self, answer_seconds, self._unanswered)
        self._counts = counts
        if app is not None:
            self._join(app, counts)

    @property
    def waits_for_app(self) -> bool:
        """Whether the application's socket is still to follow."""
        return self._app is None and not self._over

    def attach(self, app: socket.socket) -> None:
        """The application's socket has come; takes it over. Where the tunnel has ended meanwhile, it gets
        what the peer had sent."""
        if self._over:
            close_with_reset(app)
            return
        self._reading = self._last_words is None
        self._join(app, self._counts)
        if self._backlog.held_bytes:
            self._flush()
        elif self._last_words is not None:
            self._end_when_sent(*self._last_words)
        elif self.remote_closed:
            self._shut()
        if self._last_words is not None and not self._over:
            self._session.engine.last_words.watch(app, self._counts.moved, self._app_gone)

    def on_answer(self, untrusted: Fields, end: bool) -> None:
        self._session.unanswered.drop(self)
        status = untrusted[0][1]  # of a response that was checked, the only pseudo-header field
        if status != _OK:
            self._session.h2.reset(self, Code.CANCEL)
            self._refused(status, untrusted)
            return
        self._reading = self._app is not None
        self._receiver.established(untrusted)
        if self._over or not self._reading:
            return
        if end:
            self._shut()
        if not self._over:
            self._read()
            self._watch_afterwards()

    def _refused(self, status: bytes, untrusted: Fields) -> None:
        app = self._leave()
        if len(status) == 3 and status.isdigit():
            self._receiver.refused(int(status), untrusted, app)
        else:
            self._receiver.lost(app, HandshakeFailed("the peer answered CONNECT without a status"))

    def on_reset(self, code: int) -> None:
        if self.answered:
            super().on_reset(code)
        elif code == Code.REFUSED_STREAM:
            self._lost(Busy("the peer refused the tunnel before looking at it"))
        else:
            self._lost(HandshakeFailed(f"the peer reset CONNECT: {code_name(code)}"))

    def session_lost(self, error: ConnectionFailed) -> None:
        if self.answered:
            super().session_lost(error)
        else:
            self.closed = True
            self._lost(error)

    def _unanswered(self) -> None:
        if self._over or self.answered:
            return
        self._session.h2.reset(self, Code.CANCEL)
        silent = HandshakeFailed("the peer did not answer CONNECT in time")
        silent.errno = EHOSTUNREACH
        self._lost(silent)

    def _lost(self, error: ConnectionFailed) -> None:
        if self._over:
            return
        self._session.unanswered.drop(self)
        app = self._leave()
        self._receiver.lost(app, error)

    def _ended(self, error: ConnectionFailed | None) -> None:
        self._session.unanswered.drop(self)
        self._receiver.ended(error)
