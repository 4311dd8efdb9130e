"""The access log: one line for each connection that ended, in the exact form of Istio's ztunnel.

Source: ztunnel src/proxy/metrics.rs (`ConnectionResult`, `log_early_deny`). Unlike the metrics, the log
counts from the side that writes it: `bytes_sent` of an outbound line is what the client sent, of an inbound
line what it got.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ztunnel.model.address import Endpoint
from ztunnel.model.connection import Direction
from ztunnel.telemetry.bare import Bare
from ztunnel.telemetry.journey import Journey
from ztunnel.telemetry.labels import Reporter
from ztunnel.telemetry.level import Level
from ztunnel.telemetry.line import Field, quote, render_json, render_text, text_head, timestamp

SCOPE: Final = "access"


class Record:
    """One connection that ended, and the address that it came from.

    `error` is empty on success; `gathered` is more than 1 where the line stands for others of its cause (see
    `gathering`), `retries` how often it was tried again. `up_bytes` went from the client, `down_bytes`
    towards it. `time_ns` is nanoseconds since the epoch.
    """

    __slots__ = (
        "down_bytes",
        "duration_seconds",
        "error",
        "gathered",
        "journey",
        "retries",
        "source",
        "time_ns",
        "up_bytes",
    )

    def __init__(  # noqa: PLR0913 (what a line says)
        self,
        time_ns: int,
        source: Endpoint,
        journey: Journey,
        up_bytes: int = 0,
        down_bytes: int = 0,
        duration_seconds: float = 0.0,
        error: str = "",
        gathered: int = 1,
        retries: int = 0,
    ) -> None:
        self.time_ns = time_ns
        self.source = source
        self.journey = journey
        self.up_bytes = up_bytes
        self.down_bytes = down_bytes
        self.duration_seconds = duration_seconds
        self.error = error
        self.gathered = gathered
        self.retries = retries

    @property
    def level(self) -> Level:
        """ERROR for a connection that failed."""
        return Level.ERROR if self.error else Level.INFO


def render_record(record: Record) -> str:
    """The line of an ended connection, without its end."""
    # Written out, because this runs once per connection; what its journey says of it is rendered already.
    sent, received = _from_here(record)
    level = "error" if record.error else "info"
    error = f" error={quote(record.error)}" if record.error else ""
    if record.retries:
        error += f" retries={record.retries}"
    if record.gathered > 1:
        error += f" count={record.gathered}"
    return (
        f"{timestamp(record.time_ns)}\t{level}\taccess\tconnection complete\tsrc.addr={record.source}"
        f"{record.journey.text} bytes_sent={sent} bytes_recv={received} "
        f'duration="{int(record.duration_seconds * 1000)}ms"{error}'
    )


def render_record_json(record: Record) -> str:
    """The same as a JSON object."""
    sent, received = _from_here(record)
    fields: list[Field] = [
        *_ends(record),
        ("bytes_sent", sent),
        ("bytes_recv", received),
        ("duration", f"{int(record.duration_seconds * 1000)}ms"),
    ]
    if record.error:
        fields.append(("error", record.error))
    if record.retries:
        fields.append(("retries", record.retries))
    if record.gathered > 1:
        fields.append(("count", record.gathered))
    return render_json(timestamp(record.time_ns), record.level, SCOPE, "connection complete", fields)


def render_opened(record: Record, as_json: bool = False) -> str:
    """A connection was taken up, a message of level DEBUG; counters, duration and error do not count yet."""
    return _render(record.time_ns, Level.DEBUG, "connection opened", list(_ends(record)), as_json)


@dataclass(frozen=True, slots=True)
class EarlyDenial:
    """A connection that was refused before it was known who it is: a message of level WARN."""

    time_ns: int
    direction: Direction
    source: Endpoint
    destination: Endpoint
    error: str


def render_early_denial(denial: EarlyDenial, as_json: bool = False, count: int = 1) -> str:
    """Its line, without the end; it may stand for `count` of its cause."""
    fields: list[Field] = [
        ("src.addr", Bare(denial.source)),
        ("dst.addr", Bare(denial.destination)),
        ("direction", denial.direction.value),
        ("error", denial.error),
    ]
    if count > 1:
        fields.append(("count", count))
    return _render(denial.time_ns, Level.WARN, "connection failed", fields, as_json)


def _render(time_ns: int, level: Level, message: str, fields: list[Field], as_json: bool) -> str:
    if as_json:
        return render_json(timestamp(time_ns), level, SCOPE, message, fields)
    return render_text(text_head(timestamp(time_ns), level, SCOPE), message, fields)


def _from_here(record: Record) -> tuple[int, int]:
    if record.journey.reporter is Reporter.SOURCE:
        return record.up_bytes, record.down_bytes
    return record.down_bytes, record.up_bytes


def _ends(record: Record) -> Iterator[Field]:
    yield "src.addr", Bare(record.source)
    yield from record.journey.source_fields()
    yield from record.journey.destination_fields()
