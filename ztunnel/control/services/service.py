"""Kubernetes services as Istio's services, and which of them a pod serves.

Follows istio/istio pilot/pkg/serviceregistry/ambient: services.go (constructService), workloads.go
(constructServices, matchingServicesWithoutSelectors). One difference: ports that are not TCP are left out.
Endpoints that slices name are in `endpoint.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from ztunnel.control.settings import MeshSettings
from ztunnel.model.service import AppProtocol, LoadBalancing, Port, Scope, Service, ServiceName
from ztunnel.state import kube
from ztunnel.state.meta import Meta
from ztunnel.state.networking import EntryPort

_DISTRIBUTION = "networking.istio.io/traffic-distribution"
_ZONE = (Scope.NETWORK, Scope.REGION, Scope.ZONE)
_PREFERENCES = {
    "prefersamenode": (*_ZONE, Scope.SUBZONE, Scope.NODE),
    "prefersamezone": _ZONE,
    "preferclose": _ZONE,
}

_PROTOCOLS = {
    "http": AppProtocol.HTTP, "kubernetes.io/ws": AppProtocol.HTTP,
    "http2": AppProtocol.HTTP2, "kubernetes.io/h2c": AppProtocol.HTTP2,
    "grpc": AppProtocol.GRPC, "grpc-web": AppProtocol.HTTP,
    "https": AppProtocol.TLS, "kubernetes.io/wss": AppProtocol.TLS, "tls": AppProtocol.TLS,
    "tcp": AppProtocol.TCP, "http_proxy": AppProtocol.TCP,
    "mongo": AppProtocol.TCP, "mysql": AppProtocol.TCP, "redis": AppProtocol.TCP,
}  # fmt: skip
_INGRESS: Final = "istio.io/ingress-use-waypoint"


@dataclass(frozen=True, slots=True)
class EntryServices:
    """The services of a ServiceEntry that selects workloads of its namespace."""

    selector: Mapping[str, str]
    names: tuple[ServiceName, ...]
    ports: tuple[EntryPort, ...]

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Whether a workload with these labels serves them."""
        return self.selector.items() <= labels.items()

    def ports_of(self, pod: kube.Pod) -> tuple[Port, ...]:
        """A pod's own ports for them: that of the port's name if the pod has one, else the target port."""
        return tuple(Port(port.port, pod.ports.get(port.name, port.target)) for port in self.ports)


Joined = tuple[kube.Service, tuple[Port, ...]]
"""A service and the ports by which one pod serves it."""


@dataclass(frozen=True, slots=True)
class NamespaceServices:
    """The services of one namespace, ready for asking which of them a pod serves.

    `by_label` holds each service under one of the labels that it selects by; `by_slice` those that endpoint
    slices join to a pod, by the pod's name; they may be of other namespaces.
    """

    by_label: Mapping[tuple[str, str], tuple[kube.Service, ...]] = field(default_factory=dict)
    by_slice: Mapping[str, Mapping[tuple[str, str], Joined]] = field(default_factory=dict)

    def of(self, pod: kube.Pod) -> Iterator[Joined]:
        """The services that the pod is an endpoint of: by an endpoint slice, and by selector, which counts
        where both say so."""
        yield from self.by_slice.get(pod.meta.name, {}).values()
        for service in self.selecting(pod.meta.labels):
            yield service, ports_of(service, pod)

    def selecting(self, labels: Mapping[str, str]) -> Iterator[kube.Service]:
        """The services that select workloads with these labels."""
        for label in labels.items():
            for service in self.by_label.get(label, ()):
                if service.selector.items() <= labels.items():
                    yield service


def group_services(
    services: Iterable[kube.Service], joined: Mapping[str, Mapping[tuple[str, str], Joined]]
) -> NamespaceServices:
    """Those of one namespace, without those of type ExternalName: a name's alias is DNS's business. `joined`
    are, by name, the pods that slices join to services."""
    return NamespaceServices(_by_label(one for one in services if one.kind != "ExternalName"), joined)


