"""What Istio's protocol has no field for, as extensions of workloads and services, both ways. Whatever reads
one raises PeerError where it makes no sense."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from google.protobuf.message import DecodeError, Message
from google.protobuf.wrappers_pb2 import BoolValue, StringValue, UInt32Value

from ztunnel.errors import PeerError
from ztunnel.model.address import IPAddress, parse_ip
from ztunnel.model.service import AppProtocol, Service
from ztunnel.model.workload import LeftTo, SameNode, Workload
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

_ALLOW: Final = "allow"


def extend_workload(made: pb.Workload, workload: Workload) -> None:
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


def extend_service(made: pb.Service, service: Service) -> None:
    """What Istio has no field for."""
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


def read_same_node(untrusted: Iterable[pb.Extension]) -> SameNode:
    """How it wants pods of its own node to be called."""
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


def read_gateway(untrusted: Iterable[pb.Extension]) -> bool:
    """Whether it brings calls from outside."""
    value = BoolValue()
    return _unpack(untrusted, GATEWAY, value) and value.value


def read_left_to(untrusted: Iterable[pb.Extension]) -> LeftTo:
    """Who serves it in our place."""
    value = StringValue()
    if not _unpack(untrusted, LEFT_TO, value):
        return LeftTo.NOBODY
    try:
        return LeftTo(value.value)
    except ValueError as error:
        raise PeerError(f"{LEFT_TO} is none of {', '.join(filter(None, LeftTo))}") from error


def read_forwards(untrusted: Iterable[pb.Extension]) -> bool:
    """Whether it may forward."""
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


def read_external(untrusted: Iterable[pb.Extension]) -> tuple[IPAddress, ...]:
    """Addresses of a service that it has at its ports only."""
    value = StringValue()
    return tuple(map(parse_ip, value.value.split())) if _unpack(untrusted, EXTERNAL, value) else ()


def read_affinity(untrusted: Iterable[pb.Extension]) -> int:
    """For how many seconds a client keeps its endpoint."""
    value = UInt32Value()
    return value.value if _unpack(untrusted, AFFINITY, value) else 0


def read_protocols(untrusted: Iterable[pb.Extension]) -> tuple[tuple[int, AppProtocol], ...]:
    """What is spoken at its ports."""
    value = StringValue()
    if not _unpack(untrusted, PROTOCOLS, value):
        return ()
    try:
        pairs = [each.partition("=") for each in value.value.split()]
        return tuple((int(port), AppProtocol(protocol)) for port, _, protocol in pairs)
    except ValueError as error:
        raise PeerError(f"{PROTOCOLS} cannot be read: {value.value[:80]!r}") from error


def read_names(untrusted: Iterable[pb.Extension], extension: str) -> tuple[str, ...]:
    """The policies that an extension of a service names."""
    value = StringValue()
    return tuple(value.value.split()) if _unpack(untrusted, extension, value) else ()


def read_draining(untrusted: Iterable[pb.Extension]) -> bool:
    """Whether it terminates and still serves."""
    value = BoolValue()
    return value.value if _unpack(untrusted, DRAINING, value) else False


def read_pod_uid(untrusted: Iterable[pb.Extension]) -> str:
    """What the kubelet knows it by; empty where nobody says."""
    value = StringValue()
    return value.value if _unpack(untrusted, POD_UID, value) else ""
