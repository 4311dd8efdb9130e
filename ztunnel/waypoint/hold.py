"""Holds what all sessions of a waypoint work with."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from ztunnel.flow.engine import Engine
from ztunnel.l7.policy.authorization import Authorizations
from ztunnel.l7.policy.rule import Decision
from ztunnel.model.workload import Workload
from ztunnel.state.world import World
from ztunnel.telemetry.report import Report
from ztunnel.waypoint.attachment import Attachments
from ztunnel.waypoint.calls import ServiceCalls
from ztunnel.waypoint.client import Client
from ztunnel.waypoint.exchange.shadow import Shadows
from ztunnel.waypoint.reporting.report import Telemetry
from ztunnel.waypoint.rules.authenticate import Authenticator
from ztunnel.waypoint.rules.checking import Checks
from ztunnel.waypoint.rules.limiting import Limiter
from ztunnel.waypoint.rules.routing import Routers
from ztunnel.waypoint.upstream.connect import Servers
from ztunnel.waypoint.upstream.find import Here
from ztunnel.waypoint.way import Common
from ztunnel.xds.on_demand import OnDemand

Note = Callable[[Decision, str, str], None]
"""Of what policies say beside a decision, with who called, and what."""


def _wall() -> float:
    """Seconds since the epoch."""
    return time.time_ns() / 1e9


class Guarded(Protocol):
    """A tunnel through which something goes on that policies let through."""

    def rejudge(self) -> None:
        """Policies have changed: end what may not go on."""

    def expire(self) -> None:
        """Time has passed: end what goes on by a token that has expired."""


@dataclass(slots=True)
class Parts:
    """What all sessions of a waypoint work with.

    Attributes:
        undetected: tunnels of which nobody could tell within a second what is spoken in them.
        waiting: tunnels that wait for what they are for to be attached.
        asked_at: when one was asked for last (monotonic seconds).
        tells_identity: whether servers are told who calls, in `x-forwarded-client-cert`.
        authorizations: what policies say, compiled.
        guarded: the tunnels with something under way, to be judged again when policies change.
        hops: proxies before this one whose X-Forwarded-For is believed.
        note: is told what policies under trial, and AUDIT's, make of what was admitted.
        authenticator: finds out who requests speak for.
        limiter: the rate limits of all tunnels.
        client: of the waypoint's own requests.
        routers, shadows: the routes of services, compiled, and copies of requests that are under way.
        checks: questions to external authorizers.
        on_demand: who is at addresses that are not known yet.
    """

    engine: Engine
    here: Here
    servers: Servers
    common: Common
    telemetry: Telemetry
    report: Report
    undetected: int = 0
    waiting: int = 0
    asked_at: float = -math.inf
    attachments: Attachments = field(default_factory=Attachments)
    tells_identity: bool = False
    authorizations: Authorizations = field(default_factory=Authorizations)
    guarded: set[Guarded] = field(default_factory=set)
    hops: int = 0
    note: Note | None = None
    on_demand: OnDemand = field(default_factory=partial(OnDemand, ""))
    authenticator: Authenticator = field(init=False)
    limiter: Limiter = field(init=False)
    routers: Routers = field(default_factory=Routers)
    client: Client = field(init=False)
    shadows: Shadows = field(init=False)
    checks: Checks = field(init=False)

    def __post_init__(self) -> None:
        self.authenticator = Authenticator(self.engine, _wall)
        self.client = Client(self.engine, self.servers.connect, self.common.rng)
        self.limiter = Limiter(ServiceCalls(self.client, self.current), self.engine.clock)
        self.shadows = Shadows(self.engine)
        self.checks = Checks(self.client, time.time_ns)

    def current(self) -> tuple[World, Workload | None]:
        """The world of the moment, and the waypoint in it."""
        return self.here.hold.world, self.here.workload

    def quiet_seconds(self) -> float:
        """For how long nobody has asked for a tunnel."""
        return self.engine.clock() - self.asked_at

    def rejudge(self) -> None:
        """Policies have changed: end what is under way and may not go on."""
        for tunnel in tuple(self.guarded):
            tunnel.rejudge()

    def expire(self) -> None:
        """Time has passed: end what goes on by a token that has expired, and forget who calls no more."""
        self.on_demand.expire(self.engine.now)
        for tunnel in tuple(self.guarded):
            tunnel.expire()
