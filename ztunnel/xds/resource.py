"""Workloads, services and policies as xDS resources, both ways; a resource's version is a hash of its
content."""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError

from ztunnel.errors import PeerError
from ztunnel.model.policy import Policy
from ztunnel.model.service import Service
from ztunnel.model.workload import Workload
from ztunnel.xds.address import parse_service, parse_workload, render_service, render_workload
from ztunnel.xds.pb import authorization_pb2, discovery_pb2, workload_pb2
from ztunnel.xds.policy import parse_policy, render_policy

ADDRESS: Final = "type.googleapis.com/istio.workload.Address"
AUTHORIZATION: Final = "type.googleapis.com/istio.security.Authorization"

Resource = Workload | Service | Policy


def name_of(resource: Resource) -> str:
    """A workload's uid, a service's `namespace/hostname`, a policy's `namespace/name`."""
    return resource.uid if isinstance(resource, Workload) else str(resource.key)


def type_of(resource: Resource) -> str:
    """The type URL under which the resource travels."""
    return AUTHORIZATION if isinstance(resource, Policy) else ADDRESS


def render(resource: Resource, network: str) -> discovery_pb2.Resource:
    """The resource as it is sent; equal resources give equal versions, in every process. A service's
    addresses are of `network`."""
    message: workload_pb2.Address | authorization_pb2.Authorization
    if isinstance(resource, Policy):
        message = render_policy(resource)
    elif isinstance(resource, Workload):
        message = workload_pb2.Address(workload=render_workload(resource))
    else:
        message = workload_pb2.Address(service=render_service(resource, network))
    value = message.SerializeToString(deterministic=True)
    return discovery_pb2.Resource(
        name=name_of(resource),
        version=blake2b(value, digest_size=8).hexdigest(),
        resource=Any(type_url=type_of(resource), value=value),
    )


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
        address = workload_pb2.Address.FromString(untrusted)
    except DecodeError as error:
        raise PeerError("cannot be decoded") from error
    kind = address.WhichOneof("type")
    if kind == "workload":
        return parse_workload(address.workload)
    if kind == "service":
        return parse_service(address.service, network)
    raise PeerError("is neither a workload nor a service")
