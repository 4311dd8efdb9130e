"""Works out what is reported at a waypoint, for each destination, of Telemetry, the mesh config and the
waypoint's own settings, and anew where one of them changes.

What Telemetry says nothing about is as the settings have it. A provider that is not known, or is of no use
where it is named, takes nothing, and that is told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

from ztunnel.l7.telemetry.edits import edits_of, tcp_edits_of
from ztunnel.l7.telemetry.expression import Expression
from ztunnel.l7.telemetry.merging import applicable, merge_logging, merge_metrics, merge_tracing
from ztunnel.l7.trace import W3C, Context, Rng, Spoken, enter, hide
from ztunnel.model.mesh_defaults import MESH, LogEncoding, MeshDefaults
from ztunnel.model.provider import (
    ExtensionProvider,
    FileLog,
    LogFormat,
    OtelLog,
    OtelTraces,
    Prometheus,
    ServicePort,
    Zipkin,
)
from ztunnel.model.service import Service
from ztunnel.model.telemetry import Telemetry
from ztunnel.model.workload import Workload
from ztunnel.state.world import World
from ztunnel.telemetry.log_format import parse_format
from ztunnel.telemetry.request_log import RequestRecord, render_request, render_request_json
from ztunnel.telemetry.span import Span
from ztunnel.waypoint.reporting.otlp import LogEntry
from ztunnel.waypoint.reporting.scope import Enter, Log, Scope, SpanPlan
from ztunnel.waypoint.reporting.takers import Take, lines_to, records_to, render_of
from ztunnel.waypoint.reporting.tracing import span_tags

STDOUT: Final = "/dev/stdout"
_PROMETHEUS, _ENVOY = "prometheus", "envoy"
"""Providers that every mesh has, as Istio's default mesh config."""

_ZIPKIN: Final = "defaultConfig.tracing.zipkin"
"""As which the collector stands in figures and messages that no provider names."""

_GATEWAY_NAME: Final = "gateway.networking.k8s.io/gateway-name"
_NO_DEFAULTS: Final = MeshDefaults()


class Outlets(Protocol):
    """Where what is reported goes to. What was asked for since `begin` is kept at `end`, and nothing else."""

    def begin(self) -> None:
        """Everything is asked for anew."""

    def end(self) -> None:
        """Everything was."""

    def spans(self, provider: ExtensionProvider) -> Callable[[Span], None]:
        """Takes spans for a collector."""

    def entries(self, provider: ExtensionProvider) -> Callable[[LogEntry], None]:
        """Takes log records for a collector."""

    def lines(self, path: str) -> Callable[[str], None] | None:
        """Takes lines for a file; None: it cannot be had, which was told."""


@dataclass(frozen=True, slots=True)
class Own:
    """What a waypoint's own settings say.

    Attributes:
        uid: of its workload.
        write: takes a line of the access log; None for no log.
        render: makes a line of a record.
        span: takes a span for the collector of the settings; None: they name none.
        percent: of the requests that are traced.
        environment: that of the process, for tags.
    """

    uid: str
    rng: Rng
    write: Callable[[str], None] | None = None
    render: Callable[[RequestRecord], str] = render_request
    span: Callable[[Span], None] | None = None
    percent: float = 1.0
    environment: Mapping[str, str] = field(default_factory=dict)


