"""What a tunnel to a waypoint asks for, and how what is in it is treated (Istio's listener_waypoint.go: the
filter chain that an original destination is matched with).

A waypoint stands for what is attached to it and for nothing else: asked for any other address, it refuses, so
that nobody calls around a policy in a waypoint's name.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ztunnel.errors import NoDestination
from ztunnel.model.address import Endpoint, OriginalDestination
from ztunnel.model.service import AppProtocol, Service
from ztunnel.model.workload import Workload
from ztunnel.state.lookup import is_waypoint, service_at, target_port
from ztunnel.state.world import World

SERVER_FIRST = frozenset((25, 53, 3306, 27017))
"""SMTP, DNS, MySQL, MongoDB: the server speaks first, so nothing can be found out (Istio's
pkg/config/protocol, well-known ports)."""


class Treatment(Enum):
    """How the bytes are treated; DETECT finds out by the first of them."""

    TCP = "tcp"
    HTTP = "http"
    DETECT = "detect"


@dataclass(frozen=True, slots=True)
class Chain:
    """One destination and its treatment; `service` is None for a pod that was called by its own address,
    `protocol` where nothing is declared."""

    destination: OriginalDestination
    service: Service | None
    treatment: Treatment
    protocol: AppProtocol | None = None

    def cluster(self, protocol: str) -> str:
        """What Envoy at Istio's waypoint calls the upstreams of it."""
        if self.service is None:
            return "encap"
        return f"inbound-vip|{self.destination.port}|{protocol}|{self.service.hostname}"

    def version(self, asked: int, grpc: bool) -> int:
        """The version of HTTP that the server is asked in, where the client asked in version `asked`: what
        the port says (Istio's setUpstreamProtocol), and the client's where it says nothing.

        A port called `http` is HTTP/1.1. `grpc`: not for a call of gRPC, which there is in HTTP/2 only.
        """
        return http_version(self.protocol, asked, grpc)


def http_version(protocol: AppProtocol | None, asked: int, grpc: bool) -> int:
    """The same for any port, by what it speaks."""
    if protocol in (AppProtocol.HTTP2, AppProtocol.GRPC):
        return 2
    return 1 if protocol is AppProtocol.HTTP and not grpc else asked


def chain_of(world: World, waypoint: Workload, asked: Endpoint, *, attached: bool = True) -> Chain:
    """The chain of an address that `waypoint` is asked for; with `attached` False whether or not the waypoint
    stands for it.

    Raises:
        NoDestination: the waypoint does not stand for it, or it is nobody's.
    """
    destination = OriginalDestination(asked.ip, asked.port)
    workload = world.by_ip(asked.ip)
    if workload is not None:
        if attached and (workload.waypoint is None or not is_waypoint(world, waypoint, workload.waypoint)):
            name = f"{workload.namespace}/{workload.name}"
            raise NoDestination(f"{asked}: this waypoint does not stand for {name}")
        protocol = _declared(world, workload, asked.port)
        return Chain(destination, None, _treatment(protocol, asked.port), protocol)
    service = service_at(world, asked, waypoint.namespace, hidden=True)
    if service is None:
        raise NoDestination(f"{asked}: no service has this address")
    if attached and (service.waypoint is None or not is_waypoint(world, waypoint, service.waypoint)):
        raise NoDestination(f"{asked}: this waypoint does not stand for {service.key}")
    if not any(port.service == asked.port for port in service.ports):
        raise NoDestination(f"{asked}: {service.key} has no port {asked.port}")
    protocol = service.protocol(asked.port)
    return Chain(destination, service, _treatment(protocol, asked.port), protocol)


def _declared(world: World, workload: Workload, port: int) -> AppProtocol | None:
    """What the services of a pod say of one of its ports; None where they say nothing, or not the same."""
    said = {
        service.protocol(each.service)
        for name in workload.services
        if (service := world.service(name)) is not None
        for each in service.ports
        if target_port(service, workload, each.service) == port
    }
    return said.pop() if len(said) == 1 else None


def jwt_policies_of(world: World, waypoint: Workload, chain: Chain) -> tuple[str, ...]:
    """The RequestAuthentications of that chain: those of what is called, and its own."""
    names = list(waypoint.services)
    if chain.service is not None:
        names.append(chain.service.key)
    found = (world.service(name) for name in names)
    return tuple(dict.fromkeys(each for one in found if one is not None for each in one.jwt_policies))


def _treatment(protocol: AppProtocol | None, port: int) -> Treatment:
    if protocol is None:
        return _detected(port)
    return Treatment.TCP if protocol in (AppProtocol.TCP, AppProtocol.TLS) else Treatment.HTTP


def _detected(port: int) -> Treatment:
    return Treatment.TCP if port in SERVER_FIRST else Treatment.DETECT
