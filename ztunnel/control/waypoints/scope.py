"""What one waypoint is sent: what it serves, and what that leads to. Who calls it, it asks for on demand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from ztunnel.model.address import IPAddress
from ztunnel.model.provider import ExtAuthz, ExtensionProvider, OtelLog, OtelTraces, ServicePort, Zipkin
from ztunnel.model.rate_limit import RateLimitPolicy
from ztunnel.model.route import Routes
from ztunnel.model.route_action import Forward
from ztunnel.model.service import Service, ServiceName, Waypoint
from ztunnel.model.service_traffic import ServiceTraffic
from ztunnel.model.workload import Workload
from ztunnel.xds.resource import (
    ADDRESS,
    CREDENTIAL,
    HTTP_POLICY,
    JWT_POLICY,
    LABELS,
    ROUTES,
    TRAFFIC,
    Resource,
    at_address,
)
from ztunnel.xds.snapshot import Snapshot

Handle = ServiceName | IPAddress
"""By what something names its waypoint."""
Names = Mapping[str, frozenset[str]]
"""Of resources, by type."""

_BY_NAME: Final = (ROUTES, TRAFFIC, HTTP_POLICY, JWT_POLICY, CREDENTIAL)
"""Types of which it is sent some; of all others but labels and addresses it is sent everything: what holds
for the mesh holds for it."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Of one waypoint.

    Attributes:
        names: of routes: those of the services that are attached to it; of traffic policies: of these, and
            of all that their routes lead to, and of providers; of policies: those that its services name,
            and itself; of addresses: of all these services, of those of its pods, and itself; of
            credentials: those that the traffic policies name.
        services: those that have traffic policies and endpoints here; of these it is sent the labels.
        beyond: the services of other waypoints, behind which some of them are: of these it is sent the
            endpoints alone.
        own: by what it is named: it is sent the pods that are attached to it.
        places: the addresses of its services, by their names on demand; whoever else has one of them, it is
            sent as well, so that it means by an address what all others mean.
        whole: whether it is sent all addresses, as a version that asks for none on demand.
        account: the service account that its pod has, `namespace/name`: only who has proved that is sent
            credentials. Empty: its pod is not known.
    """

    names: Names = field(default_factory=dict)
    services: frozenset[ServiceName] = frozenset()
    beyond: frozenset[ServiceName] = frozenset()
    own: frozenset[Handle] = frozenset()
    places: frozenset[str] = frozenset()
    whole: bool = False
    account: str = ""

    def holds(self, snapshot: Snapshot, type_url: str, name: str) -> bool:
        """See `xds.publisher.Scope`."""
        if type_url == LABELS:
            workload = snapshot.origins[ADDRESS].get(name)
            return isinstance(workload, Workload) and not self.services.isdisjoint(workload.services)
        if type_url == ADDRESS:
            return self.whole or name in self.names.get(ADDRESS, ()) or self._leads_to(snapshot, name)
        return type_url not in _BY_NAME or name in self.names.get(type_url, ())

    def _leads_to(self, snapshot: Snapshot, name: str) -> bool:
        """Whether an address is one that its services lead to, or a pod of its own."""
        one = snapshot.origins[ADDRESS].get(name)
        if isinstance(one, Workload) and (
            handle_of(one.waypoint) in self.own
            or not self.services.isdisjoint(one.services)
            or not self.beyond.isdisjoint(one.services)
        ):
            return True
        resource = snapshot.resources[ADDRESS].get(name)
        return resource is not None and not self.places.isdisjoint(resource.aliases)


NOTHING: Final = Scope()


class NoSecrets:
    """Of whoever is no waypoint: everything but what is secret."""

    def holds(self, _snapshot: Snapshot, type_url: str, _name: str) -> bool:
        """See `xds.publisher.Scope`."""
        return type_url != CREDENTIAL


def handle_of(waypoint: Waypoint | None) -> Handle | None:
    """By what a waypoint is named."""
    return None if waypoint is None else waypoint.service or waypoint.address


def waypoints_of(service: Service) -> Iterator[Handle]:
    """By what its waypoints are named."""
    for one in (service.waypoint, *(each for each, _ in service.weighted_waypoints)):
        if (handle := handle_of(one)) is not None:
            yield handle


def handles_of(snapshot: Snapshot, workload: Workload) -> frozenset[Handle]:
    """By what a pod is named as a waypoint: see `state.lookup.is_waypoint`."""
    found: set[Handle] = {*workload.services, *workload.addresses}
    for name in workload.services:
        service = snapshot.origins[ADDRESS].get(str(name))
        if isinstance(service, Service):
            found.update(service.addresses)
    return frozenset(found)


def led_to(routes: Routes) -> Iterator[ServiceName]:
    """The services that routes send to, copies included."""
    for rule in routes.rules:
        if isinstance(rule.action, Forward):
            yield from (one.service for one in rule.action.destinations)
        yield from (mirror.destination.service for mirror in rule.mirrors)
    for each in routes.connections:
        yield from (one.service for one in each.forward.destinations)


def provided_by(provider: Resource | None) -> ServicePort | None:
    """The service that a provider is at, or who counts for a rate limit; None: it is none that is called."""
    if isinstance(provider, RateLimitPolicy):
        counts = provider.service
        return ServicePort(counts.host, counts.port) if counts is not None else None
    what = provider.what if isinstance(provider, ExtensionProvider) else None
    return what.service if isinstance(what, ExtAuthz | OtelLog | OtelTraces | Zipkin) else None


@dataclass(frozen=True, slots=True)
class Stands:
    """What a waypoint stands for.

    Attributes:
        uid: its own pod's.
        own: by what it is named.
        attached: the names of the services that are attached to it.
        through: the services of pods that are.
        provided: the services of providers, of which it may ask any.
        pods: whether pods are attached to it, of services or of none.
    """

    uid: str
    own: frozenset[Handle]
    attached: frozenset[str] = frozenset()
    through: frozenset[ServiceName] = frozenset()
    provided: frozenset[ServiceName] = frozenset()
    pods: bool = False


def scope_of(snapshot: Snapshot, stands: Stands) -> Scope:
    """What the waypoint is sent that stands for that."""
    addresses, all_routes = snapshot.origins[ADDRESS], snapshot.origins[ROUTES]
    own, attached, provided = stands.own, stands.attached, stands.provided
    mine = {str(one) for one in own if isinstance(one, ServiceName)}
    services = {*provided, *(one for one in own if isinstance(one, ServiceName))}
    guards, tokens = set[str](), set[str]()
    for name in attached | mine:
        service = addresses.get(name)
        if isinstance(service, Service):
            services.add(service.key)
            guards.update(service.guards)
            tokens.update(service.jwt_policies)
    for name in attached:
        routes = all_routes.get(name)
        if isinstance(routes, Routes):
            services.update(led_to(routes))
    beyond, places = _beyond(snapshot, services)
    names = {
        ROUTES: attached,
        TRAFFIC: frozenset(map(str, services)),
        HTTP_POLICY: frozenset(guards),
        JWT_POLICY: frozenset(tokens),
        ADDRESS: frozenset({stands.uid, *map(str, services | beyond | stands.through)}),
    }
    if attached or stands.pods:  # a pod that nothing names as its waypoint is given no Secrets
        names[CREDENTIAL] = _credentials(snapshot, stands.uid, services)
    resources = snapshot.resources[ADDRESS]
    found = (resources.get(name) for name in attached | mine)
    places.update(alias for one in found if one is not None for alias in one.aliases)
    pod = addresses.get(stands.uid)
    account = f"{pod.namespace}/{pod.service_account}" if isinstance(pod, Workload) else ""
    return Scope(names, frozenset(services), frozenset(beyond), own, frozenset(places), account=account)


def _credentials(snapshot: Snapshot, uid: str, services: Iterable[ServiceName]) -> frozenset[str]:
    """The Secrets of the waypoint's namespace that traffic policies of these services need."""
    namespace = uid.split("/")[-2] if uid.count("/") > 1 else ""
    policies = (snapshot.origins[TRAFFIC].get(str(name)) for name in services)
    return frozenset(
        f"{namespace}/{tls.credential}"
        for one in policies
        if isinstance(one, ServiceTraffic)
        for tls in one.credentials(namespace)
    )


def _beyond(snapshot: Snapshot, services: set[ServiceName]) -> tuple[set[ServiceName], set[str]]:
    """The services of the waypoints that these are attached to; the addresses by which some are named."""
    addresses, found, places = snapshot.origins[ADDRESS], set[ServiceName](), set[str]()
    for name in services:
        service = addresses.get(str(name))
        for handle in waypoints_of(service) if isinstance(service, Service) else ():
            if isinstance(handle, ServiceName):
                found.add(handle)
                continue
            place = at_address(snapshot.network, handle)
            places.add(place)
            holders = (addresses.get(each) for each in snapshot.aliases.get(place, ()))
            found.update(one.key for one in holders if isinstance(one, Service))
    return found - services, places
