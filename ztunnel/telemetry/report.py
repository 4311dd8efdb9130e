"""Reports connections: one account from its opening to its end, then one access-log line and the metrics.

A journey says what is known of connections that go one way; an account is one of them that was taken up.
Whoever carries a connection holds its account, and closes it once, with the error that ended it or without.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from ztunnel.errors import ConnectionFailed, Denied, Flag, HandedOver
from ztunnel.model.address import Endpoint
from ztunnel.model.connection import Direction
from ztunnel.telemetry.access_log import (
    EarlyDenial,
    Record,
    render_early_denial,
    render_opened,
    render_record,
    render_record_json,
)
from ztunnel.telemetry.gathering import Gathering
from ztunnel.telemetry.journey import Journey
from ztunnel.telemetry.level import Level
from ztunnel.telemetry.metrics import Counted, Live, TcpMetrics
from ztunnel.telemetry.trial import Trials, Tried
from ztunnel.telemetry.tunnel_span import Ended, TunnelSpans

# An enum's members are slow to look up.
_DEBUG: Final = Level.DEBUG
_INFO: Final = Level.INFO
_ERROR: Final = Level.ERROR
_NO_FLAG: Final = Flag.NONE


_NO_POLICY: Final = "other"
"""In the figures, where what refused was no policy: an identity that has changed, TLS that is due by now."""


class Account:
    """A connection that was taken up and has not ended. `counts` grow while it lives; `retries` is how often
    it was tried again, `traceparent` the context of a tunnel of which there is to be a span, or empty."""

    __slots__ = ("counts", "journey", "live", "retries", "source", "started", "traceparent")

    def __init__(self, journey: Journey, source: Endpoint, live: Live, started: float) -> None:
        self.journey = journey
        self.source = source
        self.counts = live.counts
        self.live: Live | None = live
        self.started = started
        self.retries = 0
        self.traceparent = ""


class Report:
    """Where connections are reported to. Cheap: a look-up at the opening, a line of text at the end."""

    def __init__(  # noqa: PLR0913 (a type of its own for the four that concern the log would be used once)
        self,
        metrics: TcpMetrics,
        write: Callable[[str], None] | None,
        clock: Callable[[], float],
        now_ns: Callable[[], int],
        as_json: bool = False,
        wants: Callable[[Level], bool] = lambda level: level >= Level.INFO,
    ) -> None:
        """
        Args:
            write: takes one line without its end; None for no access log.
            clock: gives monotonic seconds.
            now_ns: gives nanoseconds since the epoch.
            wants: whether lines of that level are written now; asked before one is made.
        """
        self._metrics = metrics
        self._write = write
        self._clock = clock
        self._now_ns = now_ns
        self._json = as_json
        self._wants = wants
        self.trials: Trials | None = None
        """Where connections are reported that a policy under trial has something to say about."""
        self.spans: TunnelSpans | None = None
        """Where tunnels are reported of which there are to be spans; None: nobody makes any."""
        self._gathering = Gathering()

    def flush(self) -> None:
        """Write what is held of failures that came too often. To be called about once a second."""
        self._gathering.flush(self._clock())

    def open(self, journey: Journey, source: Endpoint, counts: Counted) -> Account:
        """A connection from `source` was taken up."""
        live = self._metrics.opened(journey.labels, counts)
        if self._write is not None and self._wants(_DEBUG):
            self._write(render_opened(Record(self._now_ns(), source, journey), self._json))
        return Account(journey, source, live, self._clock())

    def try_out(self, tried: Sequence[Tried], journey: Journey, source: Endpoint) -> None:
        """Policies under trial were asked about a connection from `source` that was admitted."""
        if tried and self.trials is not None:
            self.trials.count(tried, journey, source)

    def reroute(self, account: Account, journey: Journey) -> None:
        """It goes another way than it was opened for. Where its labels are others then, it counts as closed
        under those that it had and as opened under the new ones; the log has one line for it, at its end."""
        live = account.live
        if live is None:
            return
        account.journey = journey
        if journey.labels != live.labels:
            self._metrics.closed(live)
            account.live = self._metrics.opened(journey.labels, account.counts)

    def close(self, account: Account, error: ConnectionFailed | None = None) -> None:
        """It has ended; a second call changes nothing."""
        live, account.live = account.live, None
        if live is None:
            return
        self._metrics.closed(live, error.flag if error else _NO_FLAG)
        if isinstance(error, HandedOver):  # the successor writes its line
            return
        if error is not None:
            self._count_denial(account.journey, error)
        if account.traceparent and self.spans is not None:
            self._trace(account, self.spans, error)
        if self._write is not None and self._wants(_ERROR if error else _INFO):
            seconds, counts = self._clock() - account.started, account.counts
            ended = Record(self._now_ns(), account.source, account.journey, counts.up, counts.down, seconds)
            ended.retries = account.retries
            if error is None:
                self._line(ended)
            else:
                self._failed(ended, error)

    def _trace(self, account: Account, spans: TunnelSpans, error: ConnectionFailed | None) -> None:
        ended_ns = self._now_ns()
        began_ns = ended_ns - int((self._clock() - account.started) * 1e9)
        flag, why = (error.flag.value, str(error)) if error else (Flag.NONE.value, "")
        told = account.traceparent, account.journey, account.source, account.counts
        spans.ended(Ended(*told, began_ns, ended_ns, flag, why))

    def refuse(self, journey: Journey, source: Endpoint, error: ConnectionFailed) -> None:
        """A connection from `source` ended before it carried anything."""
        if isinstance(error, HandedOver):
            return
        self._metrics.failed(journey.labels.flagged(error.flag))
        self._count_denial(journey, error)
        if self._write is not None and self._wants(_ERROR):
            self._failed(Record(self._now_ns(), source, journey), error)

    def deny_early(self, direction: Direction, source: Endpoint, destination: Endpoint, error: str) -> None:
        """A connection was refused before it was known whose it is: a line of its own, no metric."""
        if self._write is not None and self._wants(Level.WARN):
            denial = EarlyDenial(self._now_ns(), direction, source, destination, error)
            cause = direction, source.ip, error.partition(":")[0]
            self._gathering.write(cause, partial(self._early_line, denial), self._clock())

    def _failed(self, record: Record, error: ConnectionFailed) -> None:
        """A line of a failure; of those that come too often, one for many."""
        policy = error.policy if isinstance(error, Denied) else ""
        cause = record.journey.reporter, record.source.ip, type(error), policy
        record.error = str(error)
        self._gathering.write(cause, partial(self._failed_line, record), self._clock())

    def _failed_line(self, record: Record, count: int) -> None:
        record.gathered = count
        self._line(record)

    def _early_line(self, denial: EarlyDenial, count: int) -> None:
        if self._write is not None:
            self._write(render_early_denial(denial, self._json, count))

    def _count_denial(self, journey: Journey, error: ConnectionFailed) -> None:
        if isinstance(error, Denied):
            self._metrics.denied(journey.reporter, error.policy or _NO_POLICY)

    def _line(self, record: Record) -> None:
        assert self._write is not None
        self._write(render_record_json(record) if self._json else render_record(record))
