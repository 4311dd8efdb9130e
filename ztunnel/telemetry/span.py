"""Spans of requests, as OTLP has them in JSON (opentelemetry-proto trace/v1; OTLP/HTTP, JSON encoding)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

INTERNAL, SERVER, CLIENT = 1, 2, 3
"""Kinds of spans (OTLP's SpanKind)."""
ERROR = 2
"""The code of the status of one that failed (OTLP's StatusCode)."""
LONGEST = 256
"""Of a text: Istio's max_path_tag_length, for all of them."""

Attribute = tuple[str, "str | int"]


class Span(NamedTuple):
    """One of them. Ids are in hexadecimal, `parent_id` is empty for none; times are nanoseconds since the
    epoch."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    start_ns: int
    end_ns: int
    attributes: tuple[Attribute, ...] = ()
    is_error: bool = False
    kind: int = SERVER


def render_spans(
    spans: Iterable[Span], resource: Mapping[str, str], version: str, longest: int = LONGEST
) -> bytes:
    """An ExportTraceServiceRequest; `resource` says who reports, `longest` is how long texts of spans may
    be."""
    entries = [_entry(each, longest) for each in spans]
    scope = {"scope": {"name": "ztunnel", "version": version}, "spans": entries}
    whose = {"attributes": [_attribute(name, value, LONGEST) for name, value in resource.items() if value]}
    request = {"resourceSpans": [{"resource": whose, "scopeSpans": [scope]}]}
    return json.dumps(request, separators=(",", ":")).encode()


def _entry(span: Span, longest: int) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "traceId": span.trace_id,
        "spanId": span.span_id,
        "name": span.name[:longest],
        "kind": span.kind,
        "startTimeUnixNano": str(span.start_ns),
        "endTimeUnixNano": str(span.end_ns),
        "attributes": [_attribute(name, value, longest) for name, value in span.attributes if value != ""],
    }
    if span.parent_id:
        entry["parentSpanId"] = span.parent_id
    if span.is_error:
        entry["status"] = {"code": ERROR}
    return entry


def _attribute(name: str, value: str | int, longest: int) -> dict[str, Any]:
    if isinstance(value, int):
        return {"key": name, "value": {"intValue": str(value)}}
    return {"key": name, "value": {"stringValue": value[:longest]}}
