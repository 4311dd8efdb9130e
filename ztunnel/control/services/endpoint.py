"""Endpoints that somebody names by address: pods of the mesh, which are called as what they are, and others.

As kube-proxy, which goes by the addresses of slices alone: one that is a pod's is that pod, of whatever
namespace, with its identity, be a pod named beside it or not. Slices that Kubernetes makes of a service's
selector repeat the selection and are left to it. An endpoint that is not ready serves where its service wants
such, or where none of its service's is ready and it still serves. How a pod itself does counts besides: a
workload has one health for all of its services."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ztunnel.control.services.service import service_name
from ztunnel.control.settings import MeshSettings
from ztunnel.model.address import IPAddress
from ztunnel.model.service import Port
from ztunnel.model.workload import TunnelProtocol, Workload
from ztunnel.state import kube
from ztunnel.state.endpoints import EndpointSlice, SliceEndpoint

Name = tuple[str, str]
"""Namespace and name."""


class Owners(Protocol):
    """Whose an address is."""

    def owner(self, ip: IPAddress) -> kube.Pod | None:
        """The pod that has it as its own."""

    def pod(self, name: Name) -> kube.Pod | None:
        """The pod of that name."""


@dataclass(frozen=True, slots=True)
class Attached:
    """What the slices of one service say: the pods that serve it, with their ports, and the endpoints that
    are no pods."""

    pods: Mapping[Name, tuple[Port, ...]] = field(default_factory=dict)
    others: tuple[tuple[EndpointSlice, SliceEndpoint], ...] = ()


def attach(service: kube.Service, slices: Iterable[EndpointSlice], owners: Owners) -> Attached:
    """Find out whose each endpoint of a service's slices is, without those that only repeat its selection."""
    found = [one for one in slices if not (service.selector and one.generated)]
    serving = any(each.ready for one in found for each in one.endpoints)
    pods: dict[Name, tuple[Port, ...]] = {}
    others = []
    for one in found:
        ports = slice_ports(one, service)
        for endpoint in one.endpoints:
            for ip in endpoint.addresses[:1]:  # the others are for nobody (EndpointSlice's API)
                pod = owners.owner(ip) or _on_host(owners, one, endpoint)
                if pod is None:
                    others.append((one, endpoint))
                elif _serves(endpoint, service, serving):
                    name = pod.meta.full_name
                    pods[name] = tuple(dict.fromkeys((*pods.get(name, ()), *ports)))
    return Attached(pods, tuple(others))


def slice_ports(one: EndpointSlice, service: kube.Service) -> tuple[Port, ...]:
    """The endpoints' own ports for a service, joined by the names of its ports."""
    named = {port.name: port.port for port in service.ports}
    return tuple(Port(named[name], own) for name, own in one.ports.items() if name in named)


def endpoint_workloads(
    service: kube.Service, attached: Attached, settings: MeshSettings
) -> Iterator[Workload]:
    """A workload for each endpoint that is no pod. Nothing is known of it, so its address is not taken for
    its own. Of one slice the first of an address counts. An address and port that several slices have counts
    once, as with kube-proxy: by one in which it is ready."""
    firsts: dict[str, tuple[EndpointSlice, SliceEndpoint]] = {}
    for one, endpoint in attached.others:
        place = f"{one.meta.namespace}/{one.meta.name}/{endpoint.addresses[0]}"
        firsts.setdefault(f"{settings.cluster}/discovery.k8s.io/EndpointSlice/{place}", (one, endpoint))
    taken: set[tuple[IPAddress, Port]] = set()
    for uid, (one, endpoint) in sorted(firsts.items(), key=lambda each: not each[1][1].ready):
        all_ports = slice_ports(one, service)
        ports = tuple(port for port in all_ports if (endpoint.addresses[0], port) not in taken)
        if all_ports and not ports:
            continue
        taken.update((endpoint.addresses[0], port) for port in ports)
        yield Workload(
            uid=uid,
            name=one.meta.name,
            namespace=one.meta.namespace,
            trust_domain=settings.trust_domain,
            addresses=endpoint.addresses[:1],
            protocol=TunnelProtocol.NONE,
            network=settings.network,
            cluster=settings.cluster,
            services={service_name(service.meta.full_name, settings): ports},
            healthy=endpoint.ready,
            draining=endpoint.draining,
            host_network=True,
        )


def _on_host(owners: Owners, one: EndpointSlice, endpoint: SliceEndpoint) -> kube.Pod | None:
    """The pod with its host's address that a slice names: the address is not its alone."""
    pod = owners.pod((one.meta.namespace, endpoint.pod)) if endpoint.pod else None
    if pod is None or not pod.host_network or pod.ended or endpoint.addresses[0] not in pod.addresses:
        return None
    return pod


def _serves(endpoint: SliceEndpoint, service: kube.Service, others_ready: bool) -> bool:
    return endpoint.ready or service.publish_not_ready or (endpoint.draining and not others_ready)
