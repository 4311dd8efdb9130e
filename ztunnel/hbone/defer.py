"""Defers tunnels of one session: they begin one by one, because too many of the peer's came to nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from ztunnel.errors import ConnectionFailed
from ztunnel.flow.engine import Engine
from ztunnel.flow.timers import Timer
from ztunnel.hbone.hold import TunnelStream
from ztunnel.hbone.ledger import Ledger
from ztunnel.http2.standing import Standing

_STEP_SECONDS = 0.005


def _nobody(tunnel: TunnelStream) -> None:
    """Begin none."""


class Slowed:
    """Those that wait, in their order."""

    def __init__(
        self, engine: Engine, standing: Standing, ledger: Ledger, start: Callable[[TunnelStream], None]
    ) -> None:
        """`start` begins one; nothing happens there when the session is over."""
        self._engine = engine
        self._standing = standing
        self._ledger = ledger
        self._start = start
        self._waiting: deque[TunnelStream] = deque()
        self._timer: Timer | None = None

    def take(self, tunnel: TunnelStream) -> bool:
        """Have it wait, if the peer's are slowed now."""
        if not self._waiting and self._standing.churn.level(self._engine.now) > 0:
            return False
        self._waiting.append(tunnel)
        self._ledger.slowed += 1
        self._start_later()
        return True

    def drop(self, tunnel: TunnelStream) -> None:
        """It has ended."""
        if self._waiting and not tunnel.started:
            self._waiting.remove(tunnel)  # at most as many as streams may be open

    def clear(self) -> None:
        """The session is over: nobody begins any more, and nothing of it is held."""
        self._waiting.clear()
        self._start = _nobody
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start_later(self) -> None:
        if self._timer is None:
            wait = self._standing.churn.seconds_until(1, self._engine.now)
            self._timer = self._engine.after(max(wait, _STEP_SECONDS), self._start_some)

    def _start_some(self) -> None:
        self._timer = None
        churn, now = self._standing.churn, self._engine.now
        while self._waiting and churn.level(now) >= 1:
            churn.take(1, now)
            tunnel = self._waiting.popleft()
            try:
                self._start(tunnel)
            except BaseException as bug:
                tunnel.abort(ConnectionFailed(f"internal error: {bug!r}"))
                self._start_later()
                raise
        if self._waiting:
            self._start_later()
