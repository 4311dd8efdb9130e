"""What a waypoint writes of requests, and where it sends their spans."""

from __future__ import annotations

from collections.abc import Callable

from ztunnel import __version__
from ztunnel.config import Settings
from ztunnel.errors import ConfigError, Fault
from ztunnel.model.workload import Workload
from ztunnel.run.reporting import Reporting
from ztunnel.telemetry.log_format import parse_format
from ztunnel.telemetry.request_log import RequestRecord, render_request, render_request_json
from ztunnel.waypoint.export import SpanExporter


def line_of(settings: Settings) -> Callable[[RequestRecord], str]:
    """What makes a line of the access log.

    Raises:
        ConfigError: the operator's format is none.
    """
    if not settings.access_log_format:
        return render_request_json if settings.log_format == "json" else render_request
    try:
        return parse_format(settings.access_log_format)
    except ValueError as error:
        raise ConfigError(Fault("settings", 0, "ZTUNNEL_ACCESS_LOG_FORMAT", str(error))) from error


def exporter_of(settings: Settings, reporting: Reporting, workload: Workload) -> SpanExporter | None:
    """Who sends the spans of a waypoint that is `workload`; None where no collector is named."""
    if not settings.tracing_endpoint:
        return None
    resource = {
        "service.name": f"{workload.canonical_name}.{workload.namespace}",
        "k8s.cluster.name": settings.cluster,
        "k8s.namespace.name": workload.namespace,
        "k8s.pod.name": workload.name,
    }

    def complain(why: str) -> None:
        reporting.log.warn("tracing", error=why)

    exporter = SpanExporter(settings.tracing_endpoint, resource, __version__, complain)
    figures = reporting.figures
    figures.counter("ztunnel_spans_sent_total", "Spans that the collector has taken", lambda: exporter.sent)
    figures.counter("ztunnel_spans_dropped_total", "Spans that it never got", lambda: exporter.dropped)
    return exporter
