"""The objects of a mesh by what others refer to them by, kept up to date one object at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from ztunnel.control.services.endpoint import Name
from ztunnel.control.source.document import Key, Object
from ztunnel.model.address import IPAddress
from ztunnel.state import kube
from ztunnel.state.endpoints import Endpoints, EndpointSlice

K = TypeVar("K")
L = TypeVar("L")
V = TypeVar("V")


class Index:
    """`pods` and `services` by namespace and name; `namespaces` and `nodes` by name."""

    def __init__(self) -> None:
        self.namespaces: dict[str, kube.Namespace] = {}
        self.nodes: dict[str, kube.Node] = {}
        self.pods: dict[str, dict[str, kube.Pod]] = {}
        self.services: dict[str, dict[str, kube.Service]] = {}
        self._on_node: dict[str, set[Name]] = {}
        self._slices: dict[Name, dict[Key, tuple[EndpointSlice, ...]]] = {}
        self._naming: dict[IPAddress | Name, dict[Key, Name]] = {}
        self._owners: dict[IPAddress, dict[Name, kube.Pod]] = {}
        self._on_host: dict[IPAddress, dict[Name, kube.Pod]] = {}
        self._virtual: dict[IPAddress, dict[Name, kube.Service]] = {}

    def put(self, key: Key, old: Object | None, new: Object | None) -> None:
        """The object of that key is now `new`, and was `old`."""
        one = new or old
        if isinstance(one, kube.Namespace):
            _set(self.namespaces, key.name, new if isinstance(new, kube.Namespace) else None)
        elif isinstance(one, kube.Node):
            _set(self.nodes, key.name, new if isinstance(new, kube.Node) else None)
        elif isinstance(one, kube.Service):
            self._put_service(
                key,
                old if isinstance(old, kube.Service) else None,
                new if isinstance(new, kube.Service) else None,
            )
        elif isinstance(one, kube.Pod):
            self._put_pod(
                key, old if isinstance(old, kube.Pod) else None, new if isinstance(new, kube.Pod) else None
            )
        elif isinstance(one, EndpointSlice | Endpoints):
            for each in _slices_of(old):
                self._name_slice(key, each, there=False)
            for each in _slices_of(new):
                self._name_slice(key, each, there=True)

    def _put_pod(self, key: Key, old: kube.Pod | None, new: kube.Pod | None) -> None:
        name = key.namespace, key.name
        _set_below(self.pods, key, new)
        if old is not None:
            _discard(self._on_node, old.node, name)
            for where, ip in self._places(old):
                _drop(where, ip, name)
        if new is not None:
            self._on_node.setdefault(new.node, set()).add(name)
            for where, ip in self._places(new):
                where.setdefault(ip, {})[name] = new

    def _put_service(self, key: Key, old: kube.Service | None, new: kube.Service | None) -> None:
        name = key.namespace, key.name
        _set_below(self.services, key, new)
        for ip in _virtual(old):
            _drop(self._virtual, ip, name)
        if new is not None:
            for ip in _virtual(new):
                self._virtual.setdefault(ip, {})[name] = new

    def _places(self, pod: kube.Pod) -> Iterator[tuple[dict[IPAddress, dict[Name, kube.Pod]], IPAddress]]:
        """Where the pod stands for each of its addresses: among those that have it alone, or that share their
        node's."""
        if not pod.ended:
            yield from ((self._on_host if pod.host_network else self._owners, ip) for ip in pod.addresses)

    def _name_slice(self, key: Key, one: EndpointSlice, *, there: bool) -> None:
        service = one.meta.namespace, one.service
        named: list[IPAddress | Name] = [ip for each in one.endpoints for ip in each.addresses[:1]]
        named += [(one.meta.namespace, each.pod) for each in one.endpoints if each.pod]
        if there:
            of_service = self._slices.setdefault(service, {})
            of_service[key] = (*of_service.get(key, ()), one)
            for each in named:
                self._naming.setdefault(each, {})[key] = service
        else:
            _drop(self._slices, service, key)
            for each in named:
                _drop(self._naming, each, key)

    def on_node(self, node: str) -> Iterator[Name]:
        """The pods that run there."""
        yield from self._on_node.get(node, ())

    def in_namespace(self, namespace: str) -> Iterator[Name]:
        """Its pods."""
        yield from ((namespace, name) for name in self.pods.get(namespace, ()))

    def slices(self, service: kube.Service) -> Iterator[EndpointSlice]:
        """Those of a service, in order of their names; an Endpoints becomes such where nothing is selected
        (Kubernetes makes those of a service that selects its pods)."""
        found = self._slices.get(service.meta.full_name, {})
        for key in sorted(found):
            if key.kind != "Endpoints" or not service.selector:
                yield from found[key]

    def named_by(self, pod: kube.Pod) -> Iterator[Name]:
        """The services of which a slice names the pod or an address of it."""
        for each in (*pod.addresses, pod.meta.full_name):
            yield from self._naming.get(each, {}).values()

    def owner(self, ip: IPAddress) -> kube.Pod | None:
        """The pod that has it as its own. Of several, while one goes and another is given its address, one
        that stays, and the newest."""
        found = self._owners.get(ip)
        if not found:
            return None
        return max(
            found.values(), key=lambda pod: (not pod.meta.deleting, pod.meta.created, pod.meta.full_name)
        )

    def on_host(self, ip: IPAddress) -> kube.Pod | None:
        """A pod with the host's network at that address, which is that of a node then."""
        found = self._on_host.get(ip)
        return found[min(found)] if found else None

    def service_at(self, ip: IPAddress) -> kube.Service | None:
        """A service with that virtual address."""
        found = self._virtual.get(ip)
        return found[min(found)] if found else None

    def pod(self, name: Name) -> kube.Pod | None:
        """The pod of that name."""
        return self.pods.get(name[0], {}).get(name[1])

    def service(self, name: Name) -> kube.Service | None:
        """The service of that name."""
        return self.services.get(name[0], {}).get(name[1])


def _virtual(service: kube.Service | None) -> tuple[IPAddress, ...]:
    if service is None or service.kind == "ExternalName":
        return ()
    return tuple(dict.fromkeys((*service.addresses, *service.external)))


def _slices_of(one: Object | None) -> tuple[EndpointSlice, ...]:
    if isinstance(one, Endpoints):
        return one.slices
    return (one,) if isinstance(one, EndpointSlice) else ()


def _set(where: dict[K, V], key: K, value: V | None) -> None:
    if value is None:
        where.pop(key, None)
    else:
        where[key] = value


def _set_below(where: dict[str, dict[str, V]], key: Key, value: V | None) -> None:
    if value is not None:
        where.setdefault(key.namespace, {})[key.name] = value
    else:
        _drop(where, key.namespace, key.name)


def _drop(where: dict[K, dict[L, V]], key: K, below: L) -> None:
    """Take one entry out, and the mapping with the last one."""
    found = where.get(key)
    if found is not None and found.pop(below, None) is not None and not found:
        del where[key]


def _discard(where: dict[K, set[L]], key: K, below: L) -> None:
    found = where.get(key)
    if found is not None:
        found.discard(below)
        if not found:
            del where[key]
