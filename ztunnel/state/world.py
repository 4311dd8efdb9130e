"""The world: one immutable snapshot of workloads, services and policies, indexed for the data path.

Every lookup is O(1) in workloads, and O(policies that concern the workload). A world is only ever made from
another one by `delta.apply`, which shares all that did not change; whoever holds a world may keep it as long
as it likes. Equal contents make equal worlds, whatever the order in which they arrived.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from immutables import Map

from ztunnel.errors import PeerError
from ztunnel.model.address import IPAddress
from ztunnel.model.credential import Credential
from ztunnel.model.http_policy import HttpPolicy
from ztunnel.model.identity import SpiffeId, parse_spiffe_id
from ztunnel.model.jwt import JwtPolicy
from ztunnel.model.labels import WorkloadLabels
from ztunnel.model.mesh_defaults import MeshDefaults
from ztunnel.model.policy import Policy
from ztunnel.model.provider import ExtensionProvider
from ztunnel.model.rate_limit import RateLimitPolicy
from ztunnel.model.route import Routes
from ztunnel.model.service import Service, ServiceName
from ztunnel.model.service_traffic import ServiceTraffic
from ztunnel.model.telemetry import Telemetry
from ztunnel.model.workload import Workload

EVERYWHERE = "*"
"""Under this name, which no namespace can have, `World.scoped` keeps the GLOBAL policies."""


class Policies(NamedTuple):
    """What concerns one workload. `missing` are keys that it lists and that have not been received."""

    received: tuple[Policy, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Served:
    """One service with its endpoints, in order of uid.

    `service` is None while only workloads have named it: endpoints wait until their service arrives.
    `identities` are those subject alternative names that are SPIFFE IDs; Istio ignores the others. `most` is
    a bound of the endpoints' capacities, not always the least one. `memo` is the balancer's: what it works
    out from this value alone, kept with it and forgotten with it."""

    service: Service | None
    endpoints: tuple[Workload, ...] = ()
    identities: tuple[SpiffeId, ...] = ()
    most: int = field(default=1, compare=False)
    memo: dict[Hashable, Any] = field(default_factory=dict, compare=False, repr=False)


def serve(service: Service | None, endpoints: tuple[Workload, ...], most: int) -> Served:
    """The record of a service; `endpoints` are sorted by uid, and none has a greater capacity than `most`."""
    return Served(service, endpoints, _identities(service.subject_alt_names) if service else (), most)


def _identities(names: tuple[str, ...]) -> tuple[SpiffeId, ...]:
    found = []
    for name in names:
        try:
            found.append(parse_spiffe_id(name))
        except PeerError:
            continue
    return tuple(found)


class Mark:
    """Tells one snapshot from all others."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class World:
    """One snapshot. `network` is the network that this node is in (`NETWORK`).

    The maps are for `delta`; readers use the methods. `addresses` holds workloads of our network only, and
    none with the host's network, whose address is not theirs alone; of several at one address the first is to
    be preferred. `hostnames` and `virtual` hold services in order of their keys, canonical ones first.
    What node proxies are sent none of: `http_policies`, `jwt_policies` and `rate_limits` are those of
    waypoints, by `namespace/name`, `labels` those of workloads, by uid, `routes` those of services, and
    `traffic` their policies, by `namespace/hostname`; `credentials` those of Secrets, by `namespace/name`;
    `providers` by their names, and `defaults` those of the
    mesh, under `mesh`; `telemetries` by `namespace/name`. What is worked out of one snapshot, and good for no
    other, is remembered by its `mark`, which keeps nothing of it alive.
    """

    network: str = ""
    workloads: Map[str, Workload] = field(default_factory=Map)
    addresses: Map[IPAddress, tuple[Workload, ...]] = field(default_factory=Map)
    nodes: Map[str, tuple[Workload, ...]] = field(default_factory=Map)
    served: Map[ServiceName, Served] = field(default_factory=Map)
    virtual: Map[IPAddress, tuple[Service, ...]] = field(default_factory=Map)
    hostnames: Map[str, tuple[Service, ...]] = field(default_factory=Map)
    policies: Map[str, Policy] = field(default_factory=Map)
    scoped: Map[str, tuple[Policy, ...]] = field(default_factory=Map)
    http_policies: Map[str, HttpPolicy] = field(default_factory=Map)
    jwt_policies: Map[str, JwtPolicy] = field(default_factory=Map)
    rate_limits: Map[str, RateLimitPolicy] = field(default_factory=Map)
    labels: Map[str, WorkloadLabels] = field(default_factory=Map)
    routes: Map[str, Routes] = field(default_factory=Map)
    traffic: Map[str, ServiceTraffic] = field(default_factory=Map)
    credentials: Map[str, Credential] = field(default_factory=Map, repr=False)
    providers: Map[str, ExtensionProvider] = field(default_factory=Map)
    defaults: Map[str, MeshDefaults] = field(default_factory=Map)
    telemetries: Map[str, Telemetry] = field(default_factory=Map)
    mark: Mark = field(default_factory=Mark, init=False, repr=False, compare=False)

    def workload(self, uid: str) -> Workload | None:
        """The workload of that uid."""
        return self.workloads.get(uid)

    def by_ip(self, ip: IPAddress) -> Workload | None:
        """The workload at that address of our network: a pod before others, then one that speaks HBONE."""
        found = self.addresses.get(ip)
        return found[0] if found else None

    def on_node(self, node: str) -> tuple[Workload, ...]:
        """The workloads that run on that node, in order of uid."""
        return self.nodes.get(node, ())

    def service(self, name: ServiceName) -> Service | None:
        """The service of that name."""
        served = self.served.get(name)
        return served.service if served else None

    def endpoints(self, name: ServiceName) -> tuple[Workload, ...]:
        """Who serves that name, in order of uid, the unhealthy included; the service may be unknown."""
        served = self.served.get(name)
        return served.endpoints if served else ()

    def services_at(self, ip: IPAddress) -> tuple[Service, ...]:
        """The services with that virtual address."""
        return self.virtual.get(ip, ())

    def service_at(self, ip: IPAddress) -> Service | None:
        """The first service with that virtual address; `lookup.service_at` knows which one a caller means."""
        found = self.virtual.get(ip)
        return found[0] if found else None

    def services_named(self, hostname: str) -> tuple[Service, ...]:
        """The services with that hostname."""
        return self.hostnames.get(hostname, ())

    def policies_for(self, workload: Workload) -> Policies:
        """The policies about connections to `workload`: the mesh's, its namespace's, those it lists."""
        received = self.scoped.get(EVERYWHERE, ()) + self.scoped.get(workload.namespace, ())
        keys = workload.authorization_policies
        if not keys:
            return Policies(received, ())
        selected = [self.policies.get(key) for key in keys]
        missing = tuple(key for key, policy in zip(keys, selected, strict=True) if policy is None)
        return Policies(received + tuple(policy for policy in selected if policy is not None), missing)
