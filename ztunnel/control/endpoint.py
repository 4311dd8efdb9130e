"""Endpoints that somebody names by address: pods of the mesh, which are called as what they are, and others.

As kube-proxy, which goes by the addresses of slices alone: one that is a pod's is that pod, of whatever
namespace, with its identity, be a pod named beside it or not. Slices that Kubernetes makes of a service's
selector repeat the selection and are left to it. An endpoint that is not ready serves where its service wants
such, or where none of its service's is ready and it still serves. How a pod itself does counts besides: a
workload has one health for all of its services."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ztunnel.control.service import Joined, service_name
from ztunnel.control.settings import MeshSettings
from ztunnel.model.address import IPAddress
from ztunnel.model.service import Port
from ztunnel.model.workload import TunnelProtocol, Workload
from ztunnel.state import kube
from ztunnel.state.endpoints import EndpointSlice, SliceEndpoint

_ENDED = ("Succeeded", "Failed")
_Owners = Mapping[IPAddress, kube.Pod]


@dataclass(frozen=True, slots=True)
class Attached:
    """What slices say: by namespace and name the services that pods are joined to, and with its slice and
    service each endpoint that is no pod."""

    pods: Mapping[str, Mapping[str, tuple[Joined, ...]]]
    others: tuple[tuple[EndpointSlice, kube.Service, SliceEndpoint], ...]


def attach(
    slices: Iterable[EndpointSlice], services: Iterable[kube.Service], pods: Iterable[kube.Pod]
) -> Attached:
    """Find out whose each endpoint of the slices is."""
    found = list(_of_services(slices, services))
    if not found:
        return Attached({}, ())
    owners, on_hosts = _owners(pods)
    serving = {id(service) for one, service in found for each in one.endpoints if each.ready}
    joined: dict[str, dict[str, dict[tuple[str, str], Joined]]] = {}
    others = []
    for one, service in found:
        ports = slice_ports(one, service)
        for endpoint in one.endpoints:
            for ip in endpoint.addresses[:1]:  # the others are for nobody (EndpointSlice's API)
                pod = owners.get(ip) or _on_host(on_hosts, one, endpoint)
                if pod is None:
                    others.append((one, service, endpoint))
                elif _serves(endpoint, service, id(service) in serving):
                    of_pod = joined.setdefault(pod.meta.namespace, {}).setdefault(pod.meta.name, {})
                    key = service.meta.namespace, service.meta.name
                    before = of_pod[key][1] if key in of_pod else ()
                    of_pod[key] = service, tuple(dict.fromkeys((*before, *ports)))
    return Attached(
        {
            space: {name: tuple(ones.values()) for name, ones in pods.items()}
            for space, pods in joined.items()
        },
        tuple(others),
    )


def slice_ports(one: EndpointSlice, service: kube.Service) -> tuple[Port, ...]:
    """The endpoints' own ports for a service, joined by the names of its ports."""
    named = {port.name: port.port for port in service.ports}
    return tuple(Port(named[name], own) for name, own in one.ports.items() if name in named)


def endpoint_workloads(attached: Attached, settings: MeshSettings) -> Iterator[Workload]:
    """A workload for each endpoint that is no pod. Nothing is known of it, so its address is not taken for
    its own."""
    seen: set[str] = set()
    for one, service, endpoint in attached.others:
        place = f"{one.meta.namespace}/{one.meta.name}/{endpoint.addresses[0]}"
        uid = f"{settings.cluster}/discovery.k8s.io/EndpointSlice/{place}"
        if uid in seen:
            continue
        seen.add(uid)
        yield Workload(
            uid=uid,
            name=one.meta.name,
            namespace=one.meta.namespace,
            trust_domain=settings.trust_domain,
            addresses=endpoint.addresses[:1],
            protocol=TunnelProtocol.NONE,
            network=settings.network,
            cluster=settings.cluster,
            services={service_name(service, settings): slice_ports(one, service)},
            healthy=endpoint.ready,
            draining=endpoint.draining,
            host_network=True,
        )


def _of_services(
    slices: Iterable[EndpointSlice], services: Iterable[kube.Service]
) -> Iterator[tuple[EndpointSlice, kube.Service]]:
    """Slices that add something, each with its service."""
    known: dict[tuple[str, str], kube.Service] = {}
    for service in services:
        if service.kind != "ExternalName":
            known[service.meta.namespace, service.meta.name] = service
    for one in slices:
        found = known.get((one.meta.namespace, one.service))
        if found is not None and not (found.selector and one.generated):
            yield one, found


def _owners(pods: Iterable[kube.Pod]) -> tuple[_Owners, Mapping[tuple[str, str], kube.Pod]]:
    """Pods by their own addresses; those with their host's by their names."""
    owners: dict[IPAddress, kube.Pod] = {}
    on_hosts: dict[tuple[str, str], kube.Pod] = {}
    for pod in pods:
        if pod.phase in _ENDED:
            continue
        if pod.host_network:
            on_hosts[pod.meta.namespace, pod.meta.name] = pod
        else:
            owners.update(dict.fromkeys(pod.addresses, pod))
    return owners, on_hosts


def _on_host(
    on_hosts: Mapping[tuple[str, str], kube.Pod], one: EndpointSlice, endpoint: SliceEndpoint
) -> kube.Pod | None:
    """The pod with its host's address that a slice names: the address is not its alone."""
    pod = on_hosts.get((one.meta.namespace, endpoint.pod))
    return pod if pod is not None and endpoint.addresses[0] in pod.addresses else None


def _serves(endpoint: SliceEndpoint, service: kube.Service, others_ready: bool) -> bool:
    return endpoint.ready or service.publish_not_ready or (endpoint.draining and not others_ready)