class Scopes:
    """Those of a waypoint."""

    def __init__(
        self, world: Callable[[], World], own: Own, outlets: Outlets, complain: Callable[[str], None]
    ) -> None:
        """`world` gives that of the moment; `complain` is told what cannot be done, once for as long as it is
        asked for."""
        self._world = world
        self._own = own
        self._outlets = outlets
        self._say = complain
        self._told: set[str] = set()
        self._before: set[str] = set()
        self._made: dict[tuple[str, ...], Scope] = {}
        self._scopes: dict[str, Scope] = {}

    def of(self, service: Service | None) -> Scope:
        """That of a service, or of pods that are called by their own addresses."""
        name = _name(service)
        scope = self._scopes.get(name)
        if scope is None:
            scope = self._scopes[name] = self._make(name)
        return scope

    def renew(self) -> None:
        """The wishes may be others now."""
        self._outlets.begin()
        self._made.clear()
        self._before, self._told = self._told, set()
        for name, scope in self._scopes.items():
            scope.become(self._make(name))
        self._before = set()
        self._outlets.end()

    def _make(self, name: str) -> Scope:
        world, own = self._world(), self._own
        workload = world.workload(own.uid)
        if workload is None:
            scope = self._plain()
            scope.logs = self._default_logs(_NO_DEFAULTS)
            return scope
        labels = world.labels.get(own.uid)
        told = dict(labels.labels).get(_GATEWAY_NAME) if labels is not None else None
        gateways = [told] if told else _names(world, own.uid)
        levels = applicable(world.telemetries.values(), workload.namespace, gateways, name)
        same = tuple([each.key for each in levels])
        made = self._made.get(same)
        if made is None:
            defaults = world.defaults.get(MESH, _NO_DEFAULTS)
            made = self._made[same] = self._of_levels(levels, defaults, workload)
        scope = Scope()
        scope.become(made)
        return scope

    def _of_levels(self, levels: tuple[Telemetry, ...], defaults: MeshDefaults, workload: Workload) -> Scope:
        """What these objects come to: the same for all destinations that they are for."""
        scope = self._plain()
        providers = merge_logging(levels, defaults.access_logging)
        if providers is None:
            scope.logs = self._default_logs(defaults)
        else:
            scope.logs = tuple(
                Log(take, Expression(condition, workload) if condition else None)
                for each, condition in sorted(providers.items())
                for take in self._takers(each, defaults)
            )
        self._set_tracing(scope, levels, defaults)
        plans = merge_metrics(levels, defaults.metrics or (_PROMETHEUS,))
        scraped = next((plan for each, plan in plans.items() if self._is_scraped(each)), None)
        scope.edits, scope.tcp = edits_of(scraped, workload), tcp_edits_of(scraped, workload)
        return scope

    def _complain(self, why: str) -> None:
        """Tell it, if that was not done already."""
        if why not in self._told:
            self._told.add(why)
            if why not in self._before:
                self._say(why)

    def _plain(self) -> Scope:
        """The spans that the settings want, where nobody else says anything."""
        own = self._own
        if own.span is None:
            return Scope()
        begin = _begins(own, own.percent, W3C)
        return Scope((), begin, SpanPlan(own.span))

    def _default_logs(self, defaults: MeshDefaults) -> tuple[Log, ...]:
        """Where no Telemetry and no default provider says anything: the mesh config's `accessLogFile`, or
        else what the settings say."""
        write = self._outlets.lines(defaults.log_file) if defaults.log_file else self._own.write
        return (Log(lines_to(write, self._default_render(defaults))),) if write is not None else ()

    def _default_render(self, defaults: MeshDefaults) -> Callable[[RequestRecord], str]:
        """`accessLogFormat` and `accessLogEncoding`, where the mesh config says them."""
        text, is_json = defaults.log_format, defaults.log_encoding is LogEncoding.JSON
        try:
            if text and is_json and not text.lstrip().startswith("{"):
                raise ValueError("accessLogEncoding is JSON, and this is no JSON object")
            if text:
                return parse_format(text)
        except ValueError as error:
            self._complain(f"accessLogFormat: {error}")
        return render_request_json if is_json else self._own.render

    def _is_scraped(self, name: str) -> bool:
        found = self._world().providers.get(name)
        return isinstance(found.what, Prometheus) if found is not None else name == _PROMETHEUS

    def _takers(self, name: str, defaults: MeshDefaults) -> list[Take]:
        """What takes the records of a provider of logs, in a list; none where nothing does."""
        found = self._world().providers.get(name)
        what = found.what if found is not None else FileLog(STDOUT) if name == _ENVOY else None
        try:
            if isinstance(what, FileLog):
                write = self._outlets.lines(what.path or STDOUT)
                plain = name == _ENVOY and what.format == LogFormat() and not what.omit_empty
                render = self._default_render(defaults) if plain else render_of(what.format, what.omit_empty)
                return [lines_to(write, render)] if write is not None else []
            if isinstance(what, OtelLog) and found is not None:
                return [records_to(self._outlets.entries(found), what.format)]
        except ValueError as error:
            self._complain(f"provider {name!r}: {error}")
            return []
        why = "there is none of that name in the mesh config" if what is None else "it is none of access logs"
        self._complain(f"accessLogging: provider {name!r}: {why}")
        return []

    def _zipkin_of(self, defaults: MeshDefaults) -> ExtensionProvider | None:
        """The collector of `defaultConfig.tracing.zipkin`, which is for all whom nobody tells another one."""
        spans = defaults.spans
        host, _, port = spans.zipkin.rpartition(":")
        if not (host and port.isdigit() and 0 < int(port) < 65536):
            if spans.zipkin:
                self._complain(f"{_ZIPKIN}.address must be host:port, is {spans.zipkin!r}")
            return None
        longest = spans.most_tag_length or 256
        return ExtensionProvider(_ZIPKIN, Zipkin(ServicePort(host, int(port)), most_tag_length=longest))

    def _set_tracing(self, scope: Scope, levels: tuple[Telemetry, ...], defaults: MeshDefaults) -> None:
        own, plan = self._own, merge_tracing(levels, defaults)
        if plan is None:
            return
        found = self._world().providers.get(plan.provider)
        if not plan.provider and own.span is None:
            found = self._zipkin_of(defaults)
        scope.enter, scope.spans = partial(_hidden, None) if plan.hidden else None, None
        if plan.disabled:  # headers pass as they are, so that what others report stays together
            return
        spoken = W3C
        if not plan.provider and own.span is not None:
            put = own.span
        elif found is not None and isinstance(found.what, OtelTraces | Zipkin):
            put = self._outlets.spans(found)
            if isinstance(found.what, Zipkin):
                spoken = Spoken(w3c=found.what.w3c_too, b3=True, short=found.what.short_ids)
        else:
            if plan.provider:
                why = "it is none of spans" if found is not None else "there is none of that name"
                self._complain(f"tracing: provider {plan.provider!r}: {why} in the mesh config")
            return
        percent = own.percent if plan.sampling is None else plan.sampling
        begin = _begins(own, percent, spoken)
        scope.enter = partial(_hidden, begin) if plan.hidden else begin
        try:
            tags = span_tags(plan.tags, own.environment)
        except ValueError as error:
            self._complain(f"tracing: customTags: {error}")
            tags = ()
        scope.spans = SpanPlan(put, tags, plan.istio_tags)


def _begins(own: Own, percent: float, spoken: Spoken) -> Enter:
    """Begins spans of so many requests of a hundred."""
    return lambda fields, below: enter(fields, percent / 100, own.rng, spoken, below)


def _hidden(begin: Enter | None, fields: list[tuple[bytes, bytes]], below: bytes) -> Context | None:
    """Begin a span below the caller's, if any, of which whoever comes next is told nothing."""
    context = begin(fields, below) if begin is not None else None
    hide(fields)
    return context


def _name(service: Service | None) -> str:
    """`Kind namespace/name`; empty for none."""
    if service is None:
        return ""
    name = f"{service.namespace}/{service.name}"
    is_kubernetes = service.hostname.startswith(f"{service.name}.{service.namespace}.svc.")
    return f"Service {name}" if is_kubernetes else f"ServiceEntry {name}"


def _names(world: World, uid: str) -> list[str]:
    """The names of the services that a waypoint is."""
    workload = world.workload(uid)
    services = (world.service(each) for each in workload.services) if workload is not None else ()
    return [each.name for each in services if each is not None]
