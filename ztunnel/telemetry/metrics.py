"""Istio's TCP metrics over plain ints: a connection costs two dictionary look-ups, a byte nothing.

How ztunnel counts, and so do we (ztunnel src/proxy/metrics.rs): a connection is counted as opened when it is
taken up, with `response_flags="-"`, and as closed when it ends, however it ends, with the flag of its end.
One that ends with a flag other than `-` is counted as failed as well. So `sum(opened) - sum(closed)` is what
lives. Bytes stand under the labels of the opening, whatever the end. `sent` are the bytes towards the client
and `received` those of the request, for both reporters (istio/istio#32399).

Bytes are read from the connection's own counters when somebody scrapes: what ended was added up, what lives
is looked at. A series whose figures have not moved for an hour and that has no live connection is dropped at
a scrape; should it come back, it starts at zero, which Prometheus takes for a restart. Beyond `series_limit`
label sets, everything new goes to the series whose workloads are all `unknown`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import Final, NamedTuple, Protocol

from prometheus_client.utils import floatToGoString

from ztunnel.errors import Flag
from ztunnel.telemetry.exposition import counter_head, label_text
from ztunnel.telemetry.figures import Figures, Tally
from ztunnel.telemetry.labels import Reporter, TcpLabels


class Counted(Protocol):
    """The live byte counters of one connection: `up` from the opener, `down` towards it. They only grow."""

    @property
    def up(self) -> int: ...

    @property
    def down(self) -> int: ...


class Measured:
    """Counters of a connection that the kernel carries: they are told from time to time what it has counted.

    A report that comes late, after a newer one, changes nothing. So the last poll and the record of the end
    may come in any order, and nothing counts twice.
    """

    __slots__ = ("down", "up")

    def __init__(self) -> None:
        self.up = 0
        self.down = 0

    def measure(self, up: int, down: int) -> None:
        """What the kernel has counted since the connection's start, in bytes."""
        self.up = max(self.up, up)
        self.down = max(self.down, down)


_RECENT: Final = 1024


class Row(NamedTuple):
    """The figures of one label set; `text` is the set as the exposition formats write it."""

    labels: TcpLabels
    text: str
    opened: int
    closed: int
    failed: int
    received_bytes: int
    sent_bytes: int


class _Series:
    __slots__ = ("closed", "failed", "labels", "last", "lives", "opened", "received", "sent", "since", "text")

    def __init__(self, labels: TcpLabels) -> None:
        self.labels = labels
        self.text = label_text(TcpLabels._fields, labels)
        self.opened = self.closed = self.failed = self.received = self.sent = 0
        self.lives: set[Live] = set()
        self.last: Row | None = None
        self.since = 0.0

    def row(self) -> Row:
        received, sent = self.received, self.sent
        for live in self.lives:
            received += live.counts.up
            sent += live.counts.down
        return Row(self.labels, self.text, self.opened, self.closed, self.failed, received, sent)


class Live:
    """A connection that is open, as the metrics hold it. `labels` are those under which it was opened."""

    __slots__ = ("_series", "counts")

    def __init__(self, series: _Series, counts: Counted) -> None:
        self._series = series
        self.counts = counts

    @property
    def labels(self) -> TcpLabels:
        """The label set that it counts under; that of the overflow series if there were too many."""
        return self._series.labels


