"""The kinds of objects that a mesh is read from in the Kubernetes API, and how each is asked for.

Not asked for: pods that have ended, which are in no mesh; anything but the metadata of namespaces and
nodes, of which nothing else is read; Endpoints, as Kubernetes mirrors them into slices; service accounts,
as identities come from pods."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ztunnel.control.routes.route_status import is_attached
from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.document import KINDS, Kind
from ztunnel.control.status.enrolment import OF_STATIC_PODS
from ztunnel.control.status.standing import is_our_class, is_waypoint
from ztunnel.kube.resource import CONFIG_MAPS, ENDPOINT_SLICES, NAMESPACES, NODES, PODS, SERVICES, Resource


@dataclass(frozen=True, slots=True)
class Served:
    """A kind, the versions in which it is understood, the best first, and parameters of each request.

    `strict`: a field that is not known here is a fault. A policy that uses one asks for something that would
    not be done; of Kubernetes' own objects a newer server may have fields that are not read here anyway.
    """

    candidates: tuple[Resource, ...]
    selectors: Mapping[str, str] = field(default_factory=dict)
    strict: bool = False
    has_status: Callable[[Mapping[str, Any]], bool] = lambda _: False

    @property
    def kind(self) -> str:
        """`Pod`, `AuthorizationPolicy`."""
        return self.candidates[0].kind

    @property
    def reader(self) -> Kind:
        """How one is read."""
        return KINDS[self.candidates[0].group, self.kind]


def _istio(group: str, plural: str, kind: str, *, has_status: bool = False) -> Served:
    group = f"{group}.istio.io"
    resources = (Resource(group, each, plural, kind, custom=True) for each in KINDS[group, kind].versions)
    return Served(tuple(resources), strict=True, has_status=lambda _: has_status)


def _own(plural: str, kind: str) -> Served:
    group = "ztunnel.io"
    resources = (Resource(group, each, plural, kind, custom=True) for each in KINDS[group, kind].versions)
    return Served(tuple(resources), strict=True, has_status=lambda _: True)


def _gateway_api(
    plural: str, kind: str, has_status: Callable[[Mapping[str, Any]], bool] = lambda _: False
) -> Served:
    group = "gateway.networking.k8s.io"
    namespaced = kind != "GatewayClass"
    return Served(
        tuple(
            Resource(group, each, plural, kind, namespaced, custom=True)
            for each in KINDS[group, kind].versions
        ),
        has_status=has_status,
    )


SERVED: Final = (
    Served((NAMESPACES,)),
    Served((NODES,)),
    Served((PODS,), {"fieldSelector": "status.phase!=Succeeded,status.phase!=Failed"}),
    Served((SERVICES,), has_status=lambda _: True),  # whether it has a waypoint may be its namespace's
    Served((ENDPOINT_SLICES,)),
    _istio("security", "authorizationpolicies", "AuthorizationPolicy", has_status=True),
    _istio("security", "peerauthentications", "PeerAuthentication", has_status=True),
    _istio("security", "requestauthentications", "RequestAuthentication", has_status=True),
    _istio("telemetry", "telemetries", "Telemetry", has_status=True),
    _own("ratelimitpolicies", "RateLimitPolicy"),
    _istio("networking", "serviceentries", "ServiceEntry", has_status=True),
    _istio("networking", "workloadentries", "WorkloadEntry", has_status=True),
    _gateway_api("gateways", "Gateway", is_waypoint),
    _gateway_api("gatewayclasses", "GatewayClass", is_our_class),
    _gateway_api("referencegrants", "ReferenceGrant"),
    _gateway_api("httproutes", "HTTPRoute", is_attached),
    _gateway_api("grpcroutes", "GRPCRoute", is_attached),
    _gateway_api("tcproutes", "TCPRoute", is_attached),
    _gateway_api("tlsroutes", "TLSRoute", is_attached),
    _istio("networking", "virtualservices", "VirtualService", has_status=True),
    _istio("networking", "destinationrules", "DestinationRule", has_status=True),
)


def mesh_config(settings: MeshSettings) -> tuple[Served, str]:
    """The ConfigMap with the mesh config, and the namespace in which alone it is asked for."""
    namespace, _, name = settings.mesh_config.partition("/")
    return Served((CONFIG_MAPS,), {"fieldSelector": f"metadata.name={name}"}), namespace


def trim(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """The object without what nobody reads and what may be large: managed fields, annotations that are
    neither of a mesh nor of a static pod (`kubectl apply` keeps the whole object in one). Labels of many
    objects share their texts."""
    meta = value.get("metadata")
    if not isinstance(meta, dict):
        return value
    kept = {name: one for name, one in meta.items() if name != "managedFields"}
    annotations, labels = meta.get("annotations"), meta.get("labels")
    if isinstance(annotations, dict):
        kept["annotations"] = {sys.intern(name): one for name, one in annotations.items() if _is_read(name)}
    if isinstance(labels, dict):
        kept["labels"] = {
            sys.intern(name): sys.intern(one) if isinstance(one, str) else one for name, one in labels.items()
        }
    return {**value, "metadata": kept}


def _is_read(annotation: str) -> bool:
    group = annotation.partition("/")[0]
    of_a_mesh = group == "ztunnel.io" or group == "istio.io" or group.endswith(".istio.io")
    return of_a_mesh or annotation in OF_STATIC_PODS
