"""Builders of the model's values for tests: `workload("a").on("n1").hbone()` is a Workload, complete.

Each method returns a new value. A built value equals the plain value with the same fields, on either side of
`==`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace
from ipaddress import IPv4Address, ip_address, ip_network
from typing import Any, Self
from zlib import crc32

from ztunnel.model.address import Endpoint, IPAddress, IPNetwork, OriginalDestination, parse_endpoint
from ztunnel.model.connection import Connection
from ztunnel.model.identity import SpiffeId, parse_spiffe_id
from ztunnel.model.policy import (
    Action,
    Match,
    MatchKind,
    Policy,
    PolicyScope,
    Rule,
    ServiceAccountMatch,
    StringMatch,
)
from ztunnel.model.service import IpFamilies, LoadBalancing, Port, Scope, Service, ServiceName, Waypoint
from ztunnel.model.workload import Locality, SameNode, TunnelProtocol, Workload, WorkloadKind
from ztunnel.state.delta import apply
from ztunnel.state.world import World


def _same(one: object, other: object, kind: type) -> bool:
    """Whether both are values of `kind` with the same fields, built or plain."""
    return isinstance(other, kind) and all(
        getattr(one, field.name) == getattr(other, field.name) for field in fields(kind)
    )


def _port(spec: int | tuple[int, int]) -> Port:
    return Port(spec, spec) if isinstance(spec, int) else Port(*spec)


class BuiltWorkload(Workload):
    """A workload with methods that return changed copies of it."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return _same(self, other, Workload)

    def on(self, node: str) -> Self:
        """Runs on that node."""
        return replace(self, node=node)

    def hbone(self) -> Self:
        """Is in the mesh."""
        return replace(self, protocol=TunnelProtocol.HBONE)

    def plain(self) -> Self:
        """Is not in the mesh."""
        return replace(self, protocol=TunnelProtocol.NONE)

    def at(self, *addresses: str) -> Self:
        """Has exactly these addresses."""
        return replace(self, addresses=tuple(map(ip_address, addresses)))

    def account(self, name: str, trust_domain: str = "cluster.local") -> Self:
        """Runs as that service account."""
        return replace(self, service_account=name, trust_domain=trust_domain)

    def serves(self, target: Service | ServiceName, *ports: int | tuple[int, int]) -> Self:
        """Is an endpoint of `target`; a port is a number, or (service port, this pod's port)."""
        name = target.key if isinstance(target, Service) else target
        return replace(self, services={**self.services, name: tuple(map(_port, ports))})

    def selected_by(self, *policies: str | Policy) -> Self:
        """Lists these policies (`namespace/name`, or the policy itself)."""
        keys = tuple(policy if isinstance(policy, str) else policy.key for policy in policies)
        return replace(self, authorization_policies=keys)

    def through(self, waypoint: str | Service, port: int = 15008) -> Self:
        """Is reached through a waypoint: an address, or a service."""
        return replace(self, waypoint=_waypoint(waypoint, port))

    def same_node_mode(self, mode: SameNode) -> Self:
        """Has the annotation `ztunnel.io/same-node`."""
        return replace(self, same_node=mode)

    def unhealthy(self) -> Self:
        """Is not ready."""
        return replace(self, healthy=False)

    def ending(self) -> Self:
        """Terminates and still serves."""
        return replace(self, healthy=False, draining=True)

    def host_networked(self) -> Self:
        """Shares the node's namespace."""
        return replace(self, host_network=True)

    def native(self) -> Self:
        """Serves HBONE by itself, as a waypoint does."""
        return replace(self, protocol=TunnelProtocol.HBONE, native_tunnel=True)

    def weighing(self, capacity: int) -> Self:
        """Takes that many shares of a service's connections."""
        return replace(self, capacity=capacity)

    def located(self, region: str = "", zone: str = "", subzone: str = "") -> Self:
        """Runs there."""
        return replace(self, locality=Locality(region, zone, subzone))

    def in_network(self, network: str) -> Self:
        """Is in that network."""
        return replace(self, network=network)

    def in_cluster(self, cluster: str) -> Self:
        """Is in that cluster; its uid says so too."""
        return replace(self, cluster=cluster, uid=f"{cluster}//Pod/{self.namespace}/{self.name}")

    def identified_by(self, uid: str) -> Self:
        """Has that uid."""
        return replace(self, uid=uid)

    def with_uid(self, uid: str) -> Self:
        """The kubelet knows it by that."""
        return replace(self, pod_uid=uid)

    def owned_by(self, kind: WorkloadKind, name: str) -> Self:
        """Belongs to that deployment, job or the like."""
        return replace(self, kind=kind, workload_name=name, canonical_name=name)


