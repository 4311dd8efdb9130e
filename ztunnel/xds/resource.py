"""Workloads, services and policies as xDS resources, both ways; a resource's version is a hash of its
content.

Beside Istio's two types there are those of our own, that only waypoints subscribe to: `HTTP_TYPES`. One more
is a line in `_OWN`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any as Anything
from typing import Final

from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError, Message

from ztunnel.errors import PeerError
from ztunnel.model.address import IPAddress
from ztunnel.model.credential import Credential
from ztunnel.model.http_policy import HttpPolicy
from ztunnel.model.jwt import JwtPolicy
from ztunnel.model.labels import WorkloadLabels
from ztunnel.model.mesh_defaults import MeshDefaults
from ztunnel.model.policy import Policy
from ztunnel.model.provider import ExtensionProvider
from ztunnel.model.rate_limit import RateLimitPolicy
from ztunnel.model.route import Routes
from ztunnel.model.service import Service
from ztunnel.model.service_traffic import ServiceTraffic
from ztunnel.model.telemetry import Telemetry
from ztunnel.model.workload import Workload
from ztunnel.xds.address import parse_service, parse_workload, render_service, render_workload
from ztunnel.xds.credential import parse_credential, render_credential
from ztunnel.xds.http_policy import parse_http_policy, render_http_policy
from ztunnel.xds.jwt_policy import parse_jwt_policy, render_jwt_policy
from ztunnel.xds.labels import parse_labels, render_labels
from ztunnel.xds.mesh import parse_defaults, parse_provider, render_defaults, render_provider
from ztunnel.xds.pb import (
    authorization_pb2,
    credential_pb2,
    discovery_pb2,
    http_policy_pb2,
    jwt_policy_pb2,
    labels_pb2,
    mesh_pb2,
    rate_limit_pb2,
    routes_pb2,
    telemetry_pb2,
    traffic_pb2,
    workload_pb2,
)
from ztunnel.xds.policy import parse_policy, render_policy
from ztunnel.xds.rate_limit import parse_rate_limit, render_rate_limit
from ztunnel.xds.routes import parse_routes, render_routes
from ztunnel.xds.telemetry import parse_telemetry, render_telemetry
from ztunnel.xds.traffic import parse_traffic, render_traffic

ADDRESS: Final = "type.googleapis.com/istio.workload.Address"
AUTHORIZATION: Final = "type.googleapis.com/istio.security.Authorization"
HTTP_POLICY: Final = "type.googleapis.com/ztunnel.http.AuthorizationPolicy"
LABELS: Final = "type.googleapis.com/ztunnel.http.WorkloadLabels"
ROUTES: Final = "type.googleapis.com/ztunnel.http.Routes"
TRAFFIC: Final = "type.googleapis.com/ztunnel.http.ServiceTraffic"
TELEMETRY: Final = "type.googleapis.com/ztunnel.http.Telemetry"
PROVIDER: Final = "type.googleapis.com/ztunnel.http.ExtensionProvider"
MESH_DEFAULTS: Final = "type.googleapis.com/ztunnel.http.MeshDefaults"

CREDENTIAL: Final = "type.googleapis.com/ztunnel.http.Credential"
"""Of Secrets: sent to nobody but the waypoints that use it."""

JWT_POLICY: Final = "type.googleapis.com/ztunnel.http.RequestAuthentication"

RATE_LIMIT: Final = "type.googleapis.com/ztunnel.http.RateLimitPolicy"

HttpResource = (
    HttpPolicy
    | JwtPolicy
    | RateLimitPolicy
    | WorkloadLabels
    | Routes
    | ServiceTraffic
    | Credential
    | ExtensionProvider
    | MeshDefaults
    | Telemetry
)
"""Resources of our own. Each has a `key`, its name."""

Resource = Workload | Service | Policy | HttpResource


@dataclass(frozen=True, slots=True)
class _Codec:
    """A type of our own: what it is here, and on the wire."""

    kind: type[Anything]
    message: type[Message]
    render: Callable[[Anything], Message]
    parse: Callable[[Anything], HttpResource]


_OWN: Final[Mapping[str, _Codec]] = {
    PROVIDER: _Codec(ExtensionProvider, mesh_pb2.ExtensionProvider, render_provider, parse_provider),
    MESH_DEFAULTS: _Codec(MeshDefaults, mesh_pb2.MeshDefaults, render_defaults, parse_defaults),
    CREDENTIAL: _Codec(Credential, credential_pb2.Credential, render_credential, parse_credential),
    HTTP_POLICY: _Codec(
        HttpPolicy, http_policy_pb2.AuthorizationPolicy, render_http_policy, parse_http_policy
    ),
    JWT_POLICY: _Codec(JwtPolicy, jwt_policy_pb2.RequestAuthentication, render_jwt_policy, parse_jwt_policy),
    RATE_LIMIT: _Codec(RateLimitPolicy, rate_limit_pb2.RateLimitPolicy, render_rate_limit, parse_rate_limit),
    LABELS: _Codec(WorkloadLabels, labels_pb2.WorkloadLabels, render_labels, parse_labels),
    ROUTES: _Codec(Routes, routes_pb2.Routes, render_routes, parse_routes),
    TELEMETRY: _Codec(Telemetry, telemetry_pb2.Telemetry, render_telemetry, parse_telemetry),
    TRAFFIC: _Codec(ServiceTraffic, traffic_pb2.ServiceTraffic, render_traffic, parse_traffic),
}

HTTP_TYPES: Final = tuple(_OWN)
NODE_TYPES: Final = (AUTHORIZATION, ADDRESS)
"""Policies first: a workload that refers to a policy not received yet is refused."""

WAYPOINT_TYPES: Final = (*HTTP_TYPES, ADDRESS)
"""A waypoint enforces what its services name, and no policy of connections."""

TYPES: Final = (*HTTP_TYPES, *NODE_TYPES)

KINDS: Final[Mapping[str, type[Anything]]] = {type_url: codec.kind for type_url, codec in _OWN.items()}
"""What resources of our own types are here."""


def name_of(resource: Resource) -> str:
    """A workload's uid, a service's `namespace/hostname`, a policy's `namespace/name`."""
    return resource.uid if isinstance(resource, Workload) else str(resource.key)


