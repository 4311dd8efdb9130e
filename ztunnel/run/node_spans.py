"""Spans of a node proxy's tunnels, where a collector is named; imported only then, as what sends them is
large."""

from __future__ import annotations

from functools import partial
from random import Random, SystemRandom

from ztunnel import __version__
from ztunnel.config import Settings
from ztunnel.run.reporting import Reporting
from ztunnel.telemetry.span import Span, render_spans
from ztunnel.telemetry.tunnel_span import TunnelSpans
from ztunnel.waypoint.reporting.export import Exporter, open_http


def node_spans(settings: Settings, reporting: Reporting) -> TunnelSpans:
    """What makes them; `reporting.sender` sends them from then on."""
    resource = {
        "service.name": "ztunnel",
        "k8s.cluster.name": settings.cluster,
        "k8s.node.name": settings.node,
        "k8s.pod.name": settings.pod_name,
    }

    def complain(why: str) -> None:
        reporting.log.warn("tracing", error=why)

    exporter: Exporter[Span] = Exporter(
        settings.tracing_endpoint,
        partial(open_http, settings.tracing_endpoint, {"content-type": "application/json"}),
        partial(render_spans, resource=resource, version=__version__),
        complain,
    )
    figures, named = reporting.figures, ("provider",)
    sent, lost = (lambda: [(("settings",), exporter.sent)]), (lambda: [(("settings",), exporter.dropped)])
    figures.counter("ztunnel_spans_sent_total", "Spans that a collector has taken", sent, named)
    figures.counter("ztunnel_spans_dropped_total", "Spans that it never got", lost, named)
    reporting.sender = exporter.run
    rng = Random(SystemRandom().getrandbits(256))  # for ids and chances, never for keys
    return TunnelSpans(exporter.put, rng, settings.tracing_percent / 100)
