"""Where one outgoing connection goes: into a tunnel, directly to a pod of this node, as it is, or nowhere.

A pure function of the world, in the order of Istio's ztunnel (src/proxy/outbound.rs, `build_request`):

    1 one of our own listeners: refuse
    2 a service with a waypoint: tunnel to the waypoint, which is asked for what was called
    3 a service: one of its endpoints, then 6
    4 a pod's own address, the pod has a waypoint: tunnel to the waypoint, which is asked for what was called
    5 a pod's own address: that pod, then 6
    6 a pod of this node, both in the mesh, the same-node modes allow it: direct
      a pod that speaks HBONE: tunnel to it, asked for its own address and target port
      any other pod: plain, to its address and target port
    7 nobody we know, or a service in mode PASSTHROUGH: plain, to where the application wanted to go

What 6 and 7 call plain does not come here while the kernel knows the mesh's addresses (`teach`), but for
calls to a service. Three things differ. A waypoint's own calls do not pass through it again for services
either (case 2). An address that is both a pod's and that of a service without endpoints is refused, where
ztunnel lets it out in plaintext. And a pod whose network is not this node's is refused: it would find none of
the mesh's addresses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from ztunnel.authz.direct import allows_direct, connection_between
from ztunnel.errors import NoDestination
from ztunnel.model.address import Endpoint, IPAddress, OriginalDestination
from ztunnel.model.identity import SpiffeId
from ztunnel.model.service import LoadBalancing, Service, Waypoint
from ztunnel.model.workload import SameNode, TunnelProtocol, Workload
from ztunnel.state.balancer import Choice, Rng, choose, honour, why_none
from ztunnel.state.lookup import (
    HBONE_PORT,
    ILLEGAL_PORTS,
    address_towards,
    is_waypoint,
    service_at,
    target_port,
)
from ztunnel.state.world import Served, World

_CHOICES = 16
"""How often another endpoint is looked for by chance: of two, it is found but for one time in 65,536."""

_ANY_ADDRESS: dict[int, IPAddress] = {4: IPv4Address(0), 6: IPv6Address(0)}


@dataclass(frozen=True, slots=True)
class Context:
    """What a decision needs besides the world.

    Attributes:
        node: the name of this node.
        rng: chooses among endpoints.
        same_node: the mesh-wide same-node mode.
        direct_available: whether direct connections can be made and enforced at all (kernel, certificates).
        pick: the endpoint that the kernel's slot table has chosen for this call, if it did; honoured while it
            is one that the balancer could choose.
        avoid: an endpoint that has just been tried in vain; chosen only where there is no other.
        choose: who chooses among the endpoints of a service in the place of the balancer of connections.
    """

    node: str
    rng: Rng
    same_node: SameNode = SameNode.AUTO
    direct_available: bool = False
    pick: Endpoint | None = None
    avoid: Endpoint | None = None
    choose: Callable[[Served, Endpoint, Workload], Choice | None] | None = None


@dataclass(frozen=True, slots=True)
class ToTunnel:
    """Over HBONE.

    Attributes:
        endpoint: where to dial TLS (port 15008, or the waypoint's).
        target: what the other end is asked for; its text is the CONNECT's `:authority`.
        identities: whoever answers has to prove one of these.
        destination: who answers: the pod called, or a waypoint.
        service: the service that was called.
        waypoint: whether `destination` is a waypoint.
    """

    endpoint: Endpoint
    target: Endpoint
    identities: tuple[SpiffeId, ...]
    destination: Workload
    service: Service | None
    waypoint: bool = False

    @property
    def authority(self) -> str:
        """The CONNECT's `:authority`."""
        return str(self.target)


@dataclass(frozen=True, slots=True)
class ToDirect:
    """To a pod of this node over the pods' own interfaces; `judge_direct` has to admit it first."""

    endpoint: Endpoint
    destination: Workload
    service: Service | None


@dataclass(frozen=True, slots=True)
class ToPlain:
    """Out of the mesh, as plain TCP; `destination` is None for an address that nobody has told us about."""

    endpoint: Endpoint
    destination: Workload | None
    service: Service | None


Outcome = ToTunnel | ToDirect | ToPlain


def endpoint_of(outcome: Outcome) -> Endpoint | None:
    """The endpoint of the application that was chosen; None where a waypoint chooses."""
    if isinstance(outcome, ToTunnel):
        return None if outcome.waypoint else outcome.target
    return outcome.endpoint


def decide(world: World, source: Workload, destination: OriginalDestination, context: Context) -> Outcome:
    """Decide about one connection of `source`, a pod of ours in the mesh.

    Raises:
        NoDestination: there is nowhere to send it; the message says why.
    """
    if destination.port in ILLEGAL_PORTS and (
        destination.ip in source.addresses or destination.ip.is_loopback
    ):
        raise NoDestination("attempted recursive call to ourselves")
    if source.network != world.network:
        raise NoDestination(f"the pod is in network {source.network!r}, this node in {world.network!r}")
    workload = world.by_ip(destination.ip)
    service = service_at(world, destination, source.namespace)
    called = service if workload is None else None
    if called and (before := _waypoint_before(world, source, called, context)):
        found = _find_waypoint(world, source, before, destination.ip, context)
        return _to_waypoint(found, destination, called)
    if workload and source.gateway and (behind := _behind(world, source, workload, destination, context)):
        return behind
    if service:
        if service.load_balancing is LoadBalancing.PASSTHROUGH:
            return ToPlain(_plainly(destination), None, service)
        upstream = _upstream(world, world.served[service.key], source, destination, context)
    elif workload:
        upstream = Choice(workload, _plainly(destination))
    else:
        return ToPlain(_plainly(destination), None, None)
    waypoint = upstream.workload.waypoint
    if called is None and waypoint and not is_waypoint(world, source, waypoint):
        found = _find_waypoint(world, source, waypoint, destination.ip, context)
        return _to_waypoint(found, destination, None)
    return _to_pod(world, source, upstream, service, context)


def decide_among(
    world: World, source: Workload, served: Served, asked: Endpoint, context: Context
) -> Outcome:
    """Decide about one connection to a service, and to those endpoints of it that `served` has: as `decide`
    does from case 2 on. `asked` is an address of the service, and its port; with no address of its own it
    is one of the family that is wanted.

    Raises:
        NoDestination: there is nowhere to send it; the message says why.
    """
    service = served.service
    assert service is not None
    before = _waypoint_before(world, source, service, context)
    if before:
        if asked.ip not in service.addresses or served is not world.served.get(service.key):
            raise NoDestination(
                f"{service.key} is behind another waypoint, which chooses its endpoints itself"
            )
        found = _find_waypoint(world, source, before, asked.ip, context)
        return _to_waypoint(found, OriginalDestination(asked.ip, asked.port), service)
    if service.load_balancing is LoadBalancing.PASSTHROUGH:
        raise NoDestination(f"{service.key} has no endpoints but the addresses that are called")
    upstream = _upstream(world, served, source, asked, context)
    return _to_pod(world, source, upstream, service, context)


def _behind(
    world: World, source: Workload, workload: Workload, destination: OriginalDestination, context: Context
) -> Outcome | None:
    """Where a gateway has chosen an endpoint itself of a service whose waypoint it is to pass: to that
    waypoint, which is asked for the service and chooses anew."""
    for name in sorted(workload.services):
        service = world.service(name)
        if service is None or not service.ingress_uses_waypoint or not service.addresses:
            continue
        for port in service.ports:
            if target_port(service, workload, port.service) != destination.port:
                continue
            if before := _waypoint_before(world, source, service, context):
                found = _find_waypoint(world, source, before, destination.ip, context)
                ip = address_towards(service, destination.ip)
                return _to_waypoint(found, OriginalDestination(ip, port.service), service)
    return None


def _plainly(destination: OriginalDestination) -> Endpoint:
    return Endpoint(destination.ip, destination.port)


def _upstream(world: World, served: Served, source: Workload, asked: Endpoint, context: Context) -> Choice:
    if context.choose is not None:
        chosen = context.choose(served, asked, source)
        if chosen is None:
            raise NoDestination(f"no healthy upstream: {asked} ({why_none(served, asked, source)})")
        return chosen
    choice = honour(world, served, asked, source, context.pick) if context.pick else None
    choice = choice or choose(served, asked, source, context.rng)
    for _ in range(_CHOICES):
        if choice is None or choice.endpoint != context.avoid:
            break
        choice = choose(served, asked, source, context.rng)
    if choice is None:
        raise NoDestination(f"no healthy upstream: {asked} ({why_none(served, asked, source)})")
    return choice


def _to_pod(
    world: World, source: Workload, upstream: Choice, service: Service | None, context: Context
) -> Outcome:
    """To a pod by its own address: directly, over HBONE, or as it is."""
    destination, endpoint = upstream
    if context.direct_available and _is_direct(world, source, upstream, context):
        return ToDirect(endpoint, destination, service)
    if destination.protocol is TunnelProtocol.HBONE:
        proved = (destination.identity, *_identities(world, service))
        return ToTunnel(Endpoint(endpoint.ip, HBONE_PORT), endpoint, proved, destination, service)
    return ToPlain(endpoint, destination, service)


def _is_direct(world: World, source: Workload, upstream: Choice, context: Context) -> bool:
    """Whether both ends are pods of this node that may talk directly.

    The kernel learns the answer by address, however the call was addressed. So a pod with a waypoint is never
    direct, not even when called through a service; nor is one that a gateway calls, as by its own address it
    may be behind one; nor is one that is not the one we know at that address.
    """
    destination, endpoint = upstream
    if not source.node == destination.node == context.node or not source.enrolled or not destination.enrolled:
        return False
    if source.gateway:
        return False
    if destination.waypoint is not None or world.by_ip(endpoint.ip) is not destination:
        return False
    connection = connection_between(source, endpoint)
    return allows_direct(world, source, destination, connection, context.same_node)


def _to_waypoint(
    found: tuple[Choice, tuple[SpiffeId, ...]], destination: OriginalDestination, service: Service | None
) -> ToTunnel:
    choice, identities = found
    return ToTunnel(
        choice.endpoint, _plainly(destination), identities, choice.workload, service, waypoint=True
    )


def _waypoint_before(world: World, source: Workload, service: Service, context: Context) -> Waypoint | None:
    """The waypoint that this connection to a service has to pass; None: there is none, or `source` is one of
    it."""
    first, weighted = service.waypoint, service.weighted_waypoints
    if first is None or is_waypoint(world, source, first):
        return None
    if any(is_waypoint(world, source, each) for each, _ in weighted):
        return None
    point = context.rng.random() * sum(weight for _, weight in weighted) if weighted else 0.0
    for each, weight in weighted:
        if point < weight:
            return each
        point -= weight
    return first


def _find_waypoint(
    world: World, source: Workload, waypoint: Waypoint, towards: IPAddress, context: Context
) -> tuple[Choice, tuple[SpiffeId, ...]]:
    """The waypoint's pod, where it speaks HBONE, and whom it may prove to be. Not reachable means refused."""
    service = None
    if waypoint.service is not None:
        service = world.service(waypoint.service)
        asked = Endpoint(_ANY_ADDRESS[towards.version], waypoint.hbone_port)
    elif waypoint.address is not None:
        asked = Endpoint(waypoint.address, waypoint.hbone_port)
        if (workload := world.by_ip(waypoint.address)) is not None:
            return Choice(workload, asked), (workload.identity,)
        service = service_at(world, asked, source.namespace, hidden=True)
    if service is None:
        raise NoDestination(f"unknown waypoint: {waypoint.service or waypoint.address} has not been received")
    served = world.served[service.key]
    choice = choose(served, asked, source, context.rng)
    if choice is None:
        raise NoDestination(f"unknown waypoint: {service.key}: {why_none(served, asked, source)}")
    return choice, (choice.workload.identity, *served.identities)


def _identities(world: World, service: Service | None) -> tuple[SpiffeId, ...]:
    served = world.served.get(service.key) if service else None
    return served.identities if served else ()