class TcpMetrics:
    """All series of one process. Used from the one thread that runs Trio; `rows` included."""

    def __init__(self, series_limit: int = 20_000, idle_seconds: float = 3600.0) -> None:
        self._limit = series_limit
        self._idle_seconds = idle_seconds
        self._series: dict[TcpLabels, _Series] = {}
        # By the very object that a journey's labels are: to look those up by what they say is a hash of each.
        self._recent: dict[int, tuple[TcpLabels, _Series]] = {}
        self._denials = Tally(2)
        self._cut = 0

    def opened(self, labels: TcpLabels, counts: Counted) -> Live:
        """A connection was taken up; `labels` carry no flag yet. Its bytes count from now on."""
        recent = self._recent.get(id(labels))
        series = recent[1] if recent is not None else self._found(labels)
        series.opened += 1
        live = Live(series, counts)
        series.lives.add(live)
        return live

    def closed(self, live: Live, flag: Flag = Flag.NONE) -> None:
        """It has ended: its counters are read for the last time. A second call changes nothing."""
        series = live._series
        if live not in series.lives:
            return
        series.lives.remove(live)
        series.received += live.counts.up
        series.sent += live.counts.down
        if flag is Flag.NONE:
            series.closed += 1
        else:
            self._ended_with(series.labels.flagged(flag))

    def failed(self, labels: TcpLabels) -> None:
        """A connection ended before it carried anything; `labels` carry the flag. Counts it as opened too."""
        opening = labels.flagged(Flag.NONE)
        series = self._series.get(opening) or self._new(opening)
        series.opened += 1
        self._ended_with(labels)

    def denied(self, reporter: Reporter, policy: str) -> None:
        """A connection was refused; `policy` is the key of the one that did, "none allowed" where ALLOW
        policies exist and none matched, at most 1,000 different ones."""
        self._denials.add(reporter.value, policy)

    def register(self, figures: Figures) -> None:
        """Bring what is not by `TcpLabels` to the register."""
        figures.counter(
            "ztunnel_policy_denials_total",
            "Connections that a policy refused.",
            self._denials.samples,
            ["reporter", "policy"],
        )
        figures.counter(
            "ztunnel_metrics_series_cut_total",
            "Events counted under unknown labels because there were too many label sets.",
            lambda: self._cut + self._denials.cut,
        )

    def rows(self, now: float) -> Iterator[Row]:
        """Every series, each consistent in itself at the moment when it is given; drops the idle ones.

        The caller may let other tasks run between two rows, on the same thread.

        Args:
            now: monotonic seconds.
        """
        for series in list(self._series.values()):
            row = series.row()
            if series.lives or row != series.last:
                series.last, series.since = row, now
            elif now - series.since >= self._idle_seconds:
                self._series.pop(series.labels, None)
                self._recent.clear()
                continue
            yield row

    def _found(self, labels: TcpLabels) -> _Series:
        series = self._series.get(labels)
        if series is None:
            return self._new(labels)
        if len(self._recent) >= _RECENT:
            self._recent.clear()
        self._recent[id(labels)] = labels, series  # while it is here, no other object has its id
        return series

    def _ended_with(self, labels: TcpLabels) -> None:
        series = self._series.get(labels) or self._new(labels)
        series.closed += 1
        if labels.response_flags != Flag.NONE.value:
            series.failed += 1

    def _new(self, labels: TcpLabels) -> _Series:
        if len(self._series) >= self._limit:
            self._cut += 1
            labels = TcpLabels(
                labels.reporter,
                response_flags=labels.response_flags,
                connection_security_policy=labels.connection_security_policy,
            )
        series = self._series.get(labels)
        if series is None:
            series = self._series[labels] = _Series(labels)
        return series


class _Column(NamedTuple):
    name: str
    help: str
    read: Callable[[Row], int]
    shown: Callable[[Row], int]


_OPENED, _CLOSED, _FAILED = attrgetter("opened"), attrgetter("closed"), attrgetter("failed")
_COLUMNS: Final = (
    _Column(
        "istio_tcp_connections_opened_total", "The total number of TCP connections opened", _OPENED, _OPENED
    ),
    _Column(
        "istio_tcp_connections_closed_total", "The total number of TCP connections closed", _CLOSED, _CLOSED
    ),
    _Column(
        "istio_tcp_connections_failed_total",
        "The total number of TCP connections that ended with a response flag",
        _FAILED,
        _FAILED,
    ),
    _Column(
        "istio_tcp_received_bytes_total",
        "The size of total bytes received during request in case of a TCP connection",
        attrgetter("received_bytes"),
        _OPENED,
    ),
    _Column(
        "istio_tcp_sent_bytes_total",
        "The size of total bytes sent during response in case of a TCP connection",
        attrgetter("sent_bytes"),
        _OPENED,
    ),
)


def render_rows(rows: Sequence[Row], open_metrics: bool) -> Iterator[str]:
    """The five families as text, in pieces; a family lists the label sets under which it ever counted."""
    for column in _COLUMNS:
        name, read = column.name, column.read
        shown = [row for row in rows if column.shown(row)]
        if shown:
            yield counter_head(name, column.help, open_metrics)
        for start in range(0, len(shown), 64):
            part = shown[start : start + 64]
            yield "".join([f"{name}{row.text} {floatToGoString(read(row))}\n" for row in part])
