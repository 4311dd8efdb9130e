"""The objects of a mesh as workloads, services and policies: a pure function of all objects, kept up to date.

A `Translator` is told what changed and makes anew what that can touch: of a pod its own workload and those
services whose slices name it, of a namespace's label its pods. What comes out equal is no change and stays
the very object. The result is that of translating all objects at once, whatever the way to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from ztunnel.control.delta import Delta, HttpResources, Touched, Translation, arrange
from ztunnel.control.impact import Impact, Known
from ztunnel.control.index import Index
from ztunnel.control.mesh_config import MeshConfigs
from ztunnel.control.policies.http_authorization import convert_http_authorization
from ztunnel.control.policies.jwt_policies import KeysOf, no_keys
from ztunnel.control.policies.node_policies import NodePolicies
from ztunnel.control.policies.waypoint_policies import Parts, WaypointPolicies
from ztunnel.control.routes.credentials import Credentials
from ztunnel.control.routes.route_status import said_of_routing
from ztunnel.control.routes.routing import Routing, ServiceRoutes
from ztunnel.control.routes.service_traffic import ServiceTraffics
from ztunnel.control.services.attachments import Attachments
from ztunnel.control.services.claim import as_entry
from ztunnel.control.services.claims import Claims
from ztunnel.control.services.endpoint import Name
from ztunnel.control.services.entry import (
    EntryResources,
    convert_service_entry,
    convert_workload_entry,
    entry_services,
)
from ztunnel.control.services.labels import entry_labels, labels_for
from ztunnel.control.services.ownership import Entries
from ztunnel.control.services.service import (
    EntryServices,
    convert_service,
    group_services,
    ingress_uses,
    service_name,
)
from ztunnel.control.services.workload import Surroundings, convert_pod, workload_uid
from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.document import Key, Object
from ztunnel.control.source.inventory import Inventory
from ztunnel.control.source.remarks import remark
from ztunnel.control.status.conditions import Said, said_of
from ztunnel.control.waypoints.waypoint import Traffic, Waypoints
from ztunnel.model.labels import WorkloadLabels
from ztunnel.model.route_policy import RetryDefault
from ztunnel.model.service import Service, ServiceName
from ztunnel.model.workload import Workload
from ztunnel.state import kube
from ztunnel.state.istio import AuthorizationPolicy, PeerAuthentication
from ztunnel.state.networking import ServiceEntry, WorkloadEntry
from ztunnel.state.secret import Secret
from ztunnel.xds.resource import HTTP_POLICY, LABELS, TRAFFIC, name_of


def translate(inventory: Inventory, settings: MeshSettings) -> Translation:
    """Every object of the inventory, translated. Where no Secret is among them, they are elsewhere."""
    translator = Translator(settings)
    translator.credentials.untold = not any(isinstance(one, Secret) for one in inventory.objects.values())
    translator.update(inventory.objects)
    return translator.translation(inventory.unknown)


class Translator:
    """Holds the objects and what they mean. `index`, `addresses`, `policies`, `routes` and `http`, what
    waypoints are sent, are kept up to date in place, as is `refused`: what of an entry does not count, and
    why."""

    def __init__(self, settings: MeshSettings, keys_of: KeysOf = no_keys) -> None:
        self._settings = settings
        self._objects: dict[Key, Object] = {}
        self.index = Index()
        self._node_policies = NodePolicies(settings)
        self._attachments = Attachments(self.index, settings)
        self._around: dict[str, Surroundings] = {}
        self._entries = Entries(self.index, settings)
        self.waypoints = Waypoints(self.index, settings)
        self._of_entries = EntryResources()
        self.refused: dict[Key, tuple[str, ...]] = {}
        self._remarks: dict[Key, tuple[str, ...]] = {}
        self._claims = Claims()
        self._routes = ServiceRoutes(settings)
        self.routes = self._routes.routes
        self._traffic = ServiceTraffics(self._routes.registry)
        self.addresses: dict[str, Workload | Service] = {}
        self.policies = self._node_policies.in_force
        self.http = HttpResources()
        self.mesh = MeshConfigs(settings, self.http)
        self.credentials = Credentials(self.http)
        parts = Parts(self.index, self.waypoints, self._entries, settings, self._objects)
        self._at_waypoints = WaypointPolicies(parts, self.http, keys_of, self.mesh)
        self.jwt_policies = self._at_waypoints.jwt
        guards = self._at_waypoints.guards
        known = Known(self.index, self.waypoints, guards, self._entries, self._around)
        self._impact = Impact(known, settings)

    def said(self, key: Key) -> Said:
        """What there is to say of an object beside the others."""
        one, refused = self._objects.get(key), self.refused.get(key, ())
        if isinstance(one, Routing):
            return Said(routing=said_of_routing(key, one, self._routes))
        guarded = ingress = unaddressed = False
        if isinstance(one, kube.Service | ServiceEntry):
            guarded = self._at_waypoints.decide(key, one.meta.labels)
            ingress = ingress_uses(one.meta.labels, self.index.namespaces.get(key.namespace))
            unaddressed = self._is_unaddressed(one)
        said = said_of(key, one, self.waypoints, refused, guarded=guarded)
        remarks = (*self._at_waypoints.telemetries.remarks(key), *self.credentials.remarks(key))
        said = replace(said, remarks=remarks)
        return replace(
            said,
            targets=self._at_waypoints.targets_of(key, one),
            problem=self.mesh.problem(key),
            ingress=ingress,
            unaddressed=unaddressed,
        )

    def _is_unaddressed(self, one: kube.Service | ServiceEntry) -> bool:
        """Whether a service, or one of those of an entry, has no address by which it could be called."""
        names = (
            [str(service_name(one.meta.full_name, self._settings))]
            if isinstance(one, kube.Service)
            else [f"{one.meta.namespace}/{host}" for host in one.hosts]
        )
        found = (self.addresses.get(name) for name in names)
        return any(isinstance(each, Service) and not each.addresses for each in found)

    def translation(self, unknown: Iterable[str] = ()) -> Translation:
        """All of it, as it is now. `unknown` are kinds that were not read."""
        http = {url: dict(held) for url, held in self.http.in_force.items()}
        routes, held = dict(self.routes), (dict(self.addresses), dict(self.policies))
        return Translation(*held, self.warnings(unknown), routes, http, self._routes.problems())

    def warnings(self, unknown: Iterable[str] = ()) -> tuple[str, ...]:
        """What the operator should know, in an order that does not depend on that of the changes."""
        names = ", ".join(sorted(unknown))
        first, later = arrange(self._remarks)
        return (
            *first,
            *self._node_policies.remarks,
            *([f"not read: {names}"] if names else ()),
            *self.mesh.texts(),
            *later,
            *(f"{key}: {text}" for key in sorted(self.refused) for text in self.refused[key]),
            *self.waypoints.problems(),
            *self._at_waypoints.targets.texts(),
            *self._at_waypoints.telemetries.texts(),
            *self._claims.texts(),
            *self.credentials.texts(),
            *self._routes.texts(),
        )

    def update(self, changes: Mapping[Key, Object | None]) -> Delta:
        """Take over objects as they are now, None for those that are gone; what that changes."""
        delta, touched = Delta(), Touched()
        for key, new in changes.items():
            old = self._objects.get(key)
            if old is not new and old != new:
                self._keep(key, old, new)
                self._take_over(key, old, new, touched, delta)
        for gateway in touched.gateways:
            self.waypoints.note(gateway)
            self._impact.touch_bound(gateway, touched, delta)
        if touched.peers:
            self._convert_peers(touched, delta)
        self._convert_entries(touched, delta)
        for name in touched.attached:
            self._attach(name, touched, delta)
        for name in touched.services:
            self._convert_service(name, delta)
        for name in touched.pods:
            self._convert_pod(name, delta)
        self.waypoints.forget()
        self._routes.put_retries(self.mesh.defaults.retries or RetryDefault())
        self._traffic.put_baseline(self.mesh.traffic)
        delta.routes, unsettled = self._routes.update()
        delta.unsettled |= unsettled
        for routed, routes in delta.routes.items():
            self.credentials.put_routes(_service_of(routed), routes)
        for resource, traffic in self._traffic.update():
            self.credentials.put_traffic(_service_of(resource), traffic)
            self.http.put(TRAFFIC, resource, traffic, delta)
        delta.unsettled |= self._at_waypoints.renew(touched, changes)
        delta.unsettled |= self.credentials.renew(delta)
        return delta

    def _take_over(
        self, key: Key, old: Object | None, new: Object | None, touched: Touched, delta: Delta
    ) -> None:
        for one in (old, new):
            if one is not None:
                self._impact.touch(key, one, touched)
        if key.kind == AuthorizationPolicy.__name__:
            self._convert_policy(key, new, touched, delta)
        else:
            self._at_waypoints.put(key, old, new, touched, delta)
            delta.unsettled |= self.mesh.put(key, new, delta)
            self._note(key, remark(new) if new is not None else ())
        if key.kind == kube.Namespace.__name__:
            delta.unsettled.update(self._impact.of_namespace(key.name))
        if key.kind == PeerAuthentication.__name__:
            self._node_policies.put_peer(key, new if isinstance(new, PeerAuthentication) else None)
            touched.peers = True

    def _keep(self, key: Key, old: Object | None, new: Object | None) -> None:
        self.index.put(key, old, new)
        self.waypoints.put(key, old, new)
        self._routes.put(key, old, new)
        self._traffic.put(key, old, new)
        self.credentials.put(key, old, new)
        if isinstance(one := new or old, ServiceEntry | WorkloadEntry):
            self._entries.put(key, as_entry(old), as_entry(new))
            self._around.pop(one.meta.namespace, None)
        if new is None:
            del self._objects[key]
        else:
            self._objects[key] = new

    # --- what is made anew

    def _convert_policy(self, key: Key, new: Object | None, touched: Touched, delta: Delta) -> None:
        new = new if isinstance(new, AuthorizationPolicy) else None
        for guarded in self._at_waypoints.guards.put((key.namespace, key.name), new):
            touched.take(guarded)
            delta.unsettled.add(guarded)
        remarks, before, now = self._node_policies.put(key, new, delta)
        made, targets = None, new.targets if new is not None else ()
        if new is not None and targets:
            made, more = convert_http_authorization(new, self._settings)
            remarks += more
        self._at_waypoints.targets.put(key, new.meta if new is not None else None, targets)
        self.http.put(HTTP_POLICY, f"{key.namespace}/{key.name}", made, delta)
        self.mesh.put_policy(key, made)
        self._note(key, remarks)
        if before is None and now is None:
            return
        if everywhere := key.namespace == self._settings.root_namespace:
            self._around.clear()
        self._around.pop(key.namespace, None)
        if before != now:
            for namespace in self._namespaces() if everywhere else (key.namespace,):
                for each in (before, now):
                    if each is not None:
                        self._impact.touch_selected(namespace, each, touched)

    def _convert_peers(self, touched: Touched, delta: Delta) -> None:
        before = self._node_policies.convert_peers(delta)
        for namespace in self._namespaces():
            if before.of(namespace) != self._node_policies.modes.of(namespace):
                touched.pods.update(self.index.in_namespace(namespace))
                touched.entries.update(key for key, _ in self._entries.of(namespace))
        self._around.clear()

    def _namespaces(self) -> set[str]:
        """Those with workloads."""
        return {*self.index.pods, *self._entries.namespaces}

    def _convert_entries(self, touched: Touched, delta: Delta) -> None:
        """What an entry may have depends on the others: whose does, has its selected workloads made anew."""
        for key in sorted(touched.entries):
            one = self._entries.get(key)
            self._around.pop(key.namespace, None)
            if isinstance(one, ServiceEntry) and one.selector:
                self._impact.touch_selected(key.namespace, one.selector, touched)
        made, labels = {}, dict[str, WorkloadLabels | None]()
        for key in touched.entries:
            one, standing = self._entries.get(key), self._entries.standing(key)
            if standing.refused != self.refused.pop(key, ()):
                delta.unsettled.add(key)
            if standing.refused:
                self.refused[key] = standing.refused
            around, resources = self._surroundings(key.namespace), list[Workload | Service]()
            if isinstance(one, ServiceEntry):
                guarded = self._at_waypoints.decide(key, one.meta.labels)
                made_of = convert_service_entry(one, standing, around, guarded=guarded)
                resources += self._at_waypoints.of_entry(key, made_of)
            elif one is not None and (workload := convert_workload_entry(one, standing, around)):
                resources.append(workload)
            made[key] = {name_of(each): each for each in resources}
            labels |= entry_labels(one, made[key])
        for name, new in self._of_entries.replace(made):
            self._put(name, new, delta)
            self.http.put(LABELS, name, labels.get(name), delta)

    def _attach(self, name: Name, touched: Touched, delta: Delta) -> None:
        pods, endpoints = self._attachments.attach(name)
        touched.pods.update(pods)
        for uid, workload in endpoints:
            self._put(uid, workload, delta)

    def _convert_service(self, name: Name, delta: Delta) -> None:
        service, made = self.index.service(name), None
        if service is not None and service.kind != "ExternalName":
            made = convert_service(service, self.index.namespaces.get(name[0]), self._settings)
            labels, kind = service.meta.labels, kube.Service.__name__
            at = Key(kind, *name)
            guarded = self._at_waypoints.decide(at, labels)
            bound = self.waypoints.bind(labels, name[0], Traffic.SERVICE, service.bound, guarded=guarded)
            made = replace(self._at_waypoints.named(made, at, labels), waypoint=bound.waypoint)
        resource = str(service_name(name, self._settings))
        if made is not None or resource not in self._of_entries:
            self._put(resource, made, delta)

    def _convert_pod(self, name: Name, delta: Delta) -> None:
        pod, made = self.index.pod(name), None
        if pod is not None:
            made = convert_pod(pod, self.index.nodes.get(pod.node), self._surroundings(name[0]))
            bound = self.waypoints.bind(pod.meta.labels, name[0], Traffic.WORKLOAD)
            if made is not None and bound.waypoint is not None:
                made = replace(made, waypoint=bound.waypoint)
        uid = workload_uid(name, self._settings)
        self._put(uid, made, delta)
        labels = labels_for(uid, pod.meta.labels) if pod is not None and made is not None else None
        self.http.put(LABELS, uid, labels, delta)

    def _put(self, name: str, new: Workload | Service | None, delta: Delta) -> None:
        old = self.addresses.get(name)
        if old == new:
            return
        delta.addresses[name] = new
        self._claims.put(name, old, new)
        if isinstance(old, Service) or isinstance(new, Service):
            before, now = (one if isinstance(one, Service) else None for one in (old, new))
            self._routes.put_service(before, now)
            self._traffic.put_service(before, now)
            self.credentials.put_service(before, now)
        if isinstance(old, Workload) or isinstance(new, Workload):
            self.credentials.put_workload(*(one if isinstance(one, Workload) else None for one in (old, new)))
        if new is None:
            del self.addresses[name]
        else:
            self.addresses[name] = new

    def _surroundings(self, namespace: str) -> Surroundings:
        found = self._around.get(namespace)
        if found is None:
            services = self.index.services.get(namespace, {})
            joined = self._attachments.joined(namespace)
            found = self._around[namespace] = Surroundings(
                self._settings,
                self.index.namespaces.get(namespace),
                group_services((services[name] for name in sorted(services)), joined),
                tuple(self._node_policies.selecting(namespace)),
                self._node_policies.modes,
                tuple(self._entry_services(namespace)),
                self.waypoints,
            )
        return found

    def _entry_services(self, namespace: str) -> Iterator[EntryServices]:
        for key, one in self._entries.of(namespace):
            if isinstance(one, ServiceEntry) and (found := entry_services(one, self._entries.standing(key))):
                yield found

    def renew_credentials(self) -> Delta:
        """What Secrets cannot be read, or can, is another."""
        delta = Delta()
        delta.unsettled |= self.credentials.renew(delta, anew=True)
        return delta

    def _note(self, key: Key, remarks: Iterable[str]) -> None:
        self._remarks.pop(key, None)
        if texts := tuple(remarks):
            self._remarks[key] = texts


def _service_of(resource: str) -> ServiceName:
    """By `namespace/hostname`."""
    namespace, _, hostname = resource.partition("/")
    return ServiceName(namespace, hostname)
