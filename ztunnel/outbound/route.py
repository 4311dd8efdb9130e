"""What a pod's calls of one way have in common, made once: what is asked of the other end, and what is
reported.

A route is kept as long as neither the world nor the pod changes; then all are forgotten. So a call that goes
a known way costs a look-up, and what is kept can never be older than the world that it was decided by.
"""

from __future__ import annotations

from typing import Final

from ztunnel.hbone.pool import PoolKey
from ztunnel.hbone.request import RequestHead, render_baggage
from ztunnel.model.address import IPAddress
from ztunnel.model.connection import Security
from ztunnel.model.workload import Workload
from ztunnel.outbound.decision import Outcome, ToDirect, ToPlain, ToTunnel
from ztunnel.redirect.layout import Recalled
from ztunnel.state.world import World
from ztunnel.telemetry.journey import Journey, direct_journey
from ztunnel.telemetry.labels import Reporter

_REMEMBERED: Final = 256
"""Routes of one pod, each of 2 to 3 KiB; then it starts afresh."""


class Route:
    """One decision, for every call that asks for the same and is answered by the same.

    Attributes:
        recalled: what was asked for.
        journey: what to report.
    """

    __slots__ = ("journey", "recalled")

    def __init__(self, recalled: Recalled, journey: Journey) -> None:
        self.recalled = recalled
        self.journey = journey


class TunnelRoute(Route):
    """A route through a tunnel.

    Attributes:
        target: the decision.
        key: which sessions may carry its calls.
        head: the CONNECT.
        settled: whether a call for the same is decided the same way each time: nothing was left to chance.
    """

    __slots__ = ("head", "key", "settled", "target")

    def __init__(self, recalled: Recalled, target: ToTunnel, journey: Journey, origin: Origin) -> None:
        super().__init__(recalled, journey)
        self.target = target
        self.key = PoolKey(origin.identity, frozenset(target.identities), origin.ip, target.endpoint)
        host = target.service.hostname if target.service else ""
        self.head = RequestHead(target.authority, origin.baggage, origin.ip, host)
        self.settled = target.service is None and not target.waypoint


class Origin:
    """Where a pod's calls come from: the pod as the world knows it, and which of its addresses."""

    __slots__ = ("baggage", "identity", "ip", "workload")

    def __init__(self, workload: Workload, ip: IPAddress) -> None:
        self.workload = workload
        self.identity = workload.identity
        self.baggage = render_baggage(workload)
        self.ip = ip

    def is_of(self, workload: Workload, ip: IPAddress) -> bool:
        """Whether this is it."""
        return self.workload is workload and (self.ip is ip or self.ip == ip)


class Routes:
    """The routes of one pod, for calls from one of its addresses."""

    def __init__(self) -> None:
        self._world: World | None = None
        self._origin: Origin | None = None
        self._settled: dict[int, TunnelRoute] = {}
        # By what was asked for, who answers and how; route and journey hold both objects: no id is used anew.
        self._routes: dict[tuple[int, int, type[Outcome]], Route] = {}

    def enter(self, world: World, workload: Workload, ip: IPAddress) -> Origin:
        """From where a call of `ip` comes. Forgets what was decided by another world, or for another one."""
        origin = self._origin
        if origin is None or self._world is not world or not origin.is_of(workload, ip):
            self._settled.clear()
            self._routes.clear()
            self._world = world
            origin = self._origin = Origin(workload, ip)
        return origin

    def settled(self, recalled: Recalled) -> TunnelRoute | None:
        """The route of every call for that, if there is only one."""
        route = self._settled.get(id(recalled))
        return route if route is not None and route.recalled is recalled else None

    def settle(self, route: TunnelRoute) -> None:
        """Decide calls for the same no more."""
        if route.settled:
            self._settled[id(route.recalled)] = route

    def route(self, recalled: Recalled, outcome: Outcome) -> Route:
        """The route of what was decided."""
        origin = self._origin
        assert origin is not None
        key = id(recalled), id(outcome.destination), type(outcome)
        route = self._routes.get(key)
        if route is None or route.recalled is not recalled:
            if len(self._routes) >= _REMEMBERED:
                self._routes.clear()
                self._settled.clear()
            journey = _journey(origin, outcome)
            journey.called = recalled.destination
            if isinstance(outcome, ToTunnel):
                route = TunnelRoute(recalled, outcome, journey, origin)
            else:
                route = Route(recalled, journey)
            self._routes[key] = route
        return route


def _journey(origin: Origin, outcome: Outcome) -> Journey:
    """What to report of calls that go that way: identities only where something proves them."""
    source, destination = origin.workload, outcome.destination
    if isinstance(outcome, ToPlain):
        return Journey(Reporter.SOURCE, outcome.endpoint, source, destination, outcome.service)
    if isinstance(outcome, ToDirect):
        return direct_journey(Reporter.SOURCE, outcome.endpoint, source, destination, outcome.service)
    return Journey(
        Reporter.SOURCE,
        outcome.endpoint,
        source,
        destination,
        outcome.service,
        origin.identity,
        outcome.destination.identity,
        Security.MUTUAL_TLS,
        outcome.authority,
    )
