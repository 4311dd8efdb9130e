"""A service: a name, virtual addresses, ports and a waypoint, as Istio's workload.proto describes it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import NamedTuple

from ztunnel.model.address import IPAddress


class ServiceName(NamedTuple):
    """The key of a service. Prints as on the wire: `namespace/hostname`."""

    namespace: str
    hostname: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.hostname}"


class Port(NamedTuple):
    """A port of a service and what it means at the pod; `target` 0 is a named port, which each endpoint
    resolves."""

    service: int
    target: int


class LoadBalancing(Enum):
    """workload.proto LoadBalancing.Mode."""

    STANDARD = 0
    STRICT = 1
    FAILOVER = 2
    PASSTHROUGH = 3


class Scope(Enum):
    """workload.proto LoadBalancing.Scope: what two workloads may have in common."""

    REGION = 1
    ZONE = 2
    SUBZONE = 3
    NODE = 4
    CLUSTER = 5
    NETWORK = 6


class IpFamilies(Enum):
    """workload.proto IPFamilies."""

    AUTOMATIC = 0
    IPV4_ONLY = 1
    IPV6_ONLY = 2
    DUAL = 3


class AppProtocol(StrEnum):
    """What is spoken at a service's port (Istio pkg/config/protocol); a port that says nothing has none."""

    TCP = "tcp"
    TLS = "tls"
    HTTP = "http"
    HTTP2 = "http2"
    GRPC = "grpc"


@dataclass(frozen=True, slots=True)
class Waypoint:
    """Where traffic for a workload or service has to pass: a service's name, or an address of a network."""

    service: ServiceName | None
    address: IPAddress | None
    hbone_port: int = 15008


@dataclass(frozen=True, slots=True)
class Service:
    """One service. `addresses` are its virtual addresses (VIPs) in our network; none for a headless one.
    `external` are those of them that it has at its ports only: what is there at others is not its.
    `affinity_seconds`: so long after its last call a client keeps its endpoint; 0: it does not. One that is
    not `canonical` is a name or an address of its own namespace's clients only, where another one has it for
    the mesh. One that is `private` is there for clients of its own namespace alone (Visibility NAMESPACE).
    `ingress_uses_waypoint`: gateways from outside of the mesh that call its pods by their own addresses pass
    its waypoint as well.
    `weighted_waypoints`, if there are any, share its connections by weight; `waypoint` is among them.
    `protocols` are by service port, of those that say something. `guards` are the authorization
    policies, `namespace/name`, that the service's waypoint is to enforce, or the waypoint that it is,
    `jwt_policies` those of tokens, and `rate_limits` those of rate limits."""

    name: str
    namespace: str
    hostname: str
    addresses: tuple[IPAddress, ...] = ()
    ports: tuple[Port, ...] = ()
    subject_alt_names: tuple[str, ...] = ()
    waypoint: Waypoint | None = None
    load_balancing: LoadBalancing = LoadBalancing.STANDARD
    routing_preference: tuple[Scope, ...] = ()
    include_unhealthy: bool = False
    ip_families: IpFamilies = IpFamilies.AUTOMATIC
    external: tuple[IPAddress, ...] = ()
    affinity_seconds: int = 0
    canonical: bool = True
    protocols: tuple[tuple[int, AppProtocol], ...] = ()
    guards: tuple[str, ...] = ()
    jwt_policies: tuple[str, ...] = ()
    rate_limits: tuple[str, ...] = ()
    private: bool = False
    ingress_uses_waypoint: bool = False
    weighted_waypoints: tuple[tuple[Waypoint, int], ...] = ()

    def protocol(self, port: int) -> AppProtocol | None:
        """What is spoken at a port of the service; None: it does not say."""
        return next((protocol for number, protocol in self.protocols if number == port), None)

    @property
    def key(self) -> ServiceName:
        """The name by which workloads and the control plane refer to it."""
        return ServiceName(self.namespace, self.hostname)

    def is_at(self, ip: IPAddress, port: int) -> bool:
        """Whether a call of that virtual address and port is the service's."""
        return ip not in self.external or any(each.service == port for each in self.ports)
