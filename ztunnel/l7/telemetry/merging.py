"""What several Telemetry objects come to: those of the mesh, of the namespace, of the waypoint or service, in
this order. Providers are told by their names; who they are is not known here.

Source: istio/istio pilot/pkg/model/telemetry.go (mergeLogs, mergeMetrics, Tracing). A waypoint is a server.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from ztunnel.model.mesh_defaults import CustomTag, MeshDefaults
from ztunnel.model.telemetry import ALL_METRICS, METRICS, Mode, Telemetry

_CLASSES: Final = ("ztunnel-waypoint", "istio-waypoint")


class MetricPlan(NamedTuple):
    """What is different about one metric: `tags` by their names, None: taken away; else expressions of
    CEL."""

    disabled: bool = False
    tags: Mapping[str, str | None] = {}


class TracingPlan(NamedTuple):
    """How requests are traced. `provider` is empty where none is named; `sampling` is a percentage, None: not
    said; `hidden`: requests go on without the headers of traces."""

    provider: str = ""
    disabled: bool = False
    sampling: float | None = None
    tags: tuple[CustomTag, ...] = ()
    istio_tags: bool = True
    hidden: bool = False


def applicable(
    telemetries: Iterable[Telemetry], namespace: str, gateways: Collection[str], service: str
) -> tuple[Telemetry, ...]:
    """Those that count at a waypoint, the most general first: the root namespace's, its namespace's, and one
    with targets.

    Args:
        namespace: that of the waypoint.
        gateways: the names of its Gateway.
        service: what was called, `Kind namespace/name`; empty for a pod.

    A service of another namespace than the waypoint's has that of its own namespace, too. Of several at one
    level the oldest counts. Of those with targets it is one for the service, before one for
    the Gateway, before one for the class.
    """
    levels: list[Telemetry | None] = [None] * 6
    of_service = service.partition(" ")[2].partition("/")[0]
    for each in sorted(telemetries, key=lambda one: (one.created, one.key)):
        level = -1
        if not each.targets:
            level = 0 if each.root else _wide(each.namespace, namespace, of_service)
        for target in each.targets:
            kind, _, name = target.partition(" ")
            if service == f"{kind} {each.namespace}/{name}":
                level = max(level, 5)
            elif kind == "Gateway" and each.namespace == namespace and name in gateways:
                level = max(level, 4)
            elif kind == "GatewayClass" and each.root and name in _CLASSES:
                level = max(level, 3)
        if level >= 0 and levels[level] is None:
            levels[level] = each
    found = [each for each in levels[:3] if each is not None]
    found += [each for each in reversed(levels[3:]) if each is not None][:1]
    return tuple(found)


def _wide(namespace: str, own: str, of_service: str) -> int:
    """The level of one for a whole namespace; negative: it does not count."""
    if namespace == own:
        return 1
    return 2 if namespace == of_service else -1


def merge_logging(levels: Sequence[Telemetry], defaults: Sequence[str]) -> dict[str, str] | None:
    """The providers of access logs, each with its filter, empty for none; None: nobody says anything.

    Args:
        defaults: `defaultProviders.accessLogging`.
    """
    logs = [level.access_logging for level in levels if level.access_logging]
    if not logs:
        return dict.fromkeys(defaults, "") if defaults else None
    in_scope: Iterable[str] = defaults
    filters: dict[str, str] = {}
    for entries in logs:
        mine = [each for each in entries if each.mode is not Mode.CLIENT]
        names = dict.fromkeys(name for each in mine for name in each.providers)
        filters |= {name: each.filter for each in mine for name in each.providers}
        in_scope = names or in_scope
    found: dict[str, str] = {}
    parents: Sequence[str] = defaults
    for each in (entry for entries in logs for entry in entries):
        parents = each.providers or parents
        if each.mode is Mode.CLIENT:
            continue
        for name in parents:
            if name not in in_scope:
                continue
            if each.disabled:
                found.pop(name, None)
            else:
                found[name] = filters.get(name, "")
    return found


def merge_metrics(levels: Sequence[Telemetry], defaults: Sequence[str]) -> dict[str, dict[str, MetricPlan]]:
    """The providers of metrics, each with what is different about each metric.

    Args:
        defaults: `defaultProviders.metrics`.
    """
    metrics = [each for level in levels for each in level.metrics]
    if not metrics:
        return {name: {} for name in defaults}
    in_scope: Sequence[str] = defaults
    for each in metrics:
        in_scope = each.providers or in_scope
    found: dict[str, dict[str, MetricPlan]] = {}
    off: set[str] = set()
    parents: Sequence[str] = defaults
    for each in metrics:
        parents = each.providers or parents
        for name in parents:
            if name not in in_scope:
                continue
            plans = found.setdefault(name, {})
            for override in each.overrides:
                if override.mode is Mode.CLIENT:
                    continue
                if override.metric == ALL_METRICS and override.disabled:
                    off.add(name)
                    continue
                off.discard(name)
                changed = {tag.name: None if tag.remove else tag.value for tag in override.tags}
                for metric in METRICS if override.metric == ALL_METRICS else (override.metric,):
                    plan = plans.get(metric, MetricPlan())
                    disabled = plan.disabled if override.disabled is None else override.disabled
                    plans[metric] = MetricPlan(disabled, {**plan.tags, **changed})
    return {name: plans for name, plans in found.items() if name not in off}


def merge_tracing(levels: Sequence[Telemetry], defaults: MeshDefaults) -> TracingPlan | None:
    """How requests are traced; None: nobody says anything, `enableTracing` included. A tag's table is taken
    whole, as in Istio."""
    said = [each for level in levels for each in level.tracing if each.mode is not Mode.CLIENT]
    silent = not said and not any(level.tracing for level in levels)
    if silent and not defaults.tracing and not defaults.traced:
        return None
    plan = TracingPlan(defaults.tracing[0] if defaults.tracing else "")
    plan = plan._replace(sampling=defaults.spans.percent, tags=defaults.spans.tags)
    for each in said:
        if each.providers:
            plan = plan._replace(provider=each.providers[0])
        if each.disabled is not None:
            plan = plan._replace(disabled=each.disabled)
        if each.tags is not None:
            plan = plan._replace(tags=each.tags)
        if each.sampling is not None:
            plan = plan._replace(sampling=each.sampling)
        if each.istio_tags is not None:
            plan = plan._replace(istio_tags=each.istio_tags)
        if each.hidden is not None:
            plan = plan._replace(hidden=each.hidden)
    return plan
