"""What becomes of a call: where it goes from its pod, and what the other end says, policy by policy.

The same code decides here as for a connection (`outbound/decision.py`, `authz/verdict.py`,
`inbound/decision.py`); nothing is judged anew. A service is explained for each endpoint that may be chosen,
because policies may select some of its pods and not others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, NamedTuple

from ztunnel.authz.direct import connection_between
from ztunnel.authz.explanation import Tried, trace
from ztunnel.authz.verdict import judge
from ztunnel.errors import ConnectionFailed
from ztunnel.explain.balancing import balanced
from ztunnel.explain.limits import limits_at
from ztunnel.explain.names import Call
from ztunnel.explain.route import Share, route_at
from ztunnel.explain.waypoint import HttpCall, judge_at_waypoint
from ztunnel.inbound.decision import judge_plain
from ztunnel.model.address import Endpoint, IPAddress, OriginalDestination
from ztunnel.model.connection import Connection
from ztunnel.model.service import Service
from ztunnel.model.workload import LeftTo, SameNode, Workload
from ztunnel.outbound.decision import Context, Outcome, ToDirect, ToTunnel, decide, decide_among
from ztunnel.state.balancer import Choice, shares
from ztunnel.state.lookup import address_of, address_towards, service_at, subset_of, target_port
from ztunnel.state.world import World, serve

MOST_PATHS: Final = 16
"""Endpoints explained of a service; of more, how many there are."""

_LEFT: Final = {LeftTo.SIDECAR: " (its sidecar serves it)", LeftTo.ISTIO: " (Istio's ztunnel serves it)"}


class Way(StrEnum):
    """How a call travels."""

    HBONE = "HBONE"
    WAYPOINT = "waypoint"
    DIRECT = "direct"
    PLAINTEXT = "plaintext"
    NOWHERE = "nowhere"


@dataclass(frozen=True, slots=True)
class Path:
    """One way that a call may take.

    Attributes:
        to: who answers, as `namespace/name`, or the address where nobody is known.
        endpoint: its address and port.
        node: where it runs.
        way: how the call travels.
        allowed: whether it gets there.
        reason: why, or why not.
        tried: the policies that were looked at, in order; empty where none is.
        onward: of a waypoint that lets it through, the ways from there.
    """

    to: str
    endpoint: str
    node: str
    way: Way
    allowed: bool
    reason: str
    tried: tuple[Tried, ...] = ()
    onward: tuple[Path, ...] = ()

    @property
    def refusal(self) -> str:
        """Why it is refused, here or on each way from here; empty: it is not."""
        if not self.allowed:
            return self.reason
        refused = [path for path in self.onward if path.refusal]
        return f"behind {self.to}, {refused[0].refusal}" if refused and refused == [*self.onward] else ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What becomes of a call. `source` and `destination` describe its ends; `more` are endpoints beyond
    `MOST_PATHS` that are not shown."""

    source: str
    destination: str
    paths: tuple[Path, ...]
    more: int = 0

    @property
    def allowed(self) -> bool:
        """Whether every way is allowed."""
        return not any(path.refusal for path in self.paths)

    @property
    def verdict(self) -> str:
        """One sentence."""
        refused = [path.refusal for path in self.paths if path.refusal]
        if not refused:
            return f"allowed: {self.paths[0].reason}"
        if len(refused) == len(self.paths):
            return f"refused: {refused[0]}"
        return f"refused by {len(refused)} of {len(self.paths)} endpoints: {refused[0]}"


class _First:
    """Chance that always takes the first."""

    def random(self) -> float:
        """0."""
        return 0.0


def explain_call(
    world: World, call: Call, same_node: SameNode = SameNode.AUTO, http: HttpCall | None = None
) -> Explanation:
    """Explain one call.

    Args:
        world: what is known.
        call: who calls whom.
        same_node: the mesh-wide mode for pods of one node.
        http: what is asked of a waypoint, `GET /` where nothing is said.

    Raises:
        ValueError: the path of `http` is none.
    """
    source = call.source
    if isinstance(source, Workload) and source.enrolled:
        asked = _Asked(call.destination, http or HttpCall())
        paths, more = _from_mesh(world, source, asked, same_node)
    else:
        paths, more = _from_outside(world, source, call.destination)
    return Explanation(_describe_source(source), _describe(world, call), tuple(paths), more)


# From a pod of the mesh.


class _Asked(NamedTuple):
    """What is called, and what is asked of it."""

    called: Endpoint
    http: HttpCall


