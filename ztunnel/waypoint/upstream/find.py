"""Finds the endpoint for a request or a connection: of what was called, or of what a route means.

An endpoint is chosen for each try, by the world of the moment, as the node proxies choose theirs.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate
from random import Random

from ztunnel.errors import NoDestination
from ztunnel.hbone.pool import PoolKey
from ztunnel.hbone.request import RequestHead, TraceContexts, render_baggage
from ztunnel.l7.chance import Rng
from ztunnel.model.address import Endpoint, IPAddress, OriginalDestination
from ztunnel.model.route import ConnectionRule
from ztunnel.model.route_action import Destination, Forward
from ztunnel.model.workload import Workload
from ztunnel.outbound.decision import Context, Outcome, ToTunnel, decide, decide_among
from ztunnel.redirect.enroll import PodNetwork
from ztunnel.state.hold import Hold
from ztunnel.state.lookup import address_towards
from ztunnel.state.world import Served, World
from ztunnel.waypoint.chain import Chain
from ztunnel.waypoint.upstream.clusters import WHOLE, Clusters, Subset
from ztunnel.waypoint.upstream.pick import Caller, Pick
from ztunnel.waypoint.upstream.spot import Target


class Here:
    """The waypoint itself.

    Attributes:
        uid: of its workload.
        network: where it dials from.
        context: of the request for which something is dialled now, as a tunnel says it; empty: of none.
        clusters: the endpoints of all that is called.
    """

    def __init__(
        self, uid: str, network: PodNetwork, hold: Hold, rng: Random, now: Callable[[], float]
    ) -> None:
        """`now` gives monotonic seconds."""
        self.uid = uid
        self.network = network
        self.hold = hold
        self.rng = rng
        self._contexts = TraceContexts(rng)
        self.context = ""
        self.clusters = Clusters(rng, now)
        hold.subscribe(self.clusters.changed)
        self._world: World | None = None
        self._targets: dict[tuple[Endpoint, int, int], Target] = {}

    @property
    def workload(self) -> Workload | None:
        """As the world has it now."""
        return self.hold.world.workload(self.uid)

    def pick(self, caller: IPAddress, subset: Subset = WHOLE) -> Pick:
        """The choice of an endpoint for a connection of that caller."""
        return Pick(self.clusters, self.hold.world, Caller(caller), subset=subset)

    def choose(self, destination: OriginalDestination, pick: Pick) -> Target:
        """An endpoint of what was called, which `pick` chooses where that is a service.

        Raises:
            NoDestination: there is none; the message says why.
        """
        world, source = self.hold.world, self.workload
        if source is None:
            raise NoDestination("this waypoint is not in the mesh (yet)")
        return self._of(world, source, decide(world, source, destination, self._context(source, pick)))

    def choose_of(self, sought: Destination, called: OriginalDestination, pick: Pick) -> Target:
        """An endpoint of a destination of a route; where that says no port it is the one that was called.

        Raises:
            NoDestination: there is none; the message says why.
        """
        world, source = self.hold.world, self.workload
        if source is None:
            raise NoDestination("this waypoint is not in the mesh (yet)")
        self._follow(world)
        served = self._served(world, sought)
        ip = address_towards(served.service, called.ip)
        asked = Endpoint(ip, sought.port or called.port)
        return self._of(
            world, source, decide_among(world, source, served, asked, self._context(source, pick))
        )

    def _context(self, source: Workload, pick: Pick) -> Context:
        return Context(source.node, self.rng, choose=pick.choose)

    def _follow(self, world: World) -> None:
        """What was worked out is of another world no more."""
        if self._world is not world:
            self._world = world
            self._targets.clear()

    def _served(self, world: World, sought: Destination) -> Served:
        """The service that a route means; of a subset without endpoints: `pick` knows which they are."""
        served = world.served.get(sought.service)
        if served is None or served.service is None:
            raise NoDestination(f"{sought.service} is not known")
        return Served(served.service) if sought.labels else served

    def _of(self, world: World, source: Workload, outcome: Outcome) -> Target:
        if not isinstance(outcome, ToTunnel):
            return Target(None, None, outcome.endpoint, outcome.destination, outcome.service)
        self._follow(world)
        key = outcome.target, id(outcome.destination), id(outcome.service)
        target = self._targets.get(key)
        if target is None:
            target = self._targets[key] = _target(source, outcome)
        return target

    def block(self, target: Target) -> bytes:
        """The header block of a CONNECT."""
        assert target.head is not None
        return target.head.render(0, self.context or self._contexts.new())


def _target(source: Workload, outcome: ToTunnel) -> Target:
    own = _own_address(source, outcome.endpoint.ip)
    host = outcome.service.hostname if outcome.service else ""
    return Target(
        PoolKey(source.identity, frozenset(outcome.identities), own, outcome.endpoint),
        RequestHead(outcome.authority, render_baggage(source), own, host),
        outcome.target,
        outcome.destination,
        outcome.service,
    )


def _own_address(source: Workload, towards: IPAddress) -> IPAddress:
    return next((ip for ip in source.addresses if ip.version == towards.version), source.addresses[0])


def choose_for(here: Here, chain: Chain, caller: IPAddress) -> tuple[Target, Pick]:
    """An endpoint for a connection of that caller that speaks no HTTP, and its choice: by a rule for
    connections of the service that was called, or of that itself.

    Raises:
        NoDestination: there is none, or its share of the connections has none; the message says why.
    """
    rule = rule_of(here, chain)
    if rule is None:
        pick = here.pick(caller)
        return here.choose(chain.destination, pick), pick
    chosen = drawn(rule.forward, here.rng)
    if chosen.refusal is not None:
        raise NoDestination(f"{rule.source}: {chosen.refusal.reason}")
    pick = here.pick(caller, Subset(chosen.subset, chosen.labels))
    return here.choose_of(chosen, chain.destination, pick), pick


def rule_of(here: Here, chain: Chain) -> ConnectionRule | None:
    """The rule that is for what was called, if there is one."""
    if chain.service is None:
        return None
    routes = here.hold.world.routes.get(str(chain.service.key))
    if routes is None:
        return None
    return routes.connection(chain.destination.ip, chain.destination.port)


def drawn(forward: Forward, rng: Rng) -> Destination:
    """One of the destinations, each by its weight; one that is alone whatever that is."""
    if len(forward.destinations) == 1:
        return forward.destinations[0]
    shares = list(accumulate(each.weight for each in forward.destinations))
    return forward.destinations[bisect_right(shares, int(rng.random() * shares[-1]))]
