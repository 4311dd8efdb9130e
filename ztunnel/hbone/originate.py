"""Originates tunnels in this process: asks the peer for one, for a receiver of ours."""

from __future__ import annotations

from typing import Protocol

from ztunnel.errors import Busy, ConnectionFailed, HandshakeFailed
from ztunnel.flow.timers import Timer
from ztunnel.hbone.hold import TunnelSession
from ztunnel.hbone.terminate import InnerTunnel
from ztunnel.http2.fields import Fields
from ztunnel.http2.frame import Code, code_name

_OK = b"200"


class OriginatedEvents(Protocol):
    """What becomes of a tunnel that we ask for: one of these, once. After `established` whoever is attached
    hears of the rest."""

    def established(self) -> None:
        """The peer answered 200; attach somebody."""

    def refused(self, status: int) -> None:
        """The peer answered otherwise; 0: without a status."""

    def lost(self, error: ConnectionFailed) -> None:
        """No answer came."""


class OriginatedTunnel(InnerTunnel):
    """A tunnel that we ask for. Nothing is to be written before the peer has answered."""

    __slots__ = ("_events", "_timer")

    def __init__(self, session: TunnelSession, events: OriginatedEvents) -> None:
        super().__init__(session, opener=True)
        self._events: OriginatedEvents | None = events
        self._timer: Timer | None = None

    def begin(self, answer_seconds: float) -> None:
        """Wait for the answer to a CONNECT just sent."""
        self._timer = self._session.engine.after(answer_seconds, self._unanswered)

    def on_answer(self, untrusted: Fields, end: bool) -> None:
        events = self._settle()
        status = dict(untrusted).get(b":status", b"")
        if status == _OK:
            if events is not None:
                events.established()
            return
        self._session.h2.reset(self, Code.CANCEL)
        self._leave()
        if events is not None:
            events.refused(int(status) if len(status) == 3 and status.isdigit() else 0)

    def on_reset(self, code: int) -> None:
        if self._events is None:
            super().on_reset(code)
        elif code == Code.REFUSED_STREAM:
            self._fail(Busy("the peer refused the tunnel before looking at it"))
        else:
            self._fail(HandshakeFailed(f"the peer reset CONNECT: {code_name(code)}"))

    def session_lost(self, error: ConnectionFailed) -> None:
        if self._events is None:
            super().session_lost(error)
        else:
            self.closed = True
            self._fail(error)

    def abort(self, error: ConnectionFailed) -> None:
        self._settle()
        super().abort(error)

    def _unanswered(self) -> None:
        self._session.h2.reset(self, Code.CANCEL)
        self._fail(HandshakeFailed("the peer did not answer CONNECT in time"))

    def _settle(self) -> OriginatedEvents | None:
        """Nobody waits for the answer any more; who did."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        events, self._events = self._events, None
        return events

    def _fail(self, error: ConnectionFailed) -> None:
        events = self._settle()
        self._leave()
        if events is not None:
            events.lost(error)
