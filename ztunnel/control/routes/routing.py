"""The routes of services, kept up to date.

Each object that routes is converted by itself (`gateway_route.py`, `virtual_service.py`), anew only when it,
or something that it refers to, changes. A service has the rules of all that are attached to it, joined by
`precedence.py`; they are joined anew when one of them changes.

As at Istio's waypoints, an object counts if it is of the service's namespace or of its waypoint's: not that
of whoever calls (istio/istio getVirtualServiceForWaypoint)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ztunnel.control.membership import set_member
from ztunnel.control.routes.gateway_route import ENTRY, SERVICE, Route, convert_route
from ztunnel.control.routes.hosts import covering, covers, is_exported, whole_name
from ztunnel.control.routes.precedence import Source, connections, ordered
from ztunnel.control.routes.registry import Asked, Registry, View
from ztunnel.control.routes.route_parts import NOTHING, Converted, Problem, Why
from ztunnel.control.routes.specificity import MORE_SPECIFIC, SPECIFIC, Ports, left_ports, taken_ports
from ztunnel.control.routes.virtual_service import convert_virtual_service, is_of_mesh
from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.document import Key, Object
from ztunnel.model.route import Routes
from ztunnel.model.route_policy import RetryDefault
from ztunnel.model.service import Service, ServiceName
from ztunnel.state.route_filter import Reference
from ztunnel.state.virtual_service import VirtualService

Routing = Route | VirtualService


@dataclass(frozen=True, slots=True)
class _Parent:
    """What a route is attached to: a Service or ServiceEntry (`group`, `kind`), or every service with a
    host, which may begin with `*`."""

    kind: str
    namespace: str
    name: str


class ServiceRoutes:
    """All routes, by the services that they are of (`namespace/hostname`).

    Attributes:
        routes: of each service that has any.
    """

    def __init__(self, settings: MeshSettings) -> None:
        self._settings = settings
        self.registry = Registry(settings)
        self._services: dict[ServiceName, Service] = {}
        self._objects: dict[Key, Routing] = {}
        self._converted: dict[Key, Converted] = {}
        self._problems: dict[Key, tuple[Problem, ...]] = {}
        self._asked: dict[Key, set[Asked]] = {}
        self._asking: dict[Asked, set[Key]] = {}
        self._attached: dict[_Parent, set[Key]] = {}
        self._specific: dict[_Parent, set[Key]] = {}
        self._due: set[Key] = set()
        self._dirty: set[ServiceName] = set()
        self._unsettled: set[Key] = set()
        self.routes: dict[str, Routes] = {}

    def put(self, key: Key, old: Object | None, new: Object | None) -> None:
        """The object of that key is now `new`, and was `old`; `update` brings it into force."""
        for asked in self.registry.put(key, old, new):
            self._due.update(self._asking.get(asked, ()))
        for one, there in ((old, False), (new, True)):
            if isinstance(one, Routing):
                for parent in self._parents(one):
                    set_member(self._attached, parent, key, there)
                    if key.kind in SPECIFIC:
                        set_member(self._specific, parent, key, there)
                    self._dirty.update(self._below(parent))
                    self._unsettled.update(self._less_specific(parent, key.kind))
                self._due.add(key)
        if isinstance(new, Routing):
            self._objects[key] = new
        else:
            self._objects.pop(key, None)

    def put_retries(self, retries: RetryDefault) -> None:
        """This counts for rules that say nothing of retries."""
        for asked in self.registry.put_retries(retries):
            self._due.update(self._asking.get(asked, ()))

    def put_service(self, old: Service | None, new: Service | None) -> None:
        """A service is now `new`, and was `old`."""
        for asked in self.registry.put_service(old, new):
            self._due.update(self._asking.get(asked, ()))
        for one in (old, new):
            if one is not None:
                self._dirty.add(one.key)
                for parent in self._parents_of(one):
                    self._unsettled.update(self._attached.get(parent, ()))
        if new is not None:
            self._services[new.key] = new
        elif old is not None:
            self._services.pop(old.key, None)

    def update(self) -> tuple[dict[str, Routes | None], set[Key]]:
        """Bring what was put into force: the routes that are others now, None where a service has none any
        more; and the objects of which something else is to be said."""
        unsettled, self._unsettled = self._unsettled, set()
        due, self._due = self._due, set()
        for key in due:
            if self._convert(key):
                unsettled.add(key)
        for key in due | unsettled:
            self._judge(key)
        dirty, self._dirty = self._dirty, set()
        changed: dict[str, Routes | None] = {}
        for name in dirty:
            made, old = self._join(name), self.routes.get(str(name))
            if made == old:
                continue
            changed[str(name)] = made
            if made is None:
                del self.routes[str(name)]
            else:
                self.routes[str(name)] = made
        return changed, unsettled

    def converted(self, key: Key) -> Converted:
        """What became of an object."""
        return self._converted.get(key, NOTHING)

    def problems(self) -> dict[Key, tuple[Problem, ...]]:
        """What is doubtful in objects, by those that it is in."""
        return dict(self._problems)

    def _judge(self, key: Key) -> None:
        """Find out what is doubtful in one."""
        one, found = self._objects.get(key), self.converted(key).problems
        if isinstance(one, VirtualService) and (text := self.nowhere(one)):
            found = (*found, Problem(Why.NOWHERE, "hosts", text))
        elif one is not None and not isinstance(one, VirtualService):
            text, _ = self.displaced(key, one, self.services_of(one))
            if text:
                found = (*found, Problem(Why.NOWHERE, "parentRefs", text))
        self._problems.pop(key, None)
        if found:
            self._problems[key] = found

    def nowhere(self, one: VirtualService) -> str:
        """Why a VirtualService of the mesh is for no service, if it is."""
        if one.is_delegate or not is_of_mesh(one):
            return ""
        services = self.services_of(one)
        if not services:
            return "none of them is that of a service"
        own = one.meta.namespace
        near = [each for each in services if own in (each.namespace, caller_of(each))]
        if near and not any(is_exported(one.export_to, own, caller_of(each)) for each in near):
            return "it is not exported (exportTo) to the namespace of their waypoints"
        if not near:
            return "their services are of other namespaces: it counts only in theirs, or in their waypoints'"
        return ""

    def displaced(self, key: Key, one: Route, services: Iterable[Service]) -> tuple[str, bool]:
        """At which ports of these services, that it is bound to, a route of a more specific kind is asked in
        its place; empty: at none. And whether it is so at all of them."""
        found, left = [], False
        for service in services:
            every, ports = _ports_of(service), self._ports(one, service)
            if ports is None:
                continue
            taken = self._taken(service).get(key.kind, frozenset())
            left = left or left_ports(ports, taken, every) is not None
            if at := [str(port) for port in ports or every if port in taken]:
                found.append(f"{service.hostname}:{','.join(at)}")
        where = f"{MORE_SPECIFIC[key.kind]}s are asked in its place at {', '.join(found)}" if found else ""
        return where, bool(found) and not left

    def texts(self) -> Iterator[str]:
        """What the operator should know, in order of the objects."""
        for key, problems in sorted(self._problems.items()):
            for problem in problems:
                if problem.why is not Why.INEFFECTIVE:
                    yield f"{key}: {problem}"

    def services_of(self, one: Routing) -> tuple[Service, ...]:
        """The services that an object is attached to."""
        names = {name for parent in self._parents(one) for name in self._below(parent)}
        return tuple(self._services[name] for name in sorted(names) if name in self._services)

    def parent(self, reference: Reference, own: str) -> tuple[Service, ...]:
        """The services that a parentRef of an object of the namespace `own` means."""
        names = self._below(_parent(reference, own))
        return tuple(self._services[name] for name in sorted(names) if name in self._services)

    # --- conversion

    def _convert(self, key: Key) -> bool:
        """Whether anything else has become of the object."""
        for asked in self._asked.pop(key, set()):
            set_member(self._asking, asked, key, False)
        one, made = self._objects.get(key), NOTHING
        if one is not None:
            view = View(self.registry)
            made = (
                convert_virtual_service(one, view)
                if isinstance(one, VirtualService)
                else convert_route(one, view)
            )
            self._asked[key] = view.asked
            for asked in view.asked:
                set_member(self._asking, asked, key, True)
        before = self.converted(key)
        if made == before:
            return False
        self._converted.pop(key, None)
        if one is not None:
            self._converted[key] = made
            for parent in self._parents(one):
                self._dirty.update(self._below(parent))
        return True

    def _join(self, name: ServiceName) -> Routes | None:
        service = self._services.get(name)
        if service is None:
            return None
        keys = {key for parent in self._parents_of(service) for key in self._attached.get(parent, ())}
        if not keys:
            return None
        sources = list(self._sources(service, sorted(keys)))
        rules, others = ordered(sources), connections(sources, service.hostname)
        return Routes(name, rules, others) if rules or others else None

    def _sources(self, service: Service, keys: Iterable[Key]) -> Iterator[Source]:
        caller, taken = caller_of(service), self._taken(service)
        for key in keys:
            one, converted = self._objects[key], self.converted(key)
            if key.namespace not in (service.namespace, caller) or not converted:
                continue
            if not isinstance(one, VirtualService):
                ports = self._ports(one, service)
                if ports is not None:
                    ports = left_ports(ports, taken.get(key.kind, frozenset()), _ports_of(service))
                first = key.namespace == caller != service.namespace
                if ports is not None:
                    yield Source(one.meta, converted.rules, ports, first, True, converted.connections)
            elif is_exported(one.export_to, key.namespace, caller):
                yield Source(one.meta, converted.rules, connections=converted.connections)

    def _taken(self, service: Service) -> Mapping[str, frozenset[int]]:
        """The ports of a service at which routes of a kind are not asked, by that kind."""
        near, bound = (service.namespace, caller_of(service)), []
        for parent in self._parents_of(service):
            for key in self._specific.get(parent, ()):
                one = self._objects[key]
                if key.namespace in near and self.converted(key) and not isinstance(one, VirtualService):
                    ports = self._ports(one, service)
                    if ports is not None:
                        bound.append((key.kind, ports))
        return taken_ports(bound, _ports_of(service)) if bound else {}

    def _less_specific(self, parent: _Parent, kind: str) -> Iterator[Key]:
        """The routes that one of that kind may be asked in the place of."""
        for key in self._attached.get(parent, ()):
            if MORE_SPECIFIC.get(key.kind) == kind:
                yield key

    def _ports(self, route: Route, service: Service) -> tuple[int, ...] | None:
        """At which ports of the service a route is; none: at all; None: at no one."""
        mine = self._parents_of(service)
        found = [
            one for one in route.parents if _parent(one, route.meta.namespace) in mine and not one.section
        ]
        if any(not one.port for one in found):
            return ()
        return tuple(sorted({one.port for one in found})) or None

    # --- what is attached to what

    def _parents(self, one: Routing) -> Iterator[_Parent]:
        """What an object is attached to."""
        own = one.meta.namespace
        if isinstance(one, VirtualService):
            if is_of_mesh(one):
                for host in one.hosts:
                    yield _Parent("", "", whole_name(host, own, self._settings.cluster_domain))
            return
        for reference in one.parents:
            if (reference.group, reference.kind) in (SERVICE, ENTRY):
                yield _parent(reference, own)

    def _parents_of(self, service: Service) -> list[_Parent]:
        """All by which an object may be attached to a service."""
        kind = SERVICE if self.registry.is_kube(service) else ENTRY
        hosts = [_Parent("", "", host) for host in covering(service.hostname)]
        return [_Parent(kind[1], service.namespace, service.name), *hosts]

    def _below(self, parent: _Parent) -> Iterator[ServiceName]:
        """The services that are meant by that."""
        if parent.kind == SERVICE[1]:
            host = f"{parent.name}.{parent.namespace}.svc.{self._settings.cluster_domain}"
            yield ServiceName(parent.namespace, host)
        elif parent.kind == ENTRY[1]:
            yield from (one.key for one in self.registry.hosts_of((parent.namespace, parent.name)))
        elif parent.name.startswith("*"):
            yield from (name for name in self._services if covers(parent.name, name.hostname))
        else:
            yield from self.registry.named(parent.name)


def caller_of(service: Service) -> str:
    """The namespace that calls of a service come from: that of its waypoint."""
    waypoint = service.waypoint.service if service.waypoint is not None else None
    return waypoint.namespace if waypoint is not None else service.namespace


def _ports_of(service: Service) -> Ports:
    return tuple(port.service for port in service.ports)


def _parent(reference: Reference, own: str) -> _Parent:
    return _Parent(reference.kind, reference.namespace or own, reference.name)