def _from_mesh(
    world: World, source: Workload, asked: _Asked, same_node: SameNode, *, direct: bool = True
) -> tuple[list[Path], int]:
    """The ways from a pod; a waypoint makes no `direct` flows."""
    called = asked.called
    service = service_at(world, called, source.namespace)
    picks: list[Endpoint | None] = [None]
    if service is not None and world.by_ip(called.ip) is None:
        served = world.served[service.key]
        if not direct:  # nothing stands before them any more
            served = serve(replace(service, waypoint=None), served.endpoints, served.most)
        picks = [endpoint for endpoint, _ in shares(served, called, source)] or [None]
    context = Context(source.node, _First(), same_node, direct_available=direct)
    first = _decided(world, source, asked, context, picks[0])
    if first.way is Way.WAYPOINT:
        return [first], 0  # which chooses among the endpoints
    paths = [first, *(_decided(world, source, asked, context, pick) for pick in picks[1:MOST_PATHS])]
    return paths, max(len(picks) - MOST_PATHS, 0)


def _decided(world: World, source: Workload, asked: _Asked, context: Context, pick: Endpoint | None) -> Path:
    called = asked.called
    wanted = OriginalDestination(called.ip, called.port)
    chosen = Context(context.node, context.rng, context.same_node, context.direct_available, pick)
    try:
        outcome = decide(world, source, wanted, chosen)
    except ConnectionFailed as error:
        return Path("", str(called), "", Way.NOWHERE, False, str(error))
    if isinstance(outcome, ToTunnel) and outcome.waypoint:
        return _at_waypoint(world, source, outcome, asked)
    return _judged(world, source, outcome)


def _at_waypoint(world: World, source: Workload, outcome: ToTunnel, asked: _Asked) -> Path:
    waypoint, called = outcome.destination, asked.called
    own = next((ip for ip in source.addresses if ip.version == outcome.endpoint.ip.version), called.ip)
    connection = Connection(Endpoint(own, 0), called, source.identity)
    at_address = world.by_ip(called.ip)
    service = service_at(world, called, waypoint.namespace, hidden=True) if at_address is None else None
    found = judge_at_waypoint(world, waypoint, service, connection, asked.http)
    if found.unknown:
        names = ", ".join(found.unknown)
        reason = f"the waypoint decides by {names}, which only waypoints and control planes know"
        return _path(waypoint, outcome.endpoint, Way.WAYPOINT, reason, found.tried)
    decision = found.decision
    if not decision.allowed:
        why = decision.reason or decision.details
        path = _path(waypoint, outcome.endpoint, Way.WAYPOINT, f"{found.what}: {why}", found.tried)
        return replace(path, allowed=False)
    asks = f"{found.asks}; if that permits it: " if found.asks else ""
    reason = f"{found.what}: {asks}{_why(decision.policy or None, found.tried)}"
    if found.token.told:
        reason += f"; {found.token.told}"
    routed = route_at(world, service, called.port, found.request) if found.request is not None else None
    if routed is None:
        onward, _ = _from_mesh(world, waypoint, asked, SameNode.AUTO, direct=False)
        if service is not None:
            reason += balanced(world, waypoint.namespace, service.key, called.port)
    else:
        reason += f"; {routed.why}"
        onward = [path for share in routed.shares for path in _of_share(world, waypoint, called, share)]
    if found.request is not None:
        route = routed.source if routed is not None else ""
        reason += limits_at(world, (waypoint, service), connection, found.request, route)
    path = _path(waypoint, outcome.endpoint, Way.WAYPOINT, reason, found.tried)
    return replace(path, onward=tuple(onward))


def _of_share(world: World, waypoint: Workload, called: Endpoint, share: Share) -> Iterator[Path]:
    """The ways to a destination of a rule."""
    sought = share.destination
    served = world.served.get(sought.service)
    if served is None or served.service is None:
        yield Path("", str(sought.service), "", Way.NOWHERE, False, f"{sought.service} is not known: 503")
        return
    subset = subset_of(world, served, sought.labels)
    asked = Endpoint(address_towards(served.service, called.ip), sought.port or called.port)
    own = serve(replace(served.service, waypoint=None), subset.endpoints, subset.most)
    picks: list[Endpoint | None] = [endpoint for endpoint, _ in shares(own, asked, waypoint)]
    for pick in picks[:MOST_PATHS] or [None]:
        context = Context(waypoint.node, _First(), pick=pick)
        try:
            outcome = decide_among(world, waypoint, subset, asked, context)
        except ConnectionFailed as error:
            yield Path("", str(asked), "", Way.NOWHERE, False, f"{share}: {error}")
            return
        path = _judged(world, waypoint, outcome)
        port = sought.port or called.port
        how = balanced(world, waypoint.namespace, sought.service, port, sought.subset)
        yield replace(path, reason=f"{share}{how}; {path.reason}")