def workload(name: str, namespace: str = "default") -> BuiltWorkload:
    """A healthy pod outside of the mesh; its address is derived from its name, its account is of its name."""
    ip = IPv4Address((10 << 24) | (crc32(f"{namespace}/{name}".encode()) & 0xFFFFFF))
    uid = f"Kubernetes//Pod/{namespace}/{name}"
    return BuiltWorkload(
        uid=uid, name=name, namespace=namespace, service_account=name, addresses=(ip,), canonical_name=name
    )


class BuiltService(Service):
    """A service with methods that return changed copies of it."""

    __slots__ = ()
    __hash__ = Service.__hash__

    def __eq__(self, other: object) -> bool:
        return _same(self, other, Service)

    def at(self, *addresses: str) -> Self:
        """Has exactly these virtual addresses."""
        return replace(self, addresses=tuple(map(ip_address, addresses)))

    def port(self, service_port: int, target: int | None = None) -> Self:
        """Has one more port; a `target` of 0 is a named one."""
        return replace(
            self, ports=(*self.ports, Port(service_port, service_port if target is None else target))
        )

    def through(self, waypoint: str | Service, port: int = 15008) -> Self:
        """Is reached through a waypoint: an address, or a service."""
        return replace(self, waypoint=_waypoint(waypoint, port))

    def keeping(self, seconds: int) -> Self:
        """A client keeps its endpoint so long."""
        return replace(self, affinity_seconds=seconds)

    def balanced(self, mode: LoadBalancing, *scopes: Scope) -> Self:
        """Chooses its endpoints so."""
        return replace(self, load_balancing=mode, routing_preference=scopes)

    def shared_by(self, *waypoints: tuple[str | Service, int]) -> Self:
        """Is reached through the first, or these by their weights."""
        found = tuple((_waypoint(each, 15008), weight) for each, weight in waypoints)
        return replace(self, waypoint=found[0][0], weighted_waypoints=found)

    def hidden(self) -> Self:
        """Is there for clients of its own namespace alone."""
        return replace(self, private=True)

    def with_unhealthy(self) -> Self:
        """Sends to pods that are not ready too."""
        return replace(self, include_unhealthy=True)

    def proving(self, *names: str) -> Self:
        """Has these subject alternative names."""
        return replace(self, subject_alt_names=names)

    def reached_at(self, *addresses: str) -> Self:
        """Has these of its addresses at its ports only."""
        return replace(self, external=tuple(map(ip_address, addresses)))

    def families(self, families: IpFamilies) -> Self:
        """Is limited to these address families."""
        return replace(self, ip_families=families)


def service(name: str, namespace: str = "default") -> BuiltService:
    """A headless service without ports; add `.at(...)` and `.port(...)`."""
    return BuiltService(name=name, namespace=namespace, hostname=f"{name}.{namespace}.svc.cluster.local")


class BuiltPolicy(Policy):
    """A policy with methods that return changed copies of it."""

    __slots__ = ()
    __hash__ = Policy.__hash__

    def __eq__(self, other: object) -> bool:
        return _same(self, other, Policy)

    def deny(self) -> Self:
        """Refuses what it matches."""
        return replace(self, action=Action.DENY)

    def everywhere(self) -> Self:
        """Concerns every workload."""
        return replace(self, scope=PolicyScope.GLOBAL)

    def selecting(self) -> Self:
        """Concerns the workloads that list it."""
        return replace(self, scope=PolicyScope.WORKLOAD_SELECTOR)

    def dry(self) -> Self:
        """Is only tried."""
        return replace(self, dry_run=True)

    def rule(self, *clauses: Iterable[Match]) -> Self:
        """One more rule, of these clauses; none: a rule that matches everything."""
        rule: Rule = tuple(map(tuple, clauses))
        return replace(self, rules=(*self.rules, rule))

    def when(self, **conditions: Iterable[str | int]) -> Self:
        """One more rule of one clause of one match, written as `match` takes it."""
        return self.rule([match(**conditions)])


def policy(name: str, namespace: str = "default") -> BuiltPolicy:
    """An ALLOW policy for a whole namespace, without rules: it matches nothing, so nothing is allowed."""
    return BuiltPolicy(name=name, namespace=namespace, scope=PolicyScope.NAMESPACE, action=Action.ALLOW)


