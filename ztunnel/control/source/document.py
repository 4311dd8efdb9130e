"""The objects of a mesh: which kinds are read, in which versions and by whom; what makes two the same one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from ztunnel.state import (
    config_map,
    connection_route,
    destination_rule,
    endpoints,
    gateway,
    http_route,
    istio,
    kube,
    networking,
    rate_limit_policy,
    request_authentication,
    secret,
    telemetry,
    virtual_service,
)
from ztunnel.state.field import Field

Object = (
    kube.Namespace
    | kube.Node
    | kube.ServiceAccount
    | kube.Pod
    | kube.Service
    | config_map.ConfigMap
    | secret.Secret
    | endpoints.EndpointSlice
    | endpoints.Endpoints
    | istio.AuthorizationPolicy
    | istio.PeerAuthentication
    | request_authentication.RequestAuthentication
    | rate_limit_policy.RateLimitPolicy
    | telemetry.Telemetry
    | networking.ServiceEntry
    | networking.WorkloadEntry
    | gateway.Gateway
    | gateway.GatewayClass
    | gateway.ReferenceGrant
    | http_route.HTTPRoute
    | http_route.GRPCRoute
    | connection_route.TCPRoute
    | connection_route.TLSRoute
    | virtual_service.VirtualService
    | destination_rule.DestinationRule
)


class Key(NamedTuple):
    """What makes two objects the same one. `namespace` is empty for Node and Namespace."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Kind:
    """How a kind is read: its served versions, its top-level fields beyond the usual, its reader."""

    versions: tuple[str, ...]
    fields: tuple[str, ...]
    read: Callable[[Field], Object]


KINDS: Final[Mapping[tuple[str, str], Kind]] = {
    ("", "Namespace"): Kind(("v1",), ("spec", "status"), kube.read_namespace),
    ("", "Node"): Kind(("v1",), ("spec", "status"), kube.read_node),
    ("", "Pod"): Kind(("v1",), ("spec", "status"), kube.read_pod),
    ("", "Service"): Kind(("v1",), ("spec", "status"), kube.read_service),
    ("", "ConfigMap"): Kind(("v1",), ("binaryData", "data", "immutable"), config_map.read_config_map),
    ("", "Secret"): Kind(("v1",), ("data", "immutable", "stringData", "type"), secret.read_secret),
    ("", "ServiceAccount"): Kind(
        ("v1",), ("automountServiceAccountToken", "imagePullSecrets", "secrets"), kube.read_service_account
    ),
    ("discovery.k8s.io", "EndpointSlice"): Kind(
        ("v1",), ("addressType", "endpoints", "ports"), endpoints.read_endpoint_slice
    ),
    ("", "Endpoints"): Kind(("v1",), ("subsets",), endpoints.read_endpoints),
    ("security.istio.io", "AuthorizationPolicy"): Kind(
        ("v1", "v1beta1"), ("spec", "status"), istio.read_authorization_policy
    ),
    ("security.istio.io", "PeerAuthentication"): Kind(
        ("v1", "v1beta1"), ("spec", "status"), istio.read_peer_authentication
    ),
    ("security.istio.io", "RequestAuthentication"): Kind(
        ("v1", "v1beta1"), ("spec", "status"), request_authentication.read_request_authentication
    ),
    ("ztunnel.io", "RateLimitPolicy"): Kind(
        ("v1alpha1",), ("spec", "status"), rate_limit_policy.read_rate_limit_policy
    ),
    ("telemetry.istio.io", "Telemetry"): Kind(
        ("v1", "v1alpha1"), ("spec", "status"), telemetry.read_telemetry
    ),
    ("networking.istio.io", "ServiceEntry"): Kind(
        ("v1", "v1beta1", "v1alpha3"), ("spec", "status"), networking.read_service_entry
    ),
    ("networking.istio.io", "WorkloadEntry"): Kind(
        ("v1", "v1beta1", "v1alpha3"), ("spec", "status"), networking.read_workload_entry
    ),
    ("gateway.networking.k8s.io", "Gateway"): Kind(
        ("v1", "v1beta1"), ("spec", "status"), gateway.read_gateway
    ),
    ("gateway.networking.k8s.io", "GatewayClass"): Kind(
        ("v1", "v1beta1"), ("spec", "status"), gateway.read_gateway_class
    ),
    ("gateway.networking.k8s.io", "ReferenceGrant"): Kind(
        ("v1", "v1beta1"), ("spec", "status"), gateway.read_reference_grant
    ),
    ("gateway.networking.k8s.io", "HTTPRoute"): Kind(
        ("v1", "v1beta1"), ("spec", "status"), http_route.read_http_route
    ),
    ("gateway.networking.k8s.io", "GRPCRoute"): Kind(("v1",), ("spec", "status"), http_route.read_grpc_route),
    ("gateway.networking.k8s.io", "TCPRoute"): Kind(
        ("v1", "v1alpha2"), ("spec", "status"), connection_route.read_tcp_route
    ),
    ("gateway.networking.k8s.io", "TLSRoute"): Kind(
        ("v1", "v1alpha3", "v1alpha2"), ("spec", "status"), connection_route.read_tls_route
    ),
    ("networking.istio.io", "VirtualService"): Kind(
        ("v1", "v1beta1", "v1alpha3"), ("spec", "status"), virtual_service.read_virtual_service
    ),
    ("networking.istio.io", "DestinationRule"): Kind(
        ("v1", "v1beta1", "v1alpha3"), ("spec", "status"), destination_rule.read_destination_rule
    ),
}


def key_of(found: Object) -> Key:
    """The key under which an object stands."""
    return Key(type(found).__name__, found.meta.namespace, found.meta.name)
