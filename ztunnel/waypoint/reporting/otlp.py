"""Spans and log records as messages of OTLP (opentelemetry-proto collector/trace/v1, collector/logs/v1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from ztunnel.errors import PeerError
from ztunnel.telemetry.span import ERROR, LONGEST, Attribute, Span
from ztunnel.xds.pb import otlp_pb2 as pb

TRACES = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
LOGS = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
"""Methods of gRPC."""


class LogEntry(NamedTuple):
    """A line of a log. Ids are in hexadecimal, empty for none; `time_ns` is since the epoch."""

    time_ns: int
    body: str
    attributes: tuple[Attribute, ...] = ()
    trace_id: str = ""
    span_id: str = ""


def encode_spans(
    spans: Iterable[Span], resource: Mapping[str, str], version: str, longest: int = LONGEST
) -> bytes:
    """An ExportTraceServiceRequest; `resource` says who reports, `longest` is how long texts of spans may
    be."""
    made = pb.ExportTraceServiceRequest()
    whose = made.resource_spans.add()
    _put(whose.resource.attributes, resource.items(), LONGEST)
    within = whose.scope_spans.add()
    within.scope.name, within.scope.version = "ztunnel", version
    for span in spans:
        one = within.spans.add(
            trace_id=_octets(span.trace_id, 16),
            span_id=_octets(span.span_id, 8),
            parent_span_id=_octets(span.parent_id, 8),
            name=_text(span.name, longest),
            kind=span.kind,
            start_time_unix_nano=span.start_ns,
            end_time_unix_nano=span.end_ns,
        )
        if span.is_error:
            one.status.code = ERROR
        _put(one.attributes, span.attributes, longest)
    return made.SerializeToString()


def encode_logs(entries: Iterable[LogEntry], resource: Mapping[str, str], version: str, name: str) -> bytes:
    """An ExportLogsServiceRequest; `name` is that of the log."""
    made = pb.ExportLogsServiceRequest()
    whose = made.resource_logs.add()
    _put(whose.resource.attributes, [*resource.items(), ("log_name", name)], LONGEST)
    within = whose.scope_logs.add()
    within.scope.name, within.scope.version = "ztunnel", version
    for entry in entries:
        one = within.log_records.add(
            time_unix_nano=entry.time_ns,
            observed_time_unix_nano=entry.time_ns,
            trace_id=_octets(entry.trace_id, 16),
            span_id=_octets(entry.span_id, 8),
        )
        one.body.string_value = _text(entry.body, 16 * LONGEST)
        _put(one.attributes, entry.attributes, 16 * LONGEST)
    return made.SerializeToString()


def refused(answer: bytes) -> tuple[int, str]:
    """How many of what was sent a collector did not take, and why, by its answer to either.

    Raises:
        PeerError: the answer is none.
    """
    found = pb.ExportTraceServiceResponse()
    try:
        found.ParseFromString(answer)
    except DecodeError as error:
        raise PeerError("no answer of a collector") from error
    return max(0, found.partial_success.rejected), found.partial_success.error_message[:200]


def _put(to: Any, pairs: Iterable[tuple[str, str | int]], longest: int) -> None:
    for name, value in pairs:
        if value == "":
            continue
        one = to.add(key=_text(name, LONGEST))
        if isinstance(value, int):
            one.value.int_value = value
        else:
            one.value.string_value = _text(value, longest)


def _text(text: str, longest: int) -> str:
    """Without lone surrogates, which no message may have."""
    return text[:longest].encode("utf-8", "replace").decode()


def _octets(digits: str, length: int) -> bytes:
    return bytes.fromhex(digits).rjust(length, b"\0") if digits else b""
