"""What one waypoint is sent of what only waypoints have: what it serves, and what that leads to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from ztunnel.model.address import IPAddress
from ztunnel.model.provider import ExtAuthz, ExtensionProvider, OtelLog, OtelTraces, ServicePort, Zipkin
from ztunnel.model.rate_limit import RateLimitPolicy
from ztunnel.model.route import Routes
from ztunnel.model.route_action import Forward
from ztunnel.model.service import Service, ServiceName, Waypoint
from ztunnel.model.workload import Workload
from ztunnel.xds.resource import ADDRESS, HTTP_POLICY, JWT_POLICY, LABELS, ROUTES, TRAFFIC, Resource
from ztunnel.xds.snapshot import Snapshot

Handle = ServiceName | IPAddress
"""By what something names its waypoint."""
Names = Mapping[str, frozenset[str]]
"""Of resources, by type."""

_BY_NAME: Final = (ROUTES, TRAFFIC, HTTP_POLICY, JWT_POLICY)
"""Types of which it is sent some; of all others but the labels it is sent everything: whoever calls may be
anybody, and what holds for the mesh holds for it."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Of one waypoint.

    Attributes:
        names: of routes: those of the services that are attached to it; of traffic policies: of these, and
            of all that their routes lead to, and of providers; of policies: those that its services name,
            and itself.
        services: those that have traffic policies and endpoints here; of these it is sent the labels.
    """

    names: Names = field(default_factory=dict)
    services: frozenset[ServiceName] = frozenset()

    def holds(self, snapshot: Snapshot, type_url: str, name: str) -> bool:
        """See `xds.publisher.Scope`."""
        if type_url == LABELS:
            workload = snapshot.origins[ADDRESS].get(name)
            return isinstance(workload, Workload) and not self.services.isdisjoint(workload.services)
        return type_url not in _BY_NAME or name in self.names.get(type_url, ())


NOTHING: Final = Scope()


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


def scope_of(
    snapshot: Snapshot,
    own: frozenset[Handle],
    attached: frozenset[str],
    provided: frozenset[ServiceName] = frozenset(),
) -> Scope:
    """What the waypoint with these handles is sent, to which these services are attached. `provided` are
    those of providers, of which it may ask any."""
    addresses, all_routes = snapshot.origins[ADDRESS], snapshot.origins[ROUTES]
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
    names = {
        ROUTES: attached,
        TRAFFIC: frozenset(map(str, services)),
        HTTP_POLICY: frozenset(guards),
        JWT_POLICY: frozenset(tokens),
    }
    return Scope(names, frozenset(services))