def strict(namespace: str = "istio-system") -> BuiltPolicy:
    """What a control plane makes of a STRICT PeerAuthentication; a workload has to list it."""
    name = "istio_converted_static_strict"
    return policy(name, namespace).deny().selecting().when(not_principals=["*"])


def match(**conditions: Iterable[str | int]) -> Match:
    """A match from plain values: `match(principals=["*/sa/a"], source_ips=["10.0.0.0/8"])`.

    Strings are compared as AuthorizationPolicy writes them: `abc*`, `*abc`, `*` (any), else exactly. Service
    accounts are `namespace/name`.
    """
    values: dict[str, Any] = {
        name: tuple(_condition(name, each) for each in given) for name, given in conditions.items()
    }
    return Match(**values)


def _condition(field: str, given: str | int) -> StringMatch | ServiceAccountMatch | IPNetwork | int:
    if isinstance(given, int):
        return given
    if field.endswith("_ips"):
        return ip_network(given)
    if field.endswith("service_accounts"):
        return ServiceAccountMatch(*given.split("/"))
    if given == "*":
        return StringMatch(MatchKind.PRESENCE)
    if given.endswith("*"):
        return StringMatch(MatchKind.PREFIX, given[:-1])
    if given.startswith("*"):
        return StringMatch(MatchKind.SUFFIX, given[1:])
    return StringMatch(MatchKind.EXACT, given)


def _waypoint(target: str | Service, port: int) -> Waypoint:
    if isinstance(target, str):
        return Waypoint(None, ip_address(target), port)
    return Waypoint(target.key, None, port)


def identity(principal: str) -> SpiffeId:
    """`trust domain/ns/namespace/sa/account`, or for short `namespace/account` in `cluster.local`."""
    if principal.count("/") == 1:
        namespace, account = principal.split("/")
        return SpiffeId("cluster.local", namespace, account)
    return parse_spiffe_id(f"spiffe://{principal}")


def connection(source: str, destination: str, principal: str = "") -> Connection:
    """From `ip` or `ip:port` (0 is a port here) to `ip:port`; without a principal it is plaintext."""
    return Connection(_peer(source), parse_endpoint(destination), identity(principal) if principal else None)


def _peer(text: str) -> Endpoint:
    if text.startswith("[") or text.count(":") == 1:
        host, _, port = text.rpartition(":")
        return Endpoint(ip_address(host.strip("[]")), int(port))
    return Endpoint(ip_address(text), 40000)


def original(destination: str) -> OriginalDestination:
    """Where an application wanted to go: `ip:port`."""
    endpoint = parse_endpoint(destination)
    return OriginalDestination(endpoint.ip, endpoint.port)


def ip(text: str) -> IPAddress:
    """An address."""
    return ip_address(text)


def large_mesh(workloads: int, policies: int) -> list[Workload | Service | Policy]:
    """A mesh as upserts, of plain values: 20 endpoints a service, 100 workloads a namespace and a node.

    Half of the policies allow an account of their namespace, half deny addresses that nobody has.
    """
    namespaces = max(1, workloads // 100)
    names = [
        ServiceName(f"ns{n % namespaces}", f"s{n}.ns{n % namespaces}.svc.cluster.local")
        for n in range(workloads // 20)
    ]
    made: list[Workload | Service | Policy] = [
        Service(
            f"s{n}", name.namespace, name.hostname, (IPv4Address((172 << 24) + n),), ports=(Port(80, 8080),)
        )
        for n, name in enumerate(names)
    ]
    for n in range(workloads):
        name = names[n % len(names)]
        made.append(
            Workload(
                uid=f"Kubernetes//Pod/{name.namespace}/w{n}",
                name=f"w{n}",
                namespace=name.namespace,
                service_account=f"a{n % len(names)}",
                addresses=(IPv4Address((10 << 24) + n),),
                node=f"node{n // 100}",
                protocol=TunnelProtocol.HBONE,
                services={name: (Port(80, 8080),)},
            )
        )
    for n in range(policies):
        namespace = f"ns{n % namespaces}"
        rule = policy(f"p{n}", namespace)
        if n // namespaces % 2:
            rule = rule.when(namespaces=[namespace])
        else:
            rule = rule.deny().when(source_ips=["192.0.2.0/24"], not_destination_ports=[80])
        made.append(Policy(rule.name, rule.namespace, rule.scope, rule.action, rule.rules))
    return made


def world_of(*items: Workload | Service | Policy, network: str = "") -> World:
    """A world that holds these."""
    return apply(World(network), items)[0]