def _by_label(services: Iterable[kube.Service]) -> dict[tuple[str, str], tuple[kube.Service, ...]]:
    found: dict[tuple[str, str], tuple[kube.Service, ...]] = {}
    for service in services:
        if service.selector:
            label = min(service.selector.items())
            found[label] = (*found.get(label, ()), service)
    return found


def service_name(name: tuple[str, str], settings: MeshSettings) -> ServiceName:
    """The name on the wire of the service of that namespace and name:
    `<name>.<namespace>.svc.<cluster domain>`."""
    return ServiceName(name[0], f"{name[1]}.{name[0]}.svc.{settings.cluster_domain}")


def convert_service(
    service: kube.Service,
    namespace: kube.Namespace | None,
    settings: MeshSettings,
) -> Service:
    """The service as node proxies know it; `internalTrafficPolicy: Local` comes before any distribution. A
    named target port is 0: each endpoint resolves it."""
    mode, preference = load_balancing(service.meta, namespace, service.traffic_distribution)
    if service.local_only:
        mode, preference = LoadBalancing.STRICT, (Scope.NODE,)
    return Service(
        name=service.meta.name,
        namespace=service.meta.namespace,
        hostname=service_name(service.meta.full_name, settings).hostname,
        addresses=tuple(dict.fromkeys((*service.addresses, *service.external))),
        ports=tuple(
            Port(one.port, one.target if isinstance(one.target, int) else 0) for one in service.ports
        ),
        load_balancing=mode,
        routing_preference=preference,
        include_unhealthy=service.publish_not_ready,
        ip_families=service.ip_families,
        external=tuple(ip for ip in service.external if ip not in service.addresses),
        affinity_seconds=service.affinity_seconds,
        ingress_uses_waypoint=ingress_uses(service.meta.labels, namespace),
        protocols=tuple((one.port, said) for one in service.ports if (said := _protocol(one)) is not None),
    )


def ingress_uses(labels: Mapping[str, str], namespace: kube.Namespace | None) -> bool:
    """Whether gateways use the waypoint of a service or entry with these labels: by its own label, else by
    that of its namespace."""
    inherited = namespace.meta.labels if namespace is not None else {}
    return labels.get(_INGRESS, inherited.get(_INGRESS, "")).lower() == "true"


def _protocol(port: kube.ServicePort) -> AppProtocol | None:
    """By `appProtocol`, else by the first word of the port's name (Istio pkg/config/kube ConvertProtocol)."""
    return app_protocol(port.app_protocol or port.name.partition("-")[0])


def app_protocol(name: str) -> AppProtocol | None:
    """What that name of a protocol means; None: to be found out. A port of an HTTP proxy is passed through:
    what is asked of it is CONNECT."""
    return _PROTOCOLS.get(name.lower())


def load_balancing(
    meta: Meta, namespace: kube.Namespace | None, wanted: str = ""
) -> tuple[LoadBalancing, tuple[Scope, ...]]:
    """By the first that is given of `wanted`, the object's and its namespace's annotation."""
    annotations = [meta.annotations, namespace.meta.annotations if namespace else {}]
    for text in [wanted, *(one.get(_DISTRIBUTION, "") for one in annotations)]:
        if text.lower() in _PREFERENCES:
            return LoadBalancing.FAILOVER, _PREFERENCES[text.lower()]
        if text:
            break
    return LoadBalancing.STANDARD, ()


def ports_of(service: kube.Service, pod: kube.Pod) -> tuple[Port, ...]:
    """The pod's own ports for a service; one that the pod has under no such name is left out."""
    targets = (
        one.target if isinstance(one.target, int) else pod.ports.get(one.target, 0) for one in service.ports
    )
    return tuple(Port(one.port, target) for one, target in zip(service.ports, targets, strict=True) if target)
