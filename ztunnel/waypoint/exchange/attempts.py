"""How often and how long one request is tried: what its plan allows, counted and timed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from ztunnel.http1.head import Fields
from ztunnel.l7.balancing.circuit import Circuit, Limit
from ztunnel.l7.flags import DELAYED, OVERFLOW, RETRIES_OVER
from ztunnel.l7.reply import Reply
from ztunnel.l7.routing.plan import Plan
from ztunnel.l7.routing.retry import Loss, Retries
from ztunnel.waypoint.exchange.deadlines import Deadlines, Timer
from ztunnel.waypoint.upstream.asking import Asking

IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))
"""What may be sent twice (RFC 9110 section 9.2.2)."""

NONE: Final = -1.0
"""There is no other try."""


_NO_RETRIES: Final = Retries(None)
_LOSSES: Final = {
    "UF": Loss.CONNECT,
    "UC": Loss.RESET,
    "UR": Loss.RESET,
    "UPE": Loss.RESET,
    "UT": Loss.TRY_TIMEOUT,
}
"""By the flags of the replies. Where nobody serves, nobody is asked again."""


class Time(Protocol):
    """What an exchange's way knows of time and of the other exchanges."""

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call back in so many seconds."""

    def wait_of(self, retries: Retries, at_once: bool) -> float:
        """Take a retry; how many seconds are waited before it. Negative: there is no room for it."""


class Attempts:
    """Those of one request.

    Attributes:
        count: how often it was sent on.
        flags: of the log, that are not those of its end.
        retries: what may be tried again.
        asking: the endpoint that is asked, or was asked last; None: nobody counts.
    """

    __slots__ = ("_deadlines", "_plan", "_retrying", "_time", "asking", "count", "flags", "retries")

    def __init__(self, time: Time) -> None:
        self._time = time
        self._plan: Plan | None = None
        self._deadlines: Deadlines | None = None
        self.retries = _NO_RETRIES
        self.asking: Asking | None = None
        self._retrying: Circuit | None = None
        self.count = 0
        self.flags: list[str] = []

    def allow(self, plan: Plan) -> bool:
        """What there may be. Returns whether the request's body may be needed more than once."""
        self._plan = plan
        if plan.retry is not None:
            self.retries = Retries(plan.retry)
        return self.retries.replays

    def after_loss(self, reply: Reply, unsent: bool, stale: bool) -> float:
        """Seconds before the next try, where this one was lost and would be answered so; NONE: it is not
        tried again. `unsent`: no server has seen it; `stale`: the server has closed an old connection, as it
        may at any time."""
        loss = _LOSSES.get(reply.flag)
        if loss is Loss.RESET and unsent:
            loss = Loss.REFUSED
        if loss is None or not ((self.retries.any and stale) or self.retries.after_loss(loss, unsent)):
            return NONE
        return self._next(unsent or stale)

    def after_response(self, fields: Fields) -> float:
        """The same, where a response has come that may be a failure."""
        return self._next(False) if self.retries.after_response(fields) else NONE

    def _next(self, at_once: bool) -> float:
        if not self.retries.left:
            self.flags.append(RETRIES_OVER)
            return NONE
        wait = self._time.wait_of(self.retries, at_once) if self._may_retry() else NONE
        if wait < 0:
            self.flags.append(OVERFLOW)
            return NONE
        return wait

    def _may_retry(self) -> bool:
        """Whether the cluster that was asked lets there be one more retry at once (maxRetries, retryBudget);
        one of a request is held until it is over."""
        if self._retrying is not None or self.asking is None:
            return True
        if not self.asking.retry():
            return False
        self._retrying = self.asking.circuit
        return True

    # Time.

    def wait(self, seconds: float, then: Callable[[], None]) -> None:
        """Do something later."""
        self._timers().wait(seconds, then)

    def delay(self, seconds: float, then: Callable[[], None]) -> None:
        """The same, for a delay that a rule wants."""
        self.flags.append(DELAYED)
        self.wait(seconds, then)

    @property
    def timed(self) -> bool:
        """Whether there is a time for them."""
        plan = self._plan
        return plan is not None and (plan.timeout_seconds > 0 or plan.try_timeout_seconds > 0)

    def begin(self, over: Callable[[], None], try_over: Callable[[], None]) -> None:
        """A request that is whole is tried: from now on there is so long for all tries, and for this one."""
        plan = self._plan
        if plan is None:
            return
        if plan.timeout_seconds:
            self._timers().begin(plan.timeout_seconds, over)
        if plan.try_timeout_seconds:
            self._timers().begin_try(plan.try_timeout_seconds, try_over)

    # The endpoint that is asked.

    def ask(self, asking: Asking | None) -> None:
        """This one is asked now; None: nobody counts what becomes of that."""
        if self.asking is not None:
            self.asking.end()
        self.asking = asking

    def responded(self, fields: Fields, grpc: bool, end: bool) -> None:
        """It has answered with these fields; with `end` that is all."""
        if self._deadlines is not None:
            self._deadlines.end_try()
        if self.asking is not None:
            self.asking.responded(fields, grpc, end)

    def stick(self, fields: Fields) -> Fields:
        """The fields of its response, with the cookie by which the client will find it again; one of the
        server's own with that name is left to be."""
        cookie = self.asking.cookie if self.asking is not None else b""
        name = cookie.partition(b"=")[0] + b"="
        if not cookie or any(each == b"set-cookie" and value.startswith(name) for each, value in fields):
            return fields
        return (*fields, (b"set-cookie", cookie))

    def whole(self, trailers: Fields) -> None:
        """Its response is whole."""
        if self.asking is not None:
            self.asking.ended(trailers)

    def end_try(self, flag: str = "") -> None:
        """The try has come to nothing, or is given up; `flag`: of what the client would be told."""
        if self._deadlines is not None:
            self._deadlines.end_try()
        if self.asking is not None:
            self.asking.lost(flag)
            self.asking.end()

    def end(self) -> None:
        """Nothing is waited for any more."""
        if self._deadlines is not None:
            self._deadlines.end()
        if self.asking is not None:
            self.asking.end()
        if self._retrying is not None:
            self._retrying.give(Limit.RETRIES)
            self._retrying = None

    def _timers(self) -> Deadlines:
        made = self._deadlines
        if made is None:
            made = self._deadlines = Deadlines(self._time.after)
        return made
