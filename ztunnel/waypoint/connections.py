"""Where a connection through a waypoint goes that speaks no HTTP: by a rule for connections of the service
that was called, or to an endpoint of that."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate

from ztunnel.errors import NoDestination
from ztunnel.l7.chance import Rng
from ztunnel.model.route import ConnectionRule
from ztunnel.model.route_action import Destination, Forward
from ztunnel.waypoint.chain import Chain
from ztunnel.waypoint.find import Here, Target


def choose(here: Here, chain: Chain) -> Target:
    """An endpoint for a connection, by the world of the moment.

    Raises:
        NoDestination: there is none, or its share of the connections has none; the message says why.
    """
    rule = rule_of(here, chain)
    if rule is None:
        return here.choose(chain.destination)
    chosen = drawn(rule.forward, here.rng)
    if chosen.refusal is not None:
        raise NoDestination(f"{rule.source}: {chosen.refusal.reason}")
    return here.choose_of(chosen, chain.destination)


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
