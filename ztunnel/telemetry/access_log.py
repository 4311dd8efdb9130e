"""The access log: one line for each connection that ended, in the exact form of Istio's ztunnel.

Source: ztunnel src/proxy/metrics.rs (`ConnectionResult`, `log_early_deny`). Unlike the metrics, the log
counts from the side that writes it: `bytes_sent` of an outbound line is what the client sent, of an inbound
line what it got.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple

from ztunnel.model.address import Endpoint
from ztunnel.model.connection import Direction
from ztunnel.model.identity import SpiffeId
from ztunnel.model.workload import Workload
from ztunnel.telemetry.level import Level
from ztunnel.telemetry.line import Bare, Field, bare, quote, render_json, render_text, text_head, timestamp

SCOPE = "access"


class Party(NamedTuple):
    """One end of a connection, as far as it is known; what is empty is left out of the line."""

    address: Endpoint
    workload: str = ""
    namespace: str = ""
    identity: SpiffeId | None = None
    cluster: str = ""


def party(address: Endpoint, workload: Workload | None, identity: SpiffeId | None = None) -> Party:
    """An end that may be a workload: by the pod's name, or its canonical service where it has none.

    `identity` is what mutual TLS proved; give None where there was no TLS, as Istio's log does.
    """
    if workload is None:
        return Party(address, identity=identity)
    name = workload.name or workload.canonical_name
    return Party(address, name, workload.namespace, identity, workload.cluster)


class Record(NamedTuple):
    """One connection that ended. `destination.address` is where we connected to, or the peer did.

    `hbone_address` is the target inside the tunnel (`ip:port` or `hostname:port`), `service` the hostname of
    the service that was called; both empty where there was none. `error` is empty on success. `up_bytes` went
    from the client, `down_bytes` towards it. `time` is aware and in UTC.
    """

    time: datetime
    direction: Direction
    source: Party
    destination: Party
    hbone_address: str = ""
    service: str = ""
    up_bytes: int = 0
    down_bytes: int = 0
    duration_seconds: float = 0.0
    error: str = ""

    @property
    def level(self) -> Level:
        """ERROR for a connection that failed."""
        return Level.ERROR if self.error else Level.INFO


def render_record(record: Record) -> str:
    """The line of an ended connection, without its end."""
    # Written out, because this runs once per connection: three times as fast as going through `_ends`.
    source, destination = record.source, record.destination
    from_ = _party_text("src", source.workload, source.namespace, source.identity, source.cluster)
    to = _party_text(
        "dst", destination.workload, destination.namespace, destination.identity, destination.cluster
    )
    hbone = f" dst.hbone_addr={bare(record.hbone_address)}" if record.hbone_address else ""
    service = f" dst.service={quote(record.service)}" if record.service else ""
    sent, received = _from_here(record)
    level = "error" if record.error else "info"
    error = f" error={quote(record.error)}" if record.error else ""
    return (
        f"{timestamp(record.time)}\t{level}\taccess\tconnection complete\tsrc.addr={source.address}{from_} "
        f"dst.addr={destination.address}{hbone}{service}{to} "
        f'direction="{record.direction}" bytes_sent={sent} bytes_recv={received} '
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
    return render_json(timestamp(record.time), record.level, SCOPE, "connection complete", fields)


def render_opened(record: Record, as_json: bool = False) -> str:
    """A connection was taken up, a message of level DEBUG; counters, duration and error do not count yet."""
    return _render(record.time, Level.DEBUG, "connection opened", list(_ends(record)), as_json)


@dataclass(frozen=True, slots=True)
class EarlyDenial:
    """A connection that was refused before it was known who it is: a message of level WARN."""

    time: datetime
    direction: Direction
    source: Endpoint
    destination: Endpoint
    error: str


def render_early_denial(denial: EarlyDenial, as_json: bool = False) -> str:
    """Its line, without the end."""
    fields: list[Field] = [
        ("src.addr", Bare(denial.source)),
        ("dst.addr", Bare(denial.destination)),
        ("direction", denial.direction.value),
        ("error", denial.error),
    ]
    return _render(denial.time, Level.WARN, "connection failed", fields, as_json)


def _render(time: datetime, level: Level, message: str, fields: list[Field], as_json: bool) -> str:
    if as_json:
        return render_json(timestamp(time), level, SCOPE, message, fields)
    return render_text(text_head(timestamp(time), level, SCOPE), message, fields)


def _from_here(record: Record) -> tuple[int, int]:
    if record.direction is Direction.OUTBOUND:
        return record.up_bytes, record.down_bytes
    return record.down_bytes, record.up_bytes


@lru_cache(4096)
def _party_text(side: str, workload: str, namespace: str, identity: SpiffeId | None, cluster: str) -> str:
    """What a line says of one end, with a space before it; remembered, because pods come again."""
    parts = [""]
    if workload:
        parts.append(f"{side}.workload={quote(workload)}")
    if namespace:
        parts.append(f"{side}.namespace={quote(namespace)}")
    if identity:
        parts.append(f"{side}.identity={quote(str(identity))}")
    if cluster:
        parts.append(f"{side}.cluster={quote(cluster)}")
    return " ".join(parts)


def _ends(record: Record) -> Iterator[Field]:
    yield "src.addr", Bare(record.source.address)
    yield from _party_fields("src", record.source)
    yield "dst.addr", Bare(record.destination.address)
    if record.hbone_address:
        yield "dst.hbone_addr", Bare(record.hbone_address)
    if record.service:
        yield "dst.service", record.service
    yield from _party_fields("dst", record.destination)
    yield "direction", record.direction.value


def _party_fields(side: str, end: Party) -> Iterator[Field]:
    if end.workload:
        yield f"{side}.workload", end.workload
    if end.namespace:
        yield f"{side}.namespace", end.namespace
    if end.identity:
        yield f"{side}.identity", str(end.identity)
    if end.cluster:
        yield f"{side}.cluster", end.cluster
