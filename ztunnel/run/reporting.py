"""What the process says: its log, its figures, whether it is ready; and the place where its bugs end.

The boundary is the one place, beside the engine's, where an error that nobody expected is caught: it ends the
connection that it concerns, is logged with its stack and counted. Five in ten seconds make the node not
ready.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final

import trio
from prometheus_client.metrics import disable_created_metrics

from ztunnel import __version__
from ztunnel.config import Settings
from ztunnel.errors import ConfigError, Fault
from ztunnel.flow.rate import Bucket, Rate
from ztunnel.telemetry.component import register_build
from ztunnel.telemetry.export import AccessLog, LineWriter, Log
from ztunnel.telemetry.figures import Figures
from ztunnel.telemetry.level import Levels
from ztunnel.telemetry.metrics import TcpMetrics
from ztunnel.telemetry.readiness import Readiness
from ztunnel.telemetry.repairs import Repairs

STATE = "state manager"
"""What a node waits for first, by the name that Istio's ztunnel shows."""


_BUG_LINES: Final = Rate(100, 10, 0)
"""Lines about them: a hundred at once, then ten a second."""


def now() -> datetime:
    """The wall clock, aware."""
    return datetime.now(UTC)


class Reporting:
    """What the process says: its log, its figures, whether it is ready; and where its bugs end."""

    def __init__(
        self, settings: Settings, component: str = "ztunnel", pending: Iterable[str] = (STATE,)
    ) -> None:
        """`pending` is what the process waits for first; `sender` is to be run where there is one: it sends
        spans. Raises ConfigError for log levels that cannot be
        set."""
        self.writer = LineWriter(1)
        try:
            self.levels = Levels(settings.log_level)
        except ValueError as error:
            raise ConfigError(Fault("settings", 0, "log_level", str(error))) from error
        self.log = Log(self.writer, self.levels, time.time_ns, settings.log_format == "json")
        self.access_log = AccessLog(self.writer, self.levels)
        disable_created_metrics()  # when a counter began is not shown: the process' start time says it
        self.figures = Figures()
        self.metrics = TcpMetrics(settings.metrics_series_limit)
        self.readiness = Readiness(pending)
        self._bugs: Bucket | None = None
        self.sender: Callable[[], Awaitable[None]] | None = None
        register_build(self.figures, __version__, component)
        self.metrics.register(self.figures)
        self.access_log.register(self.figures)
        self.repairs = Repairs(self.figures, self.log.scoped("repairs").warn, time.monotonic)
        self.figures.counter(
            "ztunnel_internal_errors_total",
            "Errors that nobody expected; each ended one connection",
            lambda: self.readiness.internal_errors,
        )

    def bug(self, error: BaseException) -> None:
        """Something happened that nobody expected, and ended what it concerned. One that comes again and
        again is counted, and fills no log."""
        now = trio.current_time()
        self.readiness.internal_error(now)  # the clock of the readiness page
        if self._bugs is None:
            self._bugs = Bucket(_BUG_LINES, now)
        if self._bugs.level(now) >= 1:
            self._bugs.take(1, now)
            self.log.bug(error)

    async def contain(self, part: Callable[[], Awaitable[None]]) -> None:
        """Run one connection's part; a bug ends it and nothing else."""
        with self.boundary():
            await part()

    @contextmanager
    def boundary(self) -> Iterator[None]:
        """Errors that nobody expected end here."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - the boundary
            self.bug(error)

    @contextmanager
    def forward_logging(self) -> Iterator[None]:
        """What our modules say through `logging` goes to our log in this block, in our form."""
        ours, handler = logging.getLogger("ztunnel"), _Forwarder(self.log)
        ours.addHandler(handler)
        try:
            yield
        finally:
            ours.removeHandler(handler)


class _Forwarder(logging.Handler):
    """Brings warnings and errors of `logging` to our log; the scope is the module's package."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """One line for each record."""
        scope = record.name.removeprefix("ztunnel.").partition(".")[0]
        log = self._log.scoped(scope)
        (log.error if record.levelno >= logging.ERROR else log.warn)(record.getMessage())
