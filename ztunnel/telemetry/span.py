"""Spans of requests, as OTLP has them in JSON (opentelemetry-proto trace/v1; OTLP/HTTP, JSON encoding)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

_SERVER, _ERROR = 2, 2
_LONGEST = 256
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


def render_spans(spans: Iterable[Span], resource: Mapping[str, str], version: str) -> bytes:
    """An ExportTraceServiceRequest; `resource` says who reports."""
    scope = {"scope": {"name": "ztunnel", "version": version}, "spans": [_entry(each) for each in spans]}
    whose = {"attributes": [_attribute(name, value) for name, value in resource.items() if value]}
    request = {"resourceSpans": [{"resource": whose, "scopeSpans": [scope]}]}
    return json.dumps(request, separators=(",", ":")).encode()


def _entry(span: Span) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "traceId": span.trace_id,
        "spanId": span.span_id,
        "name": span.name[:_LONGEST],
        "kind": _SERVER,
        "startTimeUnixNano": str(span.start_ns),
        "endTimeUnixNano": str(span.end_ns),
        "attributes": [_attribute(name, value) for name, value in span.attributes if value != ""],
    }
    if span.parent_id:
        entry["parentSpanId"] = span.parent_id
    if span.is_error:
        entry["status"] = {"code": _ERROR}
    return entry


def _attribute(name: str, value: str | int) -> dict[str, Any]:
    if isinstance(value, int):
        return {"key": name, "value": {"intValue": str(value)}}
    return {"key": name, "value": {"stringValue": value[:_LONGEST]}}
