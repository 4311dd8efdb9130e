"""What becomes of the `targetRefs` of a policy: to which waypoint each is bound, and why not to one. Reasons
and texts are istiod's (istio/istio pilot/pkg/serviceregistry/ambient)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from ztunnel.control.index import Index
from ztunnel.control.services.ownership import Entries
from ztunnel.control.settings import ISTIO_WAYPOINT_CLASS, WAYPOINT_CLASS, MeshSettings
from ztunnel.control.source.document import Key, Object
from ztunnel.control.waypoints.waypoint import Traffic, Waypoints
from ztunnel.state.gateway import Gateway, GatewayClass
from ztunnel.state.http_route import GRPCRoute, HTTPRoute
from ztunnel.state.kube import Service
from ztunnel.state.meta import Meta
from ztunnel.state.networking import ServiceEntry
from ztunnel.state.rate_limit_policy import RateLimitPolicy
from ztunnel.state.virtual_service import VirtualService

_CLASSES = (WAYPOINT_CLASS, ISTIO_WAYPOINT_CLASS)
ROUTE_KINDS: Final = frozenset((HTTPRoute.__name__, GRPCRoute.__name__, VirtualService.__name__))
"""What a RateLimitPolicy may have as a target beside what waypoints stand before."""


class Target(NamedTuple):
    """One of them. `bound` is what it is bound to, empty where it is not: then `reason` and `message` say
    why."""

    bound: str
    reason: str = ""
    message: str = ""


class PolicyTargets:
    """Looks targets up in the objects of a mesh; `texts` are of the time of the last `renew`."""

    def __init__(
        self,
        index: Index,
        waypoints: Waypoints,
        entries: Entries,
        settings: MeshSettings,
        objects: Mapping[Key, Object],
    ) -> None:
        self._index = index
        self._objects = objects
        self._waypoints = waypoints
        self._entries = entries
        self._settings = settings
        self._policies: dict[Key, tuple[Meta, Sequence[str]]] = {}
        self._due: set[Key] = set()
        self._texts: dict[Key, tuple[str, ...]] = {}

    def put(self, key: Key, meta: Meta | None, targets: Sequence[str]) -> None:
        """The policy of that key has these targets; None: there is none."""
        self._policies.pop(key, None)
        self._due.add(key)
        if meta is not None and targets:
            self._policies[key] = meta, targets

    def renew(self, *about: Iterable[Key]) -> set[Key]:
        """Something that these policies have as a target is another one now. Gives them back."""
        keys = {key for each in about for key in each}
        due, self._due = self._due | keys, set()
        for key in due:
            self._texts.pop(key, None)
            if key in self._policies and (texts := tuple(self._unbound(key))):
                self._texts[key] = texts
        return keys

    def texts(self) -> Iterator[str]:
        """A line for each target that is not bound, in order."""
        for key in sorted(self._texts):
            yield from self._texts[key]

    def _unbound(self, key: Key) -> Iterator[str]:
        meta, targets = self._policies[key]
        for target in self.of(key.kind, meta, targets):
            if not target.bound:
                yield f"{key.kind} {key.namespace}/{key.name}: {target.message}: nobody enforces it"

    def of(self, kind: str, meta: Meta, targets: Sequence[str]) -> Iterator[Target]:
        """What becomes of the targets of a policy of that kind, `Kind name` each, in order."""
        for target_kind, _, name in (target.partition(" ") for target in targets):
            if target_kind == GatewayClass.__name__:
                yield self._class(kind, meta, name)
            elif target_kind == Gateway.__name__:
                yield self._gateway(meta.namespace, name)
            elif target_kind in (Service.__name__, ServiceEntry.__name__):
                yield self._service(Key(target_kind, meta.namespace, name))
            elif kind == RateLimitPolicy.__name__ and target_kind in ROUTE_KINDS:
                yield self._route(Key(target_kind, meta.namespace, name))
            else:
                yield Target("", "Invalid", f"{target_kind} {name}: no waypoint stands before that")

    def _class(self, kind: str, meta: Meta, name: str) -> Target:
        root = self._settings.root_namespace
        if meta.namespace != root:
            text = f"{kind} must be in the root namespace {root} when referencing a GatewayClass"
            return Target("", "Invalid", text)
        if name not in _CLASSES:
            return Target("", "TargetNotFound", f"GatewayClass {name} is none of waypoints")
        return Target(name)

    def _gateway(self, namespace: str, name: str) -> Target:
        found = self._waypoints.class_of((namespace, name))
        if not found:
            return Target("", "TargetNotFound", f"Gateway {namespace}/{name} was not found")
        if found not in _CLASSES:
            return Target("", "AncestorNotBound", f"Gateway {namespace}/{name} is no waypoint")
        return Target(f"{namespace}/{name}")

    def _route(self, key: Key) -> Target:
        """Whether its services have a waypoint stands in the status of the route."""
        if key not in self._objects:
            return Target("", "TargetNotFound", f"{key} was not found")
        return Target(str(key))

    def _service(self, key: Key) -> Target:
        labels = self._labels(key)
        if labels is None:
            return Target("", "TargetNotFound", f"{key.kind} {key.namespace}/{key.name} was not found")
        binding = self._waypoints.bind(labels, key.namespace, Traffic.SERVICE)
        if binding.waypoint is None:
            why = f": {binding.message}" if binding.message else ""
            text = f"{key.kind} {key.namespace}/{key.name} is not bound to a waypoint{why}"
            return Target("", "AncestorNotBound", text)
        return Target(binding.name)

    def _labels(self, key: Key) -> Mapping[str, str] | None:
        if key.kind == Service.__name__:
            service = self._index.service((key.namespace, key.name))
            return None if service is None else service.meta.labels
        entry = self._entries.get(key)
        return entry.meta.labels if isinstance(entry, ServiceEntry) else None
