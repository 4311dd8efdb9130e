"""Questions that several decisions ask of a world: which service is meant, which address, which port."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address

from ztunnel.model.address import Endpoint, IPAddress
from ztunnel.model.labels import Label
from ztunnel.model.provider import ExtAuthz
from ztunnel.model.service import IpFamilies, Service, Waypoint
from ztunnel.model.workload import TunnelProtocol, Workload
from ztunnel.state.world import Served, World, serve

OUTBOUND_PORT, INBOUND_PORT, HBONE_PORT = 15001, 15006, 15008
ILLEGAL_PORTS = frozenset({OUTBOUND_PORT, INBOUND_PORT, HBONE_PORT})
"""Our own listeners in each pod: a call that reached them through us would come back to us."""


def service_at(world: World, called: Endpoint, namespace: str, *, hidden: bool = False) -> Service | None:
    """The service that a client in `namespace` means by a virtual address and port: preferably one of its
    own, else the canonical one (ztunnel src/state/service.rs, `get_best_match`); with `hidden` also of those
    that are there for another namespace alone."""
    found = world.services_at(called.ip)
    for service in found:
        if not service.is_at(called.ip, called.port):
            found = tuple(each for each in found if each.is_at(called.ip, called.port))
            break
    return _preferred(found, namespace, hidden)


def concerns(world: World, ip: IPAddress) -> bool:
    """Whether something is to be decided about calls to this address: a service's, or a workload's that
    speaks HBONE or stands behind a waypoint. All others go where the application wanted to go, as they
    are."""
    if world.services_at(ip):
        return True
    workload = world.by_ip(ip)
    return workload is not None and (
        workload.protocol is not TunnelProtocol.NONE or workload.waypoint is not None
    )


def service_named(world: World, hostname: str, namespace: str) -> Service | None:
    """The service of that hostname, one in `namespace` if there is."""
    return _preferred(world.services_named(hostname), namespace)


def _preferred(services: tuple[Service, ...], namespace: str, hidden: bool = False) -> Service | None:
    first = None
    for service in services:
        if service.namespace == namespace:
            return service
        if first is None and (hidden or not service.private):
            first = service
    return first


def service_of(world: World, workload: Workload, hostname: str) -> Service | None:
    """The service of that hostname of which `workload` is an endpoint; None if it is of none."""
    found = None
    for name in workload.services:
        if name.hostname == hostname and (found is None or name.namespace == workload.namespace):
            found = world.service(name) or found
    return found


def target_port(service: Service, workload: Workload, port: int) -> int:
    """The workload's port behind a service's `port`: by its own word, else by the service's; 0 if none."""
    for candidate in workload.services.get(service.key, ()):
        if candidate.service == port and candidate.target:
            return candidate.target
    for candidate in service.ports:
        if candidate.service == port:
            return candidate.target
    return 0


def address_of(workload: Workload, asked: IPAddress, families: IpFamilies) -> IPAddress | None:
    """The address by which to reach a workload (ztunnel src/state.rs, `get_workload_ip`).

    `asked` itself if it is the workload's; else the first one that `families` admits, of the family of
    `asked` if there is one.
    """
    fallback = None
    for ip in workload.addresses:
        if ip == asked:
            return ip
        if not _admits(families, ip):
            continue
        if fallback is None or (ip.version == asked.version != fallback.version):
            fallback = ip
    return fallback


def _admits(families: IpFamilies, ip: IPAddress) -> bool:
    if families is IpFamilies.IPV4_ONLY:
        return isinstance(ip, IPv4Address)
    return families is not IpFamilies.IPV6_ONLY or not isinstance(ip, IPv4Address)


def is_waypoint(world: World, workload: Workload, waypoint: Waypoint) -> bool:
    """Whether `workload` is a pod of that waypoint: what it sends does not pass through it again."""
    if waypoint.service is not None:
        return waypoint.service in workload.services
    if waypoint.address in workload.addresses:
        return True
    services = world.services_at(waypoint.address) if waypoint.address is not None else ()
    return any(service.key in workload.services for service in services)


def guards_of(world: World, waypoint: Workload, service: Service | None) -> tuple[str, ...]:
    """The authorization policies that `waypoint` has to enforce where `service` is called, or a pod by its
    own address: those of the service, and its own."""
    names = list(waypoint.services)
    if service is not None:
        names.append(service.key)
    found = (world.service(name) for name in names)
    return tuple(dict.fromkeys(guard for one in found if one is not None for guard in one.guards))


def rate_limits_of(world: World, waypoint: Workload, service: Service | None) -> tuple[str, ...]:
    """The rate limits that `waypoint` has to enforce where `service` is called, or a pod by its own address:
    those of the service, and its own."""
    names = list(waypoint.services)
    if service is not None:
        names.append(service.key)
    found = (world.service(name) for name in names)
    return tuple(dict.fromkeys(each for one in found if one is not None for each in one.rate_limits))


@dataclass(frozen=True, slots=True)
class Authorizer:
    """An external authorizer: its provider, and the service that is asked."""

    name: str
    provider: ExtAuthz
    service: Service


def authorizer_of(world: World, name: str) -> Authorizer | str:
    """The authorizer that policies call so; or why there is none, for which what they match is refused."""
    found = world.providers.get(name)
    if found is None:
        return f"there is no provider of the name {name!r} (extensionProviders)"
    provider = found.what
    if not isinstance(provider, ExtAuthz):
        return f"the provider {name!r} is no authorizer"
    at = provider.service
    for service in world.services_named(at.hostname):
        if at.namespace in ("", service.namespace):
            if all(port.service != at.port for port in service.ports):
                return f"the provider {name!r}: {service.key} has no port {at.port}"
            return Authorizer(name, provider, service)
    return f"the provider {name!r}: there is no service {at}"


def subset_of(world: World, served: Served, labels: Iterable[Label]) -> Served:
    """A service with those of its endpoints that have all these labels."""
    wanted = frozenset(labels)
    if not wanted:
        return served
    endpoints = tuple(
        each
        for each in served.endpoints
        if (found := world.labels.get(each.uid)) is not None and wanted <= found.labels
    )
    return serve(served.service, endpoints, served.most)


def address_towards(service: Service | None, called: IPAddress) -> IPAddress:
    """An address of the service, of the family that was called if it has one of it."""
    addresses = service.addresses if service is not None else ()
    alike = (ip for ip in addresses if ip.version == called.version)
    return next(alike, addresses[0] if addresses else called)
