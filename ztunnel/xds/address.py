"""Workloads and services as messages of istio.workload, both ways.

Fields that the model has no place for are left out on the way in (application tunnels, network gateways,
ranges of virtual addresses), as are virtual addresses of other networks than ours."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Final, TypeVar

from google.protobuf.message import DecodeError, Message
from google.protobuf.wrappers_pb2 import BoolValue, StringValue, UInt32Value

from ztunnel.errors import PeerError
from ztunnel.model.address import IPAddress, parse_ip, parse_packed
from ztunnel.model.service import (
    AppProtocol,
    IpFamilies,
    LoadBalancing,
    Port,
    Scope,
    Service,
    ServiceName,
    Waypoint,
)
from ztunnel.model.workload import LeftTo, Locality, SameNode, TunnelProtocol, Workload, WorkloadKind
from ztunnel.xds.pb import workload_pb2 as pb

SAME_NODE: Final = "ztunnel.io/same-node"
"""Name of our extension of a workload: a StringValue, one of the values of `SameNode`."""

DRAINING: Final = "ztunnel.io/draining"
"""Another one: a BoolValue, whether the workload terminates and still serves."""

POD_UID: Final = "ztunnel.io/pod-uid"
"""Another one: a StringValue, what the kubelet knows the pod by."""

LEFT_TO: Final = "ztunnel.io/left-to"
"""Another one: a StringValue, one of the values of `LeftTo`."""

EXTERNAL: Final = "ztunnel.io/external-addresses"
"""Name of our extension of a service: a StringValue, those of its addresses that it has at its ports only."""

GATEWAY: Final = "ztunnel.io/gateway"
"""Name of our extension of a workload that brings calls from outside into the mesh: a BoolValue."""

AFFINITY: Final = "ztunnel.io/session-affinity"
"""Another one of a service: a UInt32Value, for how many seconds after its last call a client keeps its
endpoint. Istio's protocol has no place for it."""

PROTOCOLS: Final = "ztunnel.io/protocols"
"""What is spoken at a service's ports: a StringValue, `80=http 9000=grpc`. Istio's protocol has no place."""

GUARDS: Final = "ztunnel.io/guards"
"""The policies that a service's waypoint is to enforce: a StringValue, `shop/only-get shop/other`. To Istio's
waypoints istiod gives the policies themselves."""

JWT_POLICIES: Final = "ztunnel.io/jwt-policies"
"""The same of RequestAuthentications."""

RATE_LIMITS: Final = "ztunnel.io/rate-limits"
"""The same of RateLimitPolicies."""

FORWARDING: Final = "ztunnel.io/forwarding"
"""Name of our extension of a workload that may forward: a StringValue, `allow`."""

_ALLOW = "allow"
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
    _extend(made, workload)
    return made


def _extend(made: pb.Workload, workload: Workload) -> None:
    """What Istio has no field for."""
    if workload.draining:
        made.extensions.add(name=DRAINING).config.Pack(BoolValue(value=True))
    if workload.same_node is not SameNode.AUTO:
        made.extensions.add(name=SAME_NODE).config.Pack(StringValue(value=workload.same_node.value))
    if workload.pod_uid:
        made.extensions.add(name=POD_UID).config.Pack(StringValue(value=workload.pod_uid))
    if workload.left_to:
        made.extensions.add(name=LEFT_TO).config.Pack(StringValue(value=workload.left_to.value))
    if workload.gateway:
        made.extensions.add(name=GATEWAY).config.Pack(BoolValue(value=True))
    if workload.forwards:
        made.extensions.add(name=FORWARDING).config.Pack(StringValue(value=_ALLOW))


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
        same_node=_same_node(it.extensions),
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
        draining=_draining(it.extensions),
        host_network=it.network_mode == pb.HOST_NETWORK,
        forwards=_forwards(it.extensions),
        native_tunnel=it.native_tunnel,
        capacity=it.capacity.value if it.HasField("capacity") else 1,
        hostname=it.hostname,
        locality=Locality(it.locality.region, it.locality.zone, it.locality.subzone),
        pod_uid=_pod_uid(it.extensions),
        left_to=_left_to(it.extensions),
        gateway=_gateway(it.extensions),
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
    if service.external:
        text = " ".join(str(ip) for ip in service.external)
        made.extensions.add(name=EXTERNAL).config.Pack(StringValue(value=text))
    if service.affinity_seconds:
        made.extensions.add(name=AFFINITY).config.Pack(UInt32Value(value=service.affinity_seconds))
    if service.protocols:
        said = " ".join(f"{port}={protocol.value}" for port, protocol in service.protocols)
        made.extensions.add(name=PROTOCOLS).config.Pack(StringValue(value=said))
    if service.guards:
        made.extensions.add(name=GUARDS).config.Pack(StringValue(value=" ".join(service.guards)))
    if service.jwt_policies:
        made.extensions.add(name=JWT_POLICIES).config.Pack(StringValue(value=" ".join(service.jwt_policies)))
    if service.rate_limits:
        made.extensions.add(name=RATE_LIMITS).config.Pack(StringValue(value=" ".join(service.rate_limits)))
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
        external=_external(it.extensions),
        affinity_seconds=_affinity(it.extensions),
        canonical=it.canonical,
        weighted_waypoints=tuple(
            (_parse_waypoint(each.destination), each.weight) for each in it.weighted_waypoints
        ),
        ingress_uses_waypoint=it.ingress_use_waypoint,
        private=it.visibility != pb.Service.PUBLIC,
        protocols=_protocols(it.extensions),
        guards=_names(it.extensions, GUARDS),
        jwt_policies=_names(it.extensions, JWT_POLICIES),
        rate_limits=_names(it.extensions, RATE_LIMITS),
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


