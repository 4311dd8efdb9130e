"""What a service may have at once of one waypoint: connections, requests that wait for one, requests, retries
(Envoy's circuit breakers, ResourceManagerImpl)."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

from ztunnel.l7.balancing.window import Window
from ztunnel.model.traffic import Pool, RetryBudget


class Limit(IntEnum):
    """What is limited."""

    CONNECTIONS = 0
    PENDING = 1
    REQUESTS = 2
    RETRIES = 3


NAMES = ("connections", "pending", "requests", "retries")
"""Of the limits, as metrics have them."""


class Circuit:
    """The state of one service, subset or port. Limits may change while it is in use: what is over them then
    goes on.

    Attributes:
        used: how much of each limit is taken.
        overflows: how often each was in the way.
    """

    __slots__ = ("_budget", "_most", "_sent", "overflows", "used")

    def __init__(self) -> None:
        self.used = [0, 0, 0, 0]
        self.overflows = [0, 0, 0, 0]
        self._most = [0, 0, 0, 0]
        self._budget: RetryBudget | None = None
        self._sent: Window | None = None

    def limit(self, pool: Pool | None, budget: RetryBudget | None) -> None:
        """These are the limits now; 0 is none."""
        self._budget = budget
        seconds = budget.seconds if budget is not None else 0.0
        if self._sent is None or self._sent.seconds != seconds:
            self._sent = Window(seconds) if seconds else None
        if pool is None:
            self._most = [0, 0, 0, 0]
        else:
            self._most = [pool.connections, pool.pending_requests, pool.requests, pool.retries]

    def sent(self, now: float) -> None:
        """A request has been sent, which a budget of those of a while counts."""
        if self._sent is not None:
            self._sent.add(now)

    def has_room(self, limit: Limit, now: float = 0.0) -> bool:
        """Whether one more may be taken; `now` counts for retries."""
        most = self._most[limit]
        if limit is Limit.RETRIES and self._budget is not None:
            if self._sent is not None:
                requests = self._sent.count(now)
            else:
                requests = self.used[Limit.REQUESTS] + self.used[Limit.PENDING]
            most = max(self._budget.least, int(requests * self._budget.percent / 100))
            return self.used[limit] < most
        return not most or self.used[limit] < most

    def take(self, limit: Limit, now: float = 0.0) -> bool:
        """Take one, until `give`; whether there was room for it. What there was none for is counted."""
        if not self.has_room(limit, now):
            self.overflows[limit] += 1
            return False
        self.used[limit] += 1
        return True

    def force(self, limit: Limit) -> None:
        """Take one that there must be: an endpoint without any connection may always have one, or what waits
        for it would wait for ever (Envoy's ConnPoolImplBase::tryCreateNewConnection)."""
        if not self.has_room(limit):
            self.overflows[limit] += 1
        self.used[limit] += 1

    def give(self, limit: Limit) -> None:
        """One is over."""
        self.used[limit] -= 1

    def holder(self, limit: Limit) -> Callable[[], None]:
        """Gives back what was taken, once, however often it is called."""
        held = [True]

        def give() -> None:
            if held[0]:
                held[0] = False
                self.give(limit)

        return give
