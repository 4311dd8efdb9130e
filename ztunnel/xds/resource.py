"""Workloads, services and policies as xDS resources, both ways; a resource's version is a hash of its
content.

Beside Istio's two types there are those of our own, that only waypoints subscribe to: `HTTP_TYPES`. One more
is a line in `KINDS`, and one in `http_resource.py`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Final
from typing import Any as Anything

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
from ztunnel.xds.pb import authorization_pb2, discovery_pb2, workload_pb2
from ztunnel.xds.policy import parse_policy, render_policy

if TYPE_CHECKING:
    from ztunnel.xds.http_resource import Codec

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


KINDS: Final[Mapping[str, type[Anything]]] = {
    PROVIDER: ExtensionProvider,
    MESH_DEFAULTS: MeshDefaults,
    CREDENTIAL: Credential,
    HTTP_POLICY: HttpPolicy,
    JWT_POLICY: JwtPolicy,
    RATE_LIMIT: RateLimitPolicy,
    LABELS: WorkloadLabels,
    ROUTES: Routes,
    TELEMETRY: Telemetry,
    TRAFFIC: ServiceTraffic,
}
"""What resources of our own types are here."""

HTTP_TYPES: Final = tuple(KINDS)
NODE_TYPES: Final = (AUTHORIZATION, ADDRESS)
"""Policies first: a workload that refers to a policy not received yet is refused."""

WAYPOINT_TYPES: Final = (*HTTP_TYPES, ADDRESS)
"""A waypoint enforces what its services name, and no policy of connections."""

TYPES: Final = (*HTTP_TYPES, *NODE_TYPES)


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
    return _codecs()[KINDS[type_of(resource)]].render(resource)


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
        if (kind := KINDS.get(type_url)) is not None:
            own = _codecs()[kind]
            message = own.message()
            message.ParseFromString(untrusted)
            found: HttpResource = own.parse(message)
            return found
        address = workload_pb2.Address.FromString(untrusted)
    except DecodeError as error:
        raise PeerError("cannot be decoded") from error
    which = address.WhichOneof("type")
    if which == "workload":
        return parse_workload(address.workload)
    if which == "service":
        return parse_service(address.service, network)
    raise PeerError("is neither a workload nor a service")


@cache
def _codecs() -> Mapping[type[Anything], Codec]:
    """Imported where there is such a resource: node proxies never have one, and do without four megabytes."""
    from ztunnel.xds.http_resource import CODECS

    return CODECS
