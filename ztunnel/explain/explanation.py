"""What becomes of a call: where it goes from its pod, and what the other end says, policy by policy.

The same code decides here as for a connection (`outbound/decision.py`, `authz/verdict.py`,
`inbound/decision.py`); nothing is judged anew. A service is explained for each endpoint that may be chosen,
because policies may select some of its pods and not others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from ztunnel.authz.direct import connection_between
from ztunnel.authz.explanation import trace
from ztunnel.authz.verdict import judge
from ztunnel.errors import ConnectionFailed
from ztunnel.explain.balancing import balanced
from ztunnel.explain.ends import describe_called, describe_source
from ztunnel.explain.limits import limits_at
from ztunnel.explain.names import Call
from ztunnel.explain.outside import from_outside
from ztunnel.explain.path import MOST_PATHS, Explanation, Path, Way, path_to, why_allowed
from ztunnel.explain.route import Share, route_at
from ztunnel.explain.waypoint import HttpCall, judge_at_waypoint
from ztunnel.model.address import Endpoint, OriginalDestination
from ztunnel.model.connection import Connection
from ztunnel.model.workload import SameNode, Workload
from ztunnel.outbound.decision import Context, Outcome, ToDirect, ToTunnel, decide, decide_among
from ztunnel.state.balancer import shares
from ztunnel.state.lookup import address_towards, service_at, subset_of
from ztunnel.state.world import World, serve


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
        paths, more = from_outside(world, source, call.destination)
    return Explanation(describe_source(source), describe_called(world, call), tuple(paths), more)


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
        return path_to(waypoint, outcome.endpoint, Way.WAYPOINT, reason, found.tried)
    decision = found.decision
    if not decision.allowed:
        why = decision.reason or decision.details
        path = path_to(waypoint, outcome.endpoint, Way.WAYPOINT, f"{found.what}: {why}", found.tried)
        return replace(path, allowed=False)
    asks = f"{found.asks}; if that permits it: " if found.asks else ""
    reason = f"{found.what}: {asks}{why_allowed(decision.policy or None, found.tried)}"
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
    path = path_to(waypoint, outcome.endpoint, Way.WAYPOINT, reason, found.tried)
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
    return path_to(outcome.destination, outcome.endpoint, Way.PLAINTEXT, reason)


def _at_destination(
    world: World, source: Workload, destination: Workload, target: Endpoint, way: Way
) -> Path:
    connection = connection_between(source, target)
    tried = trace(world, destination, connection)
    try:
        by = judge(world, destination, connection).by
    except ConnectionFailed as error:
        return replace(path_to(destination, target, way, str(error), tried), allowed=False)
    return path_to(destination, target, way, why_allowed(by, tried), tried)
