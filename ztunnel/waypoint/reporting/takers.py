"""What takes the records of requests: lines of a log, and log records for a collector."""

from __future__ import annotations

import json
from collections.abc import Callable

from ztunnel.l7.trace import Context
from ztunnel.model.provider import LogFormat
from ztunnel.telemetry.log_format import parse_format, parse_plain
from ztunnel.telemetry.request_log import RequestRecord, render_request
from ztunnel.waypoint.reporting.otlp import LogEntry

Take = Callable[[RequestRecord, Context | None], None]


def lines_to(write: Callable[[str], None], render: Callable[[RequestRecord], str]) -> Take:
    """Takes records as lines."""
    return lambda record, context: write(render(record))


def render_of(wanted: LogFormat, omit_empty: bool) -> Callable[[RequestRecord], str]:
    """What makes a line in a provider's format. Raises ValueError: it is none."""
    if wanted.labels:
        return parse_format(json.dumps(dict(wanted.labels)), omit_empty)
    if wanted.text:
        return parse_format(wanted.text, omit_empty)
    return render_request


def records_to(put: Callable[[LogEntry], None], wanted: LogFormat) -> Take:
    """Takes records as log records of OpenTelemetry. Raises ValueError: it is no format."""
    body = parse_format(wanted.text) if wanted.text else render_request
    attributes = [(name, parse_plain(text)) for name, text in wanted.labels]

    def take(record: RequestRecord, context: Context | None) -> None:
        ids = (context.trace_id, context.span_id) if context is not None else ("", "")
        said = tuple((name, value(record)) for name, value in attributes)
        put(LogEntry(record.time_ns, body(record), said, *ids))

    return take
