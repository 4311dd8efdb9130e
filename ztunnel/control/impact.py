"""What a change of one object touches: what of its surroundings has to be made anew."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ztunnel.control.delta import Delta, Touched
from ztunnel.control.index import Index
from ztunnel.control.policies.guard import Guards
from ztunnel.control.services.claim import labels_of
from ztunnel.control.services.endpoint import Name
from ztunnel.control.services.ownership import Entries
from ztunnel.control.services.service import service_name
from ztunnel.control.services.workload import Surroundings
from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.document import Key, Object
from ztunnel.control.waypoints.waypoint import Waypoints
from ztunnel.state import kube
from ztunnel.state.endpoints import Endpoints, EndpointSlice
from ztunnel.state.gateway import Gateway
from ztunnel.state.networking import ServiceEntry, WorkloadEntry


class Known(NamedTuple):
    """The objects, by what others refer to them by. `around` is what is kept of each namespace."""

    objects: Index
    waypoints: Waypoints
    guards: Guards
    entries: Entries
    around: dict[str, Surroundings]


class Impact:
    """That of changes which `known` has taken over; what of `around` is not as it was any more is taken
    out."""

    def __init__(self, known: Known, settings: MeshSettings) -> None:
        self._index, self._waypoints, self._guards, self._entries, self._around = known
        self._settings = settings

    def touch(self, key: Key, one: Object, touched: Touched) -> None:
        """An object of that key is, or was, `one`."""
        touched.gateways.update(self._waypoints.touched_by(key, one))
        if isinstance(one, kube.Pod):
            touched.pods.add((key.namespace, key.name))
            touched.attached.update(self._index.named_by(one))
            touched.entries.update(self._entries.at(one.addresses))
        elif isinstance(one, kube.Node):
            touched.pods.update(self._index.on_node(key.name))
        elif isinstance(one, kube.Namespace):
            self._around.pop(key.name, None)
            self._touch_namespace(key.name, touched)
        elif isinstance(one, kube.Service):
            self._touch_service(key, one, touched)
        elif isinstance(one, EndpointSlice | Endpoints):
            service = one.service if isinstance(one, EndpointSlice) else key.name
            touched.attached.add((key.namespace, service))
        elif isinstance(one, ServiceEntry | WorkloadEntry):
            touched.entries.add(key)
            touched.entries.update(self._entries.rivals(one))
            if isinstance(one, ServiceEntry) and one.selector:
                self.touch_selected(key.namespace, one.selector, touched)

    def touch_bound(self, gateway: Name, touched: Touched, delta: Delta) -> None:
        """What names a Gateway, by itself or by its namespace, may have another waypoint."""
        delta.unsettled.add(Key(Gateway.__name__, *gateway))
        for key in self._guards.serving(gateway):
            touched.take(key)
        for key in self._waypoints.naming(gateway):
            delta.unsettled.add(key)
            if key.kind == kube.Namespace.__name__:
                self._touch_namespace(key.name, touched)
                delta.unsettled.update(self.of_namespace(key.name))
            else:
                touched.take(key)

    def of_namespace(self, namespace: str) -> Iterator[Key]:
        """Its services and entries."""
        for name in self._index.services.get(namespace, ()):
            yield Key(kube.Service.__name__, namespace, name)
        yield from (key for key, _ in self._entries.of(namespace))

    def _touch_namespace(self, namespace: str, touched: Touched) -> None:
        touched.pods.update(self._index.in_namespace(namespace))
        touched.services.update((namespace, name) for name in self._index.services.get(namespace, ()))
        for key, one in self._entries.of(namespace):
            touched.entries.update((key, *self._entries.rivals(one)))

    def _touch_service(self, key: Key, one: kube.Service, touched: Touched) -> None:
        name = key.namespace, key.name
        self._around.pop(key.namespace, None)
        touched.services.add(name)
        touched.attached.add(name)
        touched.entries.update(self._entries.at((*one.addresses, *one.external)))
        touched.entries.update(self._entries.named(service_name(name, self._settings).hostname))
        if one.selector:
            self.touch_selected(key.namespace, one.selector, touched)

    def touch_selected(self, namespace: str, selector: Mapping[str, str], touched: Touched) -> None:
        """All workloads of a namespace with these labels."""
        touched.pods.update(self._selected(namespace, selector))
        wanted = selector.items()
        touched.entries.update(
            key for key, one in self._entries.of(namespace) if wanted <= labels_of(one).items()
        )

    def _selected(self, namespace: str, selector: Mapping[str, str]) -> Iterator[Name]:
        wanted = selector.items()
        for name, pod in self._index.pods.get(namespace, {}).items():
            if wanted <= pod.meta.labels.items():
                yield namespace, name