def type_of(resource: Resource) -> str:
    """The type URL under which the resource travels."""
    if isinstance(resource, Workload | Service):
        return ADDRESS
    if isinstance(resource, Policy):
        return AUTHORIZATION
    return next(type_url for type_url, kind in KINDS.items() if isinstance(resource, kind))


def render(resource: Resource, network: str) -> discovery_pb2.Resource:
    """The resource as it is sent; equal resources give equal versions, in every process. A service's
    addresses are of `network`."""
    value = _message(resource, network).SerializeToString(deterministic=True)
    return discovery_pb2.Resource(
        name=name_of(resource),
        version=blake2b(value, digest_size=8).hexdigest(),
        aliases=aliases_of(resource, network),
        resource=Any(type_url=type_of(resource), value=value),
    )


def aliases_of(resource: Resource, network: str) -> list[str]:
    """The other names by which an address is asked for on demand: `network/ip` (Istio's pkg/workloadapi,
    `AddressInfo.Aliases`). An address of the host is nobody's alone. A service's are of `network`."""
    if isinstance(resource, Workload):
        return (
            [] if resource.host_network else [at_address(resource.network, ip) for ip in resource.addresses]
        )
    if isinstance(resource, Service):
        return [at_address(network, ip) for ip in resource.addresses]
    return []


def at_address(network: str, ip: IPAddress) -> str:
    """The name by which whoever is at an address is asked for."""
    return f"{network}/{ip}"


def _message(resource: Resource, network: str) -> Message:
    if isinstance(resource, Workload):
        return workload_pb2.Address(workload=render_workload(resource))
    if isinstance(resource, Service):
        return workload_pb2.Address(service=render_service(resource, network))
    if isinstance(resource, Policy):
        return render_policy(resource)
    return _OWN[type_of(resource)].render(resource)


def parse(type_url: str, untrusted: discovery_pb2.Resource, network: str) -> Resource:
    """What a received resource holds. Fields that are not known here are passed over.

    Raises:
        PeerError: `name: reason`, for a resource that is not of the type, names itself otherwise, or says
            something that cannot be acted on. Others of the same response are not concerned."""
    try:
        if untrusted.resource.type_url != type_url:
            raise PeerError(f"is of type {untrusted.resource.type_url[:80]!r}")
        found = _decode(type_url, untrusted.resource.value, network)
        if name_of(found) != untrusted.name:
            raise PeerError(f"names itself {name_of(found)[:200]!r}")
    except PeerError as error:
        raise PeerError(f"{untrusted.name[:200]}: {error}") from error
    return found


def _decode(type_url: str, untrusted: bytes, network: str) -> Resource:
    try:
        if type_url == AUTHORIZATION:
            return parse_policy(authorization_pb2.Authorization.FromString(untrusted))
        if (own := _OWN.get(type_url)) is not None:
            message = own.message()
            message.ParseFromString(untrusted)
            return own.parse(message)
        address = workload_pb2.Address.FromString(untrusted)
    except DecodeError as error:
        raise PeerError("cannot be decoded") from error
    kind = address.WhichOneof("type")
    if kind == "workload":
        return parse_workload(address.workload)
    if kind == "service":
        return parse_service(address.service, network)
    raise PeerError("is neither a workload nor a service")