def _judged(world: World, source: Workload, outcome: Outcome) -> Path:
    if isinstance(outcome, ToTunnel):
        return _at_destination(world, source, outcome.destination, outcome.target, Way.HBONE)
    if isinstance(outcome, ToDirect):
        return _at_destination(world, source, outcome.destination, outcome.endpoint, Way.DIRECT)
    if outcome.destination is None:
        reason = "nobody of the mesh: the call is left alone, and no policy is asked"
        return Path("", str(outcome.endpoint), "", Way.PLAINTEXT, True, reason)
    reason = "it is not in the mesh: nobody enforces policies there"
    return _path(outcome.destination, outcome.endpoint, Way.PLAINTEXT, reason)


def _at_destination(
    world: World, source: Workload, destination: Workload, target: Endpoint, way: Way
) -> Path:
    connection = connection_between(source, target)
    tried = trace(world, destination, connection)
    try:
        by = judge(world, destination, connection).by
    except ConnectionFailed as error:
        return replace(_path(destination, target, way, str(error), tried), allowed=False)
    return _path(destination, target, way, _why(by, tried), tried)


# From elsewhere: what stands at the address answers, whatever the caller is.


def _from_outside(world: World, source: Workload | IPAddress, called: Endpoint) -> tuple[list[Path], int]:
    namespace = source.namespace if isinstance(source, Workload) else ""
    service = service_at(world, called, namespace)
    at_address = world.by_ip(called.ip)
    if service is None or at_address is not None:
        return [_plain(world, source, at_address, called)], 0
    choices = list(_endpoints(world, service, called))
    paths = [_plain(world, source, one.workload, one.endpoint) for one in choices[:MOST_PATHS]]
    if not paths:
        paths = [Path("", str(called), "", Way.NOWHERE, False, f"{service.key} has no healthy endpoint")]
    return paths, max(len(choices) - MOST_PATHS, 0)


def _endpoints(world: World, service: Service, called: Endpoint) -> Iterator[Choice]:
    """Those that kube-proxy would send a client to."""
    for workload in world.endpoints(service.key):
        ip = address_of(workload, called.ip, service.ip_families)
        port = target_port(service, workload, called.port)
        if workload.healthy and ip is not None and port:
            yield Choice(workload, Endpoint(ip, port))


def _plain(
    world: World, source: Workload | IPAddress, destination: Workload | None, target: Endpoint
) -> Path:
    if destination is None:
        reason = "neither end is in the mesh"
        return Path("", str(target), "", Way.PLAINTEXT, True, reason)
    if not destination.enrolled:
        return _path(destination, target, Way.PLAINTEXT, "neither end is in the mesh")
    ip = _address(source, target)
    tried = trace(world, destination, Connection(Endpoint(ip, 0), target, None))
    try:
        by = judge_plain(world, destination, Endpoint(ip, 0), target).admitted.by
    except ConnectionFailed as error:
        return replace(_path(destination, target, Way.PLAINTEXT, str(error), tried), allowed=False)
    return _path(destination, target, Way.PLAINTEXT, _why(by, tried), tried)


def _address(source: Workload | IPAddress, target: Endpoint) -> IPAddress:
    if not isinstance(source, Workload):
        return source
    own = source.addresses or (target.ip,)  # a pod that starts: no policy is about its address yet
    return next((ip for ip in own if ip.version == target.ip.version), own[0])


# Words.


def _why(by: str | None, tried: tuple[Tried, ...]) -> str:
    if by is not None:
        return f"allowed by {by}"
    in_force = [one for one in tried if not one.dry_run]
    return "no policy denies it, and none allows anything" if in_force else "no policy concerns it"


def _path(
    destination: Workload,
    endpoint: Endpoint,
    way: Way,
    reason: str,
    tried: tuple[Tried, ...] = (),
) -> Path:
    to = f"{destination.namespace}/{destination.name}"
    return Path(to, str(endpoint), destination.node, way, True, reason, tried)


def _describe_source(source: Workload | IPAddress) -> str:
    if not isinstance(source, Workload):
        return f"{source}, nobody that is known: without an identity"
    place = f"{source.namespace}/{source.name} on {source.node or 'no node'}"
    if source.enrolled:
        return f"{place}, in the mesh as {source.identity.principal}"
    return f"{place}, not in the mesh{_left_to(source)}: without an identity"


def _left_to(workload: Workload) -> str:
    """Why it is not in the mesh, where that is not its label."""
    return " (the host's network)" if workload.host_network else _LEFT.get(workload.left_to, "")


def _describe(world: World, call: Call) -> str:
    at = f"at {call.destination}"
    if call.service is not None:
        ready = [one for one in world.endpoints(call.service.key) if one.healthy]
        ports = len(world.endpoints(call.service.key))
        return f"service {call.service.key} {at}, {len(ready)} of {ports} endpoints ready"
    if call.workload is not None:
        one = call.workload
        state = "in the mesh" if one.enrolled else f"not in the mesh{_left_to(one)}"
        return f"{one.namespace}/{one.name} {at} on {one.node or 'no node'}, {state}"
    return f"{call.destination}, nobody that is known"
