"""Rate limits of one tunnel: whether its requests may go on, once it is known what becomes of them.

A request that is answered by a CORS preflight or a fault counts nowhere; one that is delayed by a rule counts
before (Envoy's filters cors and fault come before those of rate limits; a delay would come first there, too).
"""

from __future__ import annotations

from collections.abc import Callable

from ztunnel.l7.limits.limits import RateLimits, decide
from ztunnel.l7.policy.attributes import Attributes
from ztunnel.l7.routing.plan import Plan
from ztunnel.model.connection import Connection
from ztunnel.model.route import RouteSource
from ztunnel.model.workload import Workload
from ztunnel.state.lookup import rate_limits_of
from ztunnel.state.world import World
from ztunnel.waypoint.chain import Chain
from ztunnel.waypoint.exchange import Exchange

_BEFORE_LIMITS = frozenset(("cors_response", "fault_filter_abort"))

Refused = Callable[[str, str], None]
"""Is told of each request that was refused: by which policy, and how it was counted."""


def nobody(policy: str, scope: str) -> None:
    """Who is told where nobody counts."""


class Limiter:
    """Those of all tunnels of a waypoint.

    Attributes:
        limits: the policies, compiled, with what they have counted.
        refused: see there.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` gives monotonic seconds."""
        self.clock = clock
        self.limits = RateLimits()
        self.refused: Refused = nobody


class Limiting:
    """Those of one tunnel."""

    __slots__ = ("_chain", "_connection", "_current", "_hops", "_limiter")

    def __init__(
        self,
        limiter: Limiter,
        current: Callable[[], tuple[World, Workload | None]],
        chain: Chain,
        connection: Connection,
        hops: int = 0,
    ) -> None:
        """`current` gives the world of the moment, and the waypoint in it; `chain` is what is called, by whom
        `connection`; `hops` are proxies before this one whose X-Forwarded-For is believed."""
        self._limiter = limiter
        self._current = current
        self._chain = chain
        self._connection = connection
        self._hops = hops

    def admit(self, exchange: Exchange, plan: Plan, source: RouteSource | None) -> None:
        """Go on with a request by its plan, which a rule of `source` has made, or answer it."""
        world, here = self._current()
        if here is None or not world.rate_limits:
            exchange.proceed(plan)
            return
        limits = self._limiter.limits
        names = rate_limits_of(world, here, self._chain.service)
        by_route = source is not None and limits.names_routes(world.rate_limits)
        policies = limits.of(world.rate_limits, names, str(source) if by_route else "")
        if not policies or (plan.reply is not None and plan.reply.details in _BEFORE_LIMITS):
            exchange.proceed(plan)
            return
        asked = Attributes(exchange.admitted, self._connection.source.ip, self._hops)
        outcome = decide(policies, asked, self._connection, self._scope(source), self._limiter.clock())
        exchange.added = outcome.fields
        if outcome.reply is None or outcome.by is None:
            exchange.proceed(plan)
            return
        self._limiter.refused(outcome.by.policy.key, "local")
        exchange.plan = plan
        exchange.failure = f"rate limit {outcome.by.name}"
        exchange.reply(outcome.reply)

    def _scope(self, source: RouteSource | None) -> str:
        """What has buckets of its own: the route, or else what is called."""
        called = self._chain.service.key if self._chain.service is not None else self._chain.destination
        return f"{called} {source}" if source is not None else str(called)
