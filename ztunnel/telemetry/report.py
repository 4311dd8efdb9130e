"""Reports connections: one account from its opening to its end, then one access-log line and the metrics.

A journey says what is known of a connection; an account is a journey that was taken up. Whoever carries a
connection holds its account, and closes it once, with the error that ended it or without.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from ztunnel.errors import ConnectionFailed, Denied, Flag
from ztunnel.model.address import Endpoint
from ztunnel.model.connection import Direction, Security
from ztunnel.model.identity import SpiffeId
from ztunnel.model.service import Service
from ztunnel.model.workload import Workload
from ztunnel.telemetry.access_log import (
    EarlyDenial,
    Record,
    party,
    render_early_denial,
    render_opened,
    render_record,
    render_record_json,
)
from ztunnel.telemetry.labels import LabelCache, Reporter, TcpLabels
from ztunnel.telemetry.level import Level
from ztunnel.telemetry.metrics import Counted, Live, TcpMetrics


class Journey(NamedTuple):
    """What is known of one connection when it is taken up. A tuple, because one is made for each connection.

    Attributes:
        destination: where we connect to or were connected to; for HBONE this is port 15008.
        source_identity, destination_identity: what mutual TLS proves, or on one node the kernel; None
            otherwise. hbone_address: the target inside the tunnel, empty without one.
    """

    reporter: Reporter
    source: Endpoint
    destination: Endpoint
    source_workload: Workload | None = None
    destination_workload: Workload | None = None
    service: Service | None = None
    source_identity: SpiffeId | None = None
    destination_identity: SpiffeId | None = None
    security: Security = Security.UNKNOWN
    hbone_address: str = ""


class Account:
    """A connection that was taken up and has not ended. `counts` grow while it lives."""

    __slots__ = ("counts", "journey", "live", "started")

    def __init__(self, journey: Journey, counts: Counted, live: Live, started: float) -> None:
        self.journey = journey
        self.counts = counts
        self.live: Live | None = live
        self.started = started


class Report:
    """Where connections are reported to. Cheap: a look-up at the opening, a line of text at the end."""

    def __init__(  # noqa: PLR0913 (a type of its own for the four that concern the log would be used once)
        self,
        metrics: TcpMetrics,
        write: Callable[[str], None] | None,
        clock: Callable[[], float],
        now: Callable[[], datetime],
        as_json: bool = False,
        wants: Callable[[Level], bool] = lambda level: level >= Level.INFO,
    ) -> None:
        """
        Args:
            write: takes one line without its end; None for no access log.
            clock: gives monotonic seconds.
            wants: whether lines of that level are written now; asked before one is made.
        """
        self._metrics = metrics
        self._write = write
        self._clock = clock
        self._now = now
        self._json = as_json
        self._wants = wants
        self._labels = LabelCache()

    def open(self, journey: Journey, counts: Counted) -> Account:
        """A connection was taken up."""
        live = self._metrics.opened(self._labels_of(journey, Flag.NONE), counts)
        if self._write is not None and self._wants(Level.DEBUG):
            self._write(render_opened(self._record(journey, None, 0.0, None), self._json))
        return Account(journey, counts, live, self._clock())

    def reroute(self, account: Account, journey: Journey) -> None:
        """It goes another way than it was opened for. Where its labels are others then, it counts as closed
        under those that it had and as opened under the new ones; the log has one line for it, at its end."""
        live = account.live
        if live is None:
            return
        account.journey = journey
        labels = self._labels_of(journey, Flag.NONE)
        if labels != live.labels:
            self._metrics.closed(live)
            account.live = self._metrics.opened(labels, account.counts)

    def close(self, account: Account, error: ConnectionFailed | None = None) -> None:
        """It has ended; a second call changes nothing."""
        live, account.live = account.live, None
        if live is None:
            return
        self._metrics.closed(live, error.flag if error else Flag.NONE)
        self._count_denial(account.journey, error)
        self._line(account.journey, account.counts, self._clock() - account.started, error)

    def refuse(self, journey: Journey, error: ConnectionFailed) -> None:
        """A connection ended before it carried anything."""
        self._metrics.failed(self._labels_of(journey, error.flag))
        self._count_denial(journey, error)
        self._line(journey, None, 0.0, error)

    def deny_early(self, direction: Direction, source: Endpoint, destination: Endpoint, error: str) -> None:
        """A connection was refused before it was known whose it is: a line of its own, no metric."""
        if self._write is not None and self._wants(Level.WARN):
            denial = EarlyDenial(self._now(), direction, source, destination, error)
            self._write(render_early_denial(denial, self._json))

    def _count_denial(self, journey: Journey, error: ConnectionFailed | None) -> None:
        if isinstance(error, Denied):
            self._metrics.denied(journey.reporter, error.policy)

    def _labels_of(self, journey: Journey, flag: Flag) -> TcpLabels:
        return self._labels.tcp_labels(
            journey.reporter,
            journey.source_workload,
            journey.destination_workload,
            journey.service,
            journey.source_identity,
            journey.destination_identity,
            journey.security,
            flag,
        )

    def _line(
        self, journey: Journey, counts: Counted | None, seconds: float, error: ConnectionFailed | None
    ) -> None:
        if self._write is None or not self._wants(Level.ERROR if error else Level.INFO):
            return
        record = self._record(journey, counts, seconds, error)
        self._write(render_record_json(record) if self._json else render_record(record))

    def _record(
        self, journey: Journey, counts: Counted | None, seconds: float, error: ConnectionFailed | None
    ) -> Record:
        tls = journey.security is Security.MUTUAL_TLS
        return Record(
            self._now(),
            journey.reporter.direction,
            party(journey.source, journey.source_workload, journey.source_identity if tls else None),
            party(
                journey.destination,
                journey.destination_workload,
                journey.destination_identity if tls else None,
            ),
            journey.hbone_address,
            journey.service.hostname if journey.service else "",
            counts.up if counts else 0,
            counts.down if counts else 0,
            seconds,
            str(error) if error else "",
        )
