"""The workloads, services and policies of a large world; none of them is on a node of the laboratory."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

from ztunnel.model.policy import Action, Match, MatchKind, Policy, PolicyScope, StringMatch
from ztunnel.model.service import Port, Service, ServiceName
from ztunnel.model.workload import Locality, TunnelProtocol, Workload, WorkloadKind

IN_NAMESPACE = 100  # workloads
POLICIES = 10  # of these
ENDPOINTS = 20  # of a service
NODES = 1000
_FIRST = int(IPv4Address("100.64.0.0"))
_FIRST6 = int(IPv6Address("fd64::"))
_FIRST_VIRTUAL = int(IPv4Address("10.96.0.0"))
PORT = 8080


def namespace_of(number: int) -> str:
    """Where a workload is."""
    return f"team-{number // IN_NAMESPACE}"


def uid_of(number: int) -> str:
    """How it is called on the wire."""
    return f"Kubernetes//Pod/{namespace_of(number)}/pod-{number}"


def workload(number: int, *, healthy: bool = True) -> Workload:
    """One of the mesh, which serves the service of its group; every second one is selected by a policy."""
    namespace = namespace_of(number)
    selected = number % IN_NAMESPACE % POLICIES
    return Workload(
        uid=uid_of(number),
        name=f"pod-{number}",
        namespace=namespace,
        service_account=f"app-{number // ENDPOINTS}",
        addresses=(IPv4Address(_FIRST + number), IPv6Address(_FIRST6 + number)),
        node=f"worker-{number % NODES}",
        protocol=TunnelProtocol.HBONE,
        kind=WorkloadKind.DEPLOYMENT,
        workload_name=f"app-{number // ENDPOINTS}",
        canonical_name=f"app-{number // ENDPOINTS}",
        services={service_name(number): (Port(80, PORT),)},
        authorization_policies=(f"{namespace}/policy-{selected}",) if selected % 2 else (),
        healthy=healthy,
        locality=Locality("region", f"zone-{number % 3}"),
    )


def service_name(number: int) -> ServiceName:
    """The service of a workload."""
    namespace = namespace_of(number)
    return ServiceName(namespace, f"app-{number // ENDPOINTS}.{namespace}.svc.cluster.local")


def service(number: int) -> Service:
    """That of a workload."""
    name = service_name(number)
    return Service(
        name=f"app-{number // ENDPOINTS}",
        namespace=name.namespace,
        hostname=name.hostname,
        addresses=(IPv4Address(_FIRST_VIRTUAL + number // ENDPOINTS),),
        ports=(Port(80, PORT),),
        canonical=True,
    )


def policy(namespace: str, number: int) -> Policy:
    """Every second one selects; the others are for their namespace. They let in five accounts at two ports,
    or keep out a namespace that there is not."""
    scope = PolicyScope.WORKLOAD_SELECTOR if number % 2 else PolicyScope.NAMESPACE
    if number == 0:
        away = Match(namespaces=(StringMatch(MatchKind.EXACT, "nobody"),))
        return Policy(f"policy-{number}", namespace, scope, Action.DENY, (((away,),),))
    prefix = "cluster.local/ns/"
    sources = tuple(StringMatch(MatchKind.PREFIX, f"{prefix}team-{each}") for each in range(1, 6))
    who = Match(principals=(*sources, StringMatch(MatchKind.EXACT, f"{prefix}{namespace}/sa/app-{number}")))
    where = Match(destination_ports=(PORT, 9000 + number))
    return Policy(f"policy-{number}", namespace, scope, Action.ALLOW, (((who,), (where,)),))


def world(workloads: int) -> Iterator[Workload | Service | Policy]:
    """So many workloads, a service for each twenty, and a tenth as many policies."""
    for number in range(workloads):
        if number % ENDPOINTS == 0:
            yield service(number)
        if number % IN_NAMESPACE == 0:
            yield from (policy(namespace_of(number), each) for each in range(POLICIES))
        yield workload(number)
