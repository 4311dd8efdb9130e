"""ServiceEntries and WorkloadEntries as Istio's services and workloads.

Follows istio/istio pilot/pkg/serviceregistry/ambient: services.go (constructServiceEntries), workloads.go
(workloadEntryWorkloadBuilder, serviceEntryWorkloadBuilder, constructServicesFromWorkloadEntry). Differences:
what an entry may not claim is left out (`ownership.py`); a service's virtual addresses are its at its ports
only, as what is there at others is somebody's whom nobody has told us about; a WorkloadEntry that is not
healthy is told so; and where an endpoint is reached in plaintext its address is not taken for its own, as
istiod has it of endpoints in slices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from ztunnel.control.services.claim import Entry, has_tunnel, labels_of, speaks_hbone
from ztunnel.control.services.ownership import Standing
from ztunnel.control.services.service import (
    EntryServices,
    app_protocol,
    ingress_uses,
    load_balancing,
    service_name,
)
from ztunnel.control.services.workload import Surroundings, canonical_names, policies_for
from ztunnel.control.source.document import Key
from ztunnel.control.waypoints.waypoint import Traffic
from ztunnel.model.address import IPAddress
from ztunnel.model.service import LoadBalancing, Port, Service, ServiceName, Waypoint
from ztunnel.model.workload import TunnelProtocol, Workload
from ztunnel.state import kube
from ztunnel.state.networking import EntryEndpoint, EntryPort, Resolution, ServiceEntry, WorkloadEntry

_ALLOCATE: Final = "networking.istio.io/enable-autoallocate-ip"

Services = Mapping[ServiceName, tuple[Port, ...]]


@dataclass(frozen=True, slots=True)
class _Made:
    """What a workload is made of beside its entry and endpoint."""

    uid: str
    services: Services
    healthy: bool = True


def entry_services(entry: ServiceEntry, standing: Standing) -> EntryServices | None:
    """What workloads of its namespace serve by being selected; None where it selects none."""
    if not entry.selector or not standing.hosts:
        return None
    return EntryServices(entry.selector, _names(entry, standing), entry.ports)


def convert_service_entry(
    entry: ServiceEntry, standing: Standing, around: Surroundings, *, guarded: bool = False
) -> Iterator[Service | Workload]:
    """A service for each of its hosts that counts, and a workload for each endpoint that it names; where it
    names none and they are found by DNS, its hosts are its endpoints. `guarded`: see `Waypoints.bind`."""
    if not standing.hosts:
        return
    yield from _services(entry, standing, around, guarded=guarded)
    names = _names(entry, standing)
    for one in standing.endpoints:
        yield _inline(entry, one, names, around)
    if entry.resolution.by_name and not entry.endpoints and entry.selector is None:
        for host, name in zip(standing.hosts, names, strict=True):
            if not host.startswith("*."):
                yield _inline(entry, EntryEndpoint(host, None, {}, {}), (name,), around)


def convert_workload_entry(entry: WorkloadEntry, standing: Standing, around: Surroundings) -> Workload | None:
    """Its workload; None where its address is somebody else's."""
    if not standing.endpoints:
        return None
    one = entry.endpoint
    services = {
        service_name(service.meta.full_name, around.settings): _behind_service(service, one)
        for service in around.services.selecting(entry.labels)
    }
    for each in around.entries:
        if each.selects(entry.labels):
            services |= dict.fromkeys(each.names, _behind_entry(each.ports, one))
    return _workload(entry, one, _Made(_uid(entry, around), services, entry.healthy), around)


def _services(
    entry: ServiceEntry, standing: Standing, around: Surroundings, *, guarded: bool
) -> Iterator[Service]:
    mode, preference = load_balancing(entry.meta, around.namespace)
    passthrough = entry.resolution is Resolution.NONE
    waypoint = None
    if around.waypoints is not None:
        place = entry.meta.labels, entry.meta.namespace, Traffic.SERVICE
        waypoint = around.waypoints.bind(*place, entry.bound, guarded=guarded).waypoint
    for host in standing.hosts:
        addresses = standing.addresses or _allocated(entry, standing, host)
        yield Service(
            name=entry.meta.name,
            namespace=entry.meta.namespace,
            hostname=host,
            addresses=addresses,
            ports=tuple(Port(port.port, port.target) for port in entry.ports),
            protocols=tuple(
                (port.port, said) for port in entry.ports if (said := app_protocol(port.protocol)) is not None
            ),
            subject_alt_names=entry.subject_alt_names,
            load_balancing=LoadBalancing.PASSTHROUGH if passthrough else mode,
            routing_preference=() if passthrough else preference,
            include_unhealthy=passthrough,
            external=addresses,
            canonical=host in standing.canonical,
            ingress_uses_waypoint=ingress_uses(entry.meta.labels, around.namespace),
            waypoint=waypoint,
        )