def _unpack(untrusted: Iterable[pb.Extension], name: str, into: Message) -> bool:
    """Read the extension of this name; False where there is none."""
    for extension in untrusted:
        if extension.name == name:
            try:
                if extension.config.Unpack(into):
                    return True
            except DecodeError as error:
                raise PeerError(f"{name} cannot be decoded") from error
            raise PeerError(f"{name} has to be a {type(into).__name__}")
    return False


def _same_node(untrusted: Iterable[pb.Extension]) -> SameNode:
    for extension in untrusted:
        if extension.name == SAME_NODE:
            value = StringValue()
            try:
                if extension.config.Unpack(value):
                    return SameNode(value.value)
            except (DecodeError, ValueError) as error:
                raise PeerError(f"{SAME_NODE} is none of {', '.join(SameNode)}") from error
            raise PeerError(f"{SAME_NODE} has to be a StringValue")
    return SameNode.AUTO


def _gateway(untrusted: Iterable[pb.Extension]) -> bool:
    value = BoolValue()
    return _unpack(untrusted, GATEWAY, value) and value.value


def _left_to(untrusted: Iterable[pb.Extension]) -> LeftTo:
    value = StringValue()
    if not _unpack(untrusted, LEFT_TO, value):
        return LeftTo.NOBODY
    try:
        return LeftTo(value.value)
    except ValueError as error:
        raise PeerError(f"{LEFT_TO} is none of {', '.join(filter(None, LeftTo))}") from error


def _forwards(untrusted: Iterable[pb.Extension]) -> bool:
    for extension in untrusted:
        if extension.name == FORWARDING:
            value = StringValue()
            try:
                if extension.config.Unpack(value) and value.value == _ALLOW:
                    return True
            except DecodeError as error:
                raise PeerError(f"{FORWARDING} cannot be read") from error
            raise PeerError(f"{FORWARDING} has to be the StringValue {_ALLOW}")
    return False


def _external(untrusted: Iterable[pb.Extension]) -> tuple[IPAddress, ...]:
    value = StringValue()
    return tuple(map(parse_ip, value.value.split())) if _unpack(untrusted, EXTERNAL, value) else ()


def _affinity(untrusted: Iterable[pb.Extension]) -> int:
    value = UInt32Value()
    return value.value if _unpack(untrusted, AFFINITY, value) else 0


def _protocols(untrusted: Iterable[pb.Extension]) -> tuple[tuple[int, AppProtocol], ...]:
    value = StringValue()
    if not _unpack(untrusted, PROTOCOLS, value):
        return ()
    try:
        pairs = [each.partition("=") for each in value.value.split()]
        return tuple((int(port), AppProtocol(protocol)) for port, _, protocol in pairs)
    except ValueError as error:
        raise PeerError(f"{PROTOCOLS} cannot be read: {value.value[:80]!r}") from error


def _names(untrusted: Iterable[pb.Extension], extension: str) -> tuple[str, ...]:
    value = StringValue()
    return tuple(value.value.split()) if _unpack(untrusted, extension, value) else ()


def _draining(untrusted: Iterable[pb.Extension]) -> bool:
    value = BoolValue()
    return value.value if _unpack(untrusted, DRAINING, value) else False


def _pod_uid(untrusted: Iterable[pb.Extension]) -> str:
    value = StringValue()
    return value.value if _unpack(untrusted, POD_UID, value) else ""


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
