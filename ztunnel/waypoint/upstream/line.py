"""Requests that wait for a connection with one endpoint, in order; how many may wait is limited for all of
its cluster together (http1MaxPendingRequests)."""

from __future__ import annotations

from collections import deque

from ztunnel.errors import ConnectionFailed
from ztunnel.l7.balancing.circuit import Circuit, Limit
from ztunnel.l7.reply import CONNECT_FAILED, OVERFLOW
from ztunnel.waypoint.exchange.exchange import Exchange
from ztunnel.waypoint.upstream.asking import Asking


class Line:
    """Those of one endpoint."""

    __slots__ = ("_circuit", "_waiting")

    def __init__(self, circuit: Circuit | None) -> None:
        self._circuit = circuit
        self._waiting: deque[tuple[Exchange, Asking | None]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def join(self, exchange: Exchange) -> bool:
        """Let it wait; whether it may. If not, it has been told."""
        circuit = self._circuit
        if circuit is not None and not circuit.has_room(Limit.PENDING):
            self.tidy()
        if circuit is not None and not circuit.take(Limit.PENDING):
            exchange.unreachable(OVERFLOW)
            return False
        self._waiting.append((exchange, exchange.attempts.asking))
        return True

    def next(self) -> Exchange | None:
        """The first that still wants an answer, and waits no more."""
        while self._waiting:
            exchange, asking = self._waiting.popleft()
            if self._circuit is not None:
                self._circuit.give(Limit.PENDING)
            if exchange.over:
                continue
            if exchange.attempts.asking is asking:
                return exchange
            exchange.unreachable(OVERFLOW)  # a try that was given up for a later one
        return None

    def fail(self, error: ConnectionFailed, *, only_first: bool) -> None:
        """There is no connection for them."""
        for _ in range(1 if only_first else len(self._waiting)):
            exchange = self.next()
            if exchange is not None:
                unsent = error.elsewhere or error.retryable
                exchange.unreachable(CONNECT_FAILED, str(error), unsent=unsent)

    def tidy(self) -> None:
        """Let those go that want no answer any more."""
        left = [each for each in self._waiting if not each[0].over]
        if self._circuit is not None:
            for _ in range(len(self._waiting) - len(left)):
                self._circuit.give(Limit.PENDING)
        self._waiting = deque(left)


def begin(exchange: Exchange) -> bool:
    """Whether a request that a connection is there for may be sent (http2MaxRequests). If not, it has been
    told."""
    asking = exchange.attempts.asking
    if asking is None or asking.begin():
        return True
    exchange.unreachable(OVERFLOW)
    return False