def _allocated(entry: ServiceEntry, standing: Standing, host: str) -> tuple[IPAddress, ...]:
    """Addresses that somebody has allocated (istiod: ShouldV2AutoAllocateIP)."""
    if entry.addresses or entry.resolution is Resolution.NONE:
        return ()
    if entry.meta.labels.get(_ALLOCATE, "true") == "false":
        return ()
    if host.startswith("*.") and entry.resolution is not Resolution.DYNAMIC_DNS:
        return ()
    return standing.allocated.get(host, ())


def _names(entry: ServiceEntry, standing: Standing) -> tuple[ServiceName, ...]:
    return tuple(ServiceName(entry.meta.namespace, host) for host in standing.hosts)


def _inline(
    entry: ServiceEntry, one: EntryEndpoint, names: tuple[ServiceName, ...], around: Surroundings
) -> Workload:
    services = dict.fromkeys(names, _behind_entry(entry.ports, one))
    return _workload(entry, one, _Made(f"{_uid(entry, around)}/{one.address}", services), around)


def _workload(entry: Entry, one: EntryEndpoint, made: _Made, around: Surroundings) -> Workload:
    meta, settings, labels = entry.meta, around.settings, labels_of(entry)
    name, revision = canonical_names(labels, meta.name)
    in_mesh = speaks_hbone(entry)
    own = labels if isinstance(entry, WorkloadEntry) else one.labels
    waypoint = _waypoint(own, entry, around)
    return Workload(
        uid=made.uid,
        name=meta.name,
        namespace=meta.namespace,
        service_account=one.service_account or "default",
        trust_domain=settings.trust_domain,
        addresses=(one.ip,) if one.ip is not None else (),
        protocol=TunnelProtocol.HBONE if in_mesh else TunnelProtocol.NONE,
        network=one.network or settings.network,
        cluster=settings.cluster,
        workload_name=meta.name,
        canonical_name=name,
        canonical_revision=revision,
        services=made.services,
        authorization_policies=policies_for(meta.namespace, labels, around),
        healthy=made.healthy,
        waypoint=waypoint,
        host_network=not in_mesh and waypoint is None,
        native_tunnel=has_tunnel(labels),
        capacity=one.weight or 1,
        hostname=one.name,
        locality=one.locality,
    )


def _waypoint(labels: Mapping[str, str], entry: Entry, around: Surroundings) -> Waypoint | None:
    """That of a workload."""
    hosts_only = isinstance(entry, ServiceEntry) and not entry.endpoints
    if around.waypoints is None or hosts_only:
        return None
    return around.waypoints.bind(labels, entry.meta.namespace, Traffic.WORKLOAD).waypoint


def _uid(entry: Entry, around: Surroundings) -> str:
    kind, meta = type(entry).__name__, entry.meta
    return f"{around.settings.cluster}/networking.istio.io/{kind}/{meta.namespace}/{meta.name}"


def _behind_entry(ports: tuple[EntryPort, ...], one: EntryEndpoint) -> tuple[Port, ...]:
    """The endpoint's own ports for a ServiceEntry: by the names of its ports, else the target ports."""
    return tuple(Port(port.port, one.ports.get(port.name, port.target)) for port in ports)


def _behind_service(service: kube.Service, one: EntryEndpoint) -> tuple[Port, ...]:
    """Its own ports for a Service: by the name of the target port, which it has to have; else by the name of
    the port, else the target port."""
    found = []
    for port in service.ports:
        if isinstance(port.target, int):
            target = one.ports.get(port.name, port.target)
        else:
            target = one.ports.get(port.target, 0)
        if target:
            found.append(Port(port.port, target))
    return tuple(found)


class EntryResources:
    """What each entry was made into, by the names of the resources."""

    def __init__(self) -> None:
        self._names: dict[Key, frozenset[str]] = {}
        self._keys: dict[str, Key] = {}

    def replace(
        self, made: Mapping[Key, Mapping[str, Service | Workload]]
    ) -> Iterator[tuple[str, Service | Workload | None]]:
        """These entries are made into that now, the names of which no two have in common; what changes by
        it: each name with what it is now, None where it is nothing. One entry may take over another's."""
        wanted = {name: one for resources in made.values() for name, one in resources.items()}
        for key, resources in made.items():
            for name in self._names.pop(key, frozenset()):
                if self._keys.get(name) == key:
                    del self._keys[name]
                    if name not in wanted:
                        yield name, None
            if resources:
                self._names[key] = frozenset(resources)
        for key, resources in made.items():
            self._keys |= dict.fromkeys(resources, key)
        yield from wanted.items()

    def __contains__(self, name: str) -> bool:
        """Whether the resource of that name is an entry's."""
        return name in self._keys
