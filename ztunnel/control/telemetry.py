"""What waypoints are told of Telemetry, and what of it has no effect.

Those with targets are for waypoints, and so are those for a whole namespace; one with a selector is for no
waypoint, as in Istio, and a node proxy reads none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from ztunnel.control.delta import Delta, HttpResources
from ztunnel.control.mesh_config import MeshConfigs
from ztunnel.control.policies.guard import Guards
from ztunnel.control.policies.policy_targets import PolicyTargets
from ztunnel.control.source.document import Key, Object
from ztunnel.model.provider import Extension, FileLog, OtelLog, OtelTraces, Prometheus, Zipkin
from ztunnel.model.telemetry import ALL_METRICS, TCP_METRICS, Metrics
from ztunnel.model.telemetry import Telemetry as Wishes
from ztunnel.state.config_map import ConfigMap
from ztunnel.state.telemetry import Telemetry
from ztunnel.telemetry.labels import TcpLabels
from ztunnel.xds.resource import TELEMETRY

_BUILT_IN: Final[dict[str, Extension]] = {"envoy": FileLog("/dev/stdout"), "prometheus": Prometheus()}
"""Providers that every mesh has."""

_KINDS: Final[dict[str, tuple[type[Extension], ...]]] = {
    "accessLogging": (FileLog, OtelLog),
    "metrics": (Prometheus,),
    "tracing": (OtelTraces, Zipkin),
}


class Telemetries:
    """All of them. Kept up to date by `put`."""

    def __init__(
        self, root: str, guards: Guards, targets: PolicyTargets, mesh: MeshConfigs, http: HttpResources
    ) -> None:
        """All but `root`, the root namespace, is kept up to date; `guards` are of these objects alone."""
        self._root = root
        self._guards = guards
        self._targets = targets
        self._mesh = mesh
        self._http = http
        self._objects: dict[Key, Telemetry] = {}

    def put(self, key: Key, new: Object | None, delta: Delta) -> None:
        """The object of that key is now `new`; of another kind it is none of ours, but a ConfigMap may have
        the providers."""
        if key.kind == ConfigMap.__name__:
            delta.unsettled.update(self._objects)
        if key.kind != Telemetry.__name__:
            return
        found = new if isinstance(new, Telemetry) else None
        self._objects.pop(key, None)
        if found is not None:
            self._objects[key] = found
        self._http.put(TELEMETRY, f"{key.namespace}/{key.name}", self._convert(found), delta)
        self._guards.put((key.namespace, key.name), found)
        self._targets.put(key, found.meta if found else None, found.targets if found else ())

    def about(self, keys: Iterable[Key]) -> Iterator[Key]:
        """Those that have one of these as a target."""
        return self._guards.about(keys)

    def texts(self) -> Iterator[str]:
        """A line for each thing that has no effect, in order."""
        for key in sorted(self._objects):
            yield from (f"{key}: {text}" for text in self.remarks(key))

    def remarks(self, key: Key) -> Iterator[str]:
        """The same, of one."""
        one = self._objects.get(key)
        if one is None:
            return
        if one.selector:
            yield (
                "a selector is for no waypoint, and node proxies read no Telemetry: it does nothing; "
                "targetRefs name a waypoint or a service"
            )
        yield from self._of_providers(one)
        for name in one.custom_metrics:
            yield f"customMetric {name}: there are no metrics beside Istio's: nothing is done with it"
        if one.interval:
            yield "metrics: reportingInterval is not acted on: metrics are those of the moment of a scrape"
        if any(each.request_id for each in one.tracing):
            yield "tracing: useRequestIdForTraceSampling is not acted on: x-request-id decides nothing"
        yield from _of_tcp(one.metrics)
        if one.is_wide and (first := self._first(key, one)) != key:
            yield f"{first} is older and for the same namespace: that one counts, this one does not"

    def _first(self, key: Key, one: Telemetry) -> Key:
        """The oldest one that is for the same namespace as a whole."""
        rivals = [
            (each.meta.created, other)
            for other, each in self._objects.items()
            if other.namespace == key.namespace and each.is_wide
        ]
        return min(rivals, default=(one.meta.created, key))[1]

    def _of_providers(self, one: Telemetry) -> Iterator[str]:
        for field, names in _named(one):
            for name in names:
                provider = self._mesh.providers.get(name)
                what = provider.what if provider is not None else _BUILT_IN.get(name)
                if what is None:
                    yield (
                        f"{field}: provider {name!r} is not known: no extensionProvider of the mesh config "
                        "has that name"
                    )
                elif not isinstance(what, _KINDS[field]):
                    yield f"{field}: provider {name!r} is of no use there: it is of another kind"

    def _convert(self, one: Telemetry | None) -> Wishes | None:
        if one is None or one.selector:
            return None
        return Wishes(
            one.meta.name,
            one.meta.namespace,
            one.meta.namespace == self._root,
            one.targets,
            one.meta.created,
            one.metrics,
            one.access_logging,
            one.tracing,
        )


def _named(one: Telemetry) -> Iterator[tuple[str, list[str]]]:
    """The providers that it names, by the field."""
    for field, providers in (
        ("accessLogging", [each.providers for each in one.access_logging]),
        ("metrics", [each.providers for each in one.metrics]),
        ("tracing", [each.providers for each in one.tracing]),
    ):
        yield field, list(dict.fromkeys(name for names in providers for name in names))


def _of_tcp(metrics: Iterable[Metrics]) -> Iterator[str]:
    """What of it is not done with metrics of connections."""
    for each in (override for entry in metrics for override in entry.overrides):
        if each.metric in TCP_METRICS:
            yield (
                f"metrics: {each.metric}: metrics of connections have the same labels: only what is said of "
                "all of them counts"
            )
        elif each.metric == ALL_METRICS:
            added = [tag.name for tag in each.tags if not tag.remove and tag.name not in TcpLabels._fields]
            if added:
                yield (
                    f"metrics: {', '.join(added)}: of requests only: the metrics of connections have Istio's "
                    "labels alone"
                )
