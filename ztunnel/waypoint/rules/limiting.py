"""Rate limits of one tunnel: whether its requests may go on, once it is known what becomes of them.

A request that is answered by a CORS preflight or a fault counts nowhere; one that is delayed by a rule counts
before (Envoy's filters cors and fault come before those of rate limits; a delay would come first there, too).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from typing import Final

from ztunnel.http1.head import Fields
from ztunnel.l7.limits.compiled import CompiledPolicy, Entries
from ztunnel.l7.limits.limits import RateLimits, decide
from ztunnel.l7.policy.attributes import Attributes
from ztunnel.l7.reply import Reply
from ztunnel.l7.routing.plan import Plan
from ztunnel.model.connection import Connection
from ztunnel.model.route import RouteSource
from ztunnel.model.workload import Workload
from ztunnel.state.lookup import rate_limits_of
from ztunnel.state.world import World
from ztunnel.waypoint.calls import Called, ServiceCalls, Then
from ztunnel.waypoint.chain import Chain
from ztunnel.waypoint.client import Places
from ztunnel.waypoint.exchange.exchange import Exchange
from ztunnel.waypoint.rules.limit_service import FAILED, METHOD, parse, refusal, render

_BEFORE_LIMITS: Final = frozenset(("cors_response", "fault_filter_abort"))

MOST_OF_ONE: Final = 256
"""Questions of one caller that wait for their answer; who has more leaves others room to ask."""

Told = Callable[[str, str], None]
"""Is told of a policy's key, and of a word about it."""

Asks = list[tuple[CompiledPolicy, list[Entries]]]
"""Whose services are to be asked, and about what."""


def nobody(policy: str, word: str) -> None:
    """Who is told where nobody counts."""


class Limiter:
    """Those of all tunnels of a waypoint.

    Attributes:
        limits: the policies, compiled, with what they have counted.
        calls: by which services are asked.
        asking: how many questions of each caller wait for their answer.
        refused: is told of each request that was refused: by which policy, and who has counted it (`local`,
            `global`).
        asked: is told of each question, of which policy, and what came of it: `ok`, `over_limit`, `error`
            (Envoy's statistics).
    """

    def __init__(self, calls: ServiceCalls, clock: Callable[[], float]) -> None:
        """`clock` gives monotonic seconds."""
        self.calls = calls
        self.clock = clock
        self.limits = RateLimits()
        self.asking = Places(MOST_OF_ONE)
        self.refused: Told = nobody
        self.asked: Told = nobody


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
        limits = self._limiter.limits
        if not limits.follow(world.rate_limits) or here is None:
            exchange.proceed(plan)
            return
        names = rate_limits_of(world, here, self._chain.service)
        by_route = source is not None and limits.names_routes(world.rate_limits)
        policies = limits.of(world.rate_limits, names, str(source) if by_route else "")
        if not policies or (plan.reply is not None and plan.reply.details in _BEFORE_LIMITS):
            exchange.proceed(plan)
            return
        asked = Attributes(exchange.admitted, self._connection.source.ip, self._hops)
        outcome = decide(policies, asked, self._connection, self._scope(source), self._limiter.clock())
        exchange.added = outcome.fields
        if outcome.reply is not None and outcome.by is not None:
            self._limiter.refused(outcome.by.policy.key, "local")
            _answer(exchange, plan, outcome.reply, outcome.by.name)
            return
        asks = [(one, found) for one in policies if (found := one.descriptors(asked, self._connection))]
        self._ask(exchange, plan, asks)

    def _ask(self, exchange: Exchange, plan: Plan, asks: Asks) -> None:
        """Ask one service after the other; go on when all let the request pass."""
        if not asks:
            exchange.proceed(plan)
            return
        policy, descriptors = asks[0]
        limit = policy.policy.service
        assert limit is not None
        owner = self._connection.identity, self._connection.source.ip
        if not self._limiter.asking.take(owner):
            self._answered(
                exchange, plan, asks, None, f"{MOST_OF_ONE} questions of its caller's wait already"
            )
            return
        called = Called(limit.host, limit.port, policy.policy.namespace, METHOD, limit.timeout_seconds)
        then = partial(self._told, owner, partial(self._answered, exchange, plan, asks))
        self._limiter.calls.call(called, render(limit, descriptors), then)

    def _told(self, owner: Hashable, then: Then, message: bytes | None, why: str) -> None:
        self._limiter.asking.give(owner)
        then(message, why)

    def _answered(self, exchange: Exchange, plan: Plan, asks: Asks, message: bytes | None, why: str) -> None:
        if exchange.over:
            return
        policy = asks[0][0].policy
        answer = parse(message) if message is not None else None
        if answer is None:
            self._limiter.asked(policy.key, "error")
            if policy.service is not None and policy.service.deny:
                _answer(exchange, plan, FAILED, f"{policy.key}: {why or 'an answer that is none'}")
                return
        else:
            self._limiter.asked(policy.key, "over_limit" if answer.limited else "ok")
            exchange.added += answer.response + (answer.told if policy.tells else ())
            if answer.limited:
                self._limiter.refused(policy.key, "global")
                _answer(exchange, plan, refusal(policy, answer), policy.key)
                return
            _add(exchange, plan, answer.request)
        self._ask(exchange, plan, asks[1:])

    def _scope(self, source: RouteSource | None) -> str:
        """What has buckets of its own: the route, or else what is called."""
        called = self._chain.service.key if self._chain.service is not None else self._chain.destination
        return f"{called} {source}" if source is not None else str(called)


def _answer(exchange: Exchange, plan: Plan, reply: Reply, why: str) -> None:
    exchange.plan = plan
    exchange.failure = f"rate limit {why}"
    exchange.reply(reply)


def _add(exchange: Exchange, plan: Plan, fields: Fields) -> None:
    """To what the server gets. Plans are shared, and so is the request that policies were asked about."""
    if not fields:
        return
    request = (plan.request or exchange.request).copy()
    request.fields += fields
    if plan.request is not None:
        plan.request = request
    else:
        exchange.request = request
