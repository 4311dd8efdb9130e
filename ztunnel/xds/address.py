"""Workloads and services as messages of istio.workload, both ways.

Fields that the model has no place for are left out on the way in (application tunnels, network gateways,
ranges of virtual addresses), as are virtual addresses of other networks than ours."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Final, TypeVar

from ztunnel.errors import PeerError
from ztunnel.model.address import IPAddress, parse_packed
from ztunnel.model.service import (
    IpFamilies,
    LoadBalancing,
    Port,
    Scope,
    Service,
    ServiceName,
    Waypoint,
)
from ztunnel.model.workload import Locality, TunnelProtocol, Workload, WorkloadKind
from ztunnel.xds.extension import (
    GUARDS,
    JWT_POLICIES,
    RATE_LIMITS,
    extend_service,
    extend_workload,
    read_affinity,
    read_draining,
    read_external,
    read_forwards,
    read_gateway,
    read_left_to,
    read_names,
    read_pod_uid,
    read_protocols,
    read_same_node,
)
from ztunnel.xds.pb import workload_pb2 as pb

_DEFAULT_TRUST_DOMAIN = "cluster.local"
_DEFAULT_CLUSTER = "Kubernetes"
_DEFAULT_HBONE_PORT = 15008
_KINDS = {
    WorkloadKind.DEPLOYMENT: pb.DEPLOYMENT,
    WorkloadKind.CRONJOB: pb.CRONJOB,
    WorkloadKind.POD: pb.POD,
    WorkloadKind.JOB: pb.JOB,
}
_KINDS_BY_NUMBER: Final = {int(number): kind for kind, number in _KINDS.items()}
_Scope = pb.LoadBalancing.Scope
_E = TypeVar("_E", bound=Enum)


def render_workload(workload: Workload) -> pb.Workload:
    """The message of a workload. Defaults are left out, as istiod does."""
    made = pb.Workload(
        uid=workload.uid,
        name=workload.name,
        namespace=workload.namespace,
        addresses=[ip.packed for ip in workload.addresses],
        network=workload.network,
        tunnel_protocol=pb.HBONE if workload.protocol is TunnelProtocol.HBONE else pb.NONE,
        trust_domain="" if workload.trust_domain == _DEFAULT_TRUST_DOMAIN else workload.trust_domain,
        service_account=workload.service_account,
        node=workload.node,
        canonical_name=workload.canonical_name,
        canonical_revision=workload.canonical_revision,
        workload_type=_KINDS[workload.kind],
        workload_name=workload.workload_name,
        native_tunnel=workload.native_tunnel,
        authorization_policies=workload.authorization_policies,
        status=pb.HEALTHY if workload.healthy else pb.UNHEALTHY,
        cluster_id=workload.cluster,
        hostname=workload.hostname,
        network_mode=pb.HOST_NETWORK if workload.host_network else pb.STANDARD,
    )
    for name, ports in workload.services.items():
        made.services[str(name)].ports.extend(_render_ports(ports))
    if workload.waypoint is not None:
        made.waypoint.CopyFrom(_render_waypoint(workload.waypoint, workload.network))
    if workload.locality != Locality():
        place = workload.locality
        made.locality.CopyFrom(pb.Locality(region=place.region, zone=place.zone, subzone=place.subzone))
    if workload.capacity != 1:
        made.capacity.value = workload.capacity
    extend_workload(made, workload)
    return made


def parse_workload(untrusted: pb.Workload) -> Workload:
    """The workload of a message.

    Raises:
        PeerError: no uid, an address that is none, a number outside its range, an enum's value that we do not
    know."""
    it = untrusted
    if not it.uid:
        raise PeerError("a workload needs a uid")
    return Workload(
        uid=it.uid,
        name=it.name,
        namespace=it.namespace,
        service_account=it.service_account or "default",
        trust_domain=it.trust_domain or _DEFAULT_TRUST_DOMAIN,
        addresses=tuple(map(parse_packed, it.addresses)),
        node=it.node,
        protocol=_member(TunnelProtocol, it.tunnel_protocol),
        same_node=read_same_node(it.extensions),
        network=it.network,
        cluster=it.cluster_id or _DEFAULT_CLUSTER,
        kind=_kind(it.workload_type),
        workload_name=it.workload_name,
        canonical_name=it.canonical_name,
        canonical_revision=it.canonical_revision,
        services={_service_name(name): _parse_ports(ports.ports) for name, ports in it.services.items()},
        authorization_policies=tuple(it.authorization_policies),
        waypoint=_parse_waypoint(it.waypoint) if it.HasField("waypoint") else None,
        healthy=it.status == pb.HEALTHY,
        draining=read_draining(it.extensions),
        host_network=it.network_mode == pb.HOST_NETWORK,
        forwards=read_forwards(it.extensions),
        native_tunnel=it.native_tunnel,
        capacity=it.capacity.value if it.HasField("capacity") else 1,
        hostname=it.hostname,
        locality=Locality(it.locality.region, it.locality.zone, it.locality.subzone),
        pod_uid=read_pod_uid(it.extensions),
        left_to=read_left_to(it.extensions),
        gateway=read_gateway(it.extensions),
    )


def render_service(service: Service, network: str) -> pb.Service:
    """The message of a service, whose addresses are of `network`."""
    made = pb.Service(
        name=service.name,
        namespace=service.namespace,
        hostname=service.hostname,
        addresses=[pb.NetworkAddress(network=network, address=ip.packed) for ip in service.addresses],
        ports=_render_ports(service.ports),
        subject_alt_names=service.subject_alt_names,
        ip_families=pb.IPFamilies.ValueType(service.ip_families.value),
        canonical=service.canonical,
        visibility=pb.Service.NAMESPACE if service.private else pb.Service.PUBLIC,
    )
    if service.waypoint is not None:
        made.waypoint.CopyFrom(_render_waypoint(service.waypoint, network))
    made.ingress_use_waypoint = service.ingress_uses_waypoint
    for waypoint, weight in service.weighted_waypoints:
        made.weighted_waypoints.add(destination=_render_waypoint(waypoint, network), weight=weight)
    balancing = pb.LoadBalancing(
        routing_preference=[_Scope.ValueType(scope.value) for scope in service.routing_preference],
        mode=pb.LoadBalancing.Mode.ValueType(service.load_balancing.value),
        health_policy=pb.LoadBalancing.ALLOW_ALL
        if service.include_unhealthy
        else pb.LoadBalancing.ONLY_HEALTHY,
    )
    if balancing != pb.LoadBalancing():
        made.load_balancing.CopyFrom(balancing)
    extend_service(made, service)
    return made


def parse_service(untrusted: pb.Service, network: str) -> Service:
    """The service of a message, with those of its virtual addresses that are of `network`.

    Raises:
        PeerError: no hostname, an address that is none, a number outside its range, an unknown value of an
    enum."""
    it = untrusted
    if not it.hostname:
        raise PeerError("a service needs a hostname")
    return Service(
        name=it.name,
        namespace=it.namespace,
        hostname=it.hostname,
        addresses=tuple(ip for one in it.addresses if one.network == network for ip in _single(one)),
        ports=_parse_ports(it.ports),
        subject_alt_names=tuple(it.subject_alt_names),
        waypoint=_parse_waypoint(it.waypoint) if it.HasField("waypoint") else None,
        load_balancing=_member(LoadBalancing, it.load_balancing.mode),
        routing_preference=tuple(
            _member(Scope, scope) for scope in it.load_balancing.routing_preference if scope
        ),
        include_unhealthy=it.load_balancing.health_policy == pb.LoadBalancing.ALLOW_ALL,
        ip_families=_member(IpFamilies, it.ip_families),
        external=read_external(it.extensions),
        affinity_seconds=read_affinity(it.extensions),
        canonical=it.canonical,
        weighted_waypoints=tuple(
            (_parse_waypoint(each.destination), each.weight) for each in it.weighted_waypoints
        ),
        ingress_uses_waypoint=it.ingress_use_waypoint,
        private=it.visibility != pb.Service.PUBLIC,
        protocols=read_protocols(it.extensions),
        guards=read_names(it.extensions, GUARDS),
        jwt_policies=read_names(it.extensions, JWT_POLICIES),
        rate_limits=read_names(it.extensions, RATE_LIMITS),
    )


def _render_ports(ports: Iterable[Port]) -> list[pb.Port]:
    return [pb.Port(service_port=port.service, target_port=port.target) for port in ports]


def _parse_ports(untrusted: Iterable[pb.Port]) -> tuple[Port, ...]:
    ports = tuple(Port(one.service_port, one.target_port) for one in untrusted)
    for port in ports:
        if port.service > 65535 or port.target > 65535:
            raise PeerError(f"a port is at most 65535: {port.service}, {port.target}")
    return ports


def _render_waypoint(waypoint: Waypoint, network: str) -> pb.GatewayAddress:
    made = pb.GatewayAddress(hbone_mtls_port=waypoint.hbone_port)
    if waypoint.service is not None:
        made.hostname.CopyFrom(pb.NamespacedHostname(**waypoint.service._asdict()))
    elif waypoint.address is not None:
        made.address.CopyFrom(pb.NetworkAddress(network=network, address=waypoint.address.packed))
    return made


def _parse_waypoint(untrusted: pb.GatewayAddress) -> Waypoint:
    port = untrusted.hbone_mtls_port or _DEFAULT_HBONE_PORT
    if port > 65535:
        raise PeerError(f"a port is at most 65535: {port}")
    where = untrusted.WhichOneof("destination")
    if where == "hostname":
        return Waypoint(ServiceName(untrusted.hostname.namespace, untrusted.hostname.hostname), None, port)
    if where == "address":
        return Waypoint(None, parse_packed(untrusted.address.address), port)
    raise PeerError("a waypoint needs a hostname or an address")


def _single(untrusted: pb.NetworkAddress) -> tuple[IPAddress, ...]:
    """The address, or nothing where it is a range."""
    ip = parse_packed(untrusted.address)
    is_range = untrusted.HasField("length") and untrusted.length != 8 * len(untrusted.address)
    return () if is_range else (ip,)


def _service_name(untrusted: str) -> ServiceName:
    namespace, separator, hostname = untrusted.partition("/")
    if not separator or not hostname:
        raise PeerError(f"a service is named namespace/hostname: {untrusted[:80]!r}")
    return ServiceName(namespace, hostname)


def _kind(untrusted: int) -> WorkloadKind:
    try:
        return _KINDS_BY_NUMBER[untrusted]
    except KeyError as error:
        raise PeerError(f"unknown workload type {untrusted}") from error


def _member(kind: type[_E], untrusted: int) -> _E:
    try:
        return kind(untrusted)
    except ValueError as error:
        raise PeerError(f"unknown {kind.__name__} {untrusted}") from error
