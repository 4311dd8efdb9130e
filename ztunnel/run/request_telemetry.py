"""Puts together what a waypoint reports of requests: by its own settings, and by Telemetry where there is
any."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from random import Random, SystemRandom

from ztunnel import __version__
from ztunnel.config import Settings
from ztunnel.errors import ConfigError, Fault
from ztunnel.model.mesh_defaults import MeshDefaults
from ztunnel.model.provider import ExtensionProvider
from ztunnel.model.telemetry import Telemetry as Wishes
from ztunnel.model.workload import Workload
from ztunnel.run.collectors import Collectors, collector_at
from ztunnel.run.outlets import Outlets
from ztunnel.run.reporting import Reporting
from ztunnel.state.change import Change
from ztunnel.state.hold import Hold
from ztunnel.state.world import World
from ztunnel.telemetry.log_format import parse_format
from ztunnel.telemetry.request_log import RequestRecord, render_request, render_request_json
from ztunnel.telemetry.request_metrics import RequestMetrics
from ztunnel.telemetry.span import Span, render_spans
from ztunnel.waypoint.reporting.export import Exporter
from ztunnel.waypoint.reporting.report import Telemetry
from ztunnel.waypoint.reporting.scopes import Own, Scopes

_KINDS = frozenset(kind.__name__ for kind in (Wishes, ExtensionProvider, MeshDefaults))
"""Of resources that say what is reported."""


def telemetry_of(
    settings: Settings,
    reporting: Reporting,
    workload: Workload,
    hold: Hold,
    collectors: Collectors,
) -> tuple[Telemetry, Outlets]:
    """Where a waypoint that is `workload` reports to, kept as the world of the moment wants it, and what
    sends that away, by `collectors`.

    Raises:
        ConfigError: a setting makes no sense.
    """
    rng = Random(SystemRandom().getrandbits(256))  # for ids and chances, never for keys
    requests = RequestMetrics(settings.metrics_series_limit)
    reporting.figures.register(requests)
    exporter = exporter_of(settings, reporting, workload, collectors)
    outlets = Outlets(workload, reporting, collectors, exporter)
    own = Own(
        workload.uid,
        rng,
        reporting.access_log.write if settings.access_log else None,
        line_of(settings),
        exporter.put if exporter else None,
        settings.tracing_percent,
        os.environ,
    )
    scopes = Scopes(lambda: hold.world, own, outlets, outlets.complain)
    hold.subscribe(partial(_renew, scopes, workload.uid))
    return Telemetry(requests.counts, reporting.metrics, time.time_ns, scopes.of), outlets


def _renew(scopes: Scopes, uid: str, _before: World, _world: World, change: Change) -> None:
    if any(kind in _KINDS or key == uid for kind, key in change.http) or uid in change.workloads:
        scopes.renew()


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


def exporter_of(
    settings: Settings, reporting: Reporting, workload: Workload, collectors: Collectors
) -> Exporter[Span] | None:
    """Who sends the spans of a waypoint that is `workload`, by `collectors`; None where no collector is
    named."""
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

    endpoint = settings.tracing_endpoint
    return Exporter(
        endpoint,
        partial(collectors.open, collector_at(endpoint)),
        partial(render_spans, resource=resource, version=__version__),
        complain,
    )
