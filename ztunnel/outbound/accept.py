"""Takes up each connection of a pod that the kernel captured: where to, which way, and off it goes."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from errno import ECONNREFUSED
from functools import partial
from ipaddress import IPv4Address
from random import Random
from typing import Final, Protocol

from ztunnel.errors import ConnectionFailed, Exhausted, NoDestination
from ztunnel.flow.engine import Engine
from ztunnel.flow.splice import close_with_reset
from ztunnel.hbone.request import TraceContexts
from ztunnel.kernel.sockets import Keepalive, kept_syn
from ztunnel.model.address import Endpoint, OriginalDestination, PeerAddress
from ztunnel.model.connection import Direction
from ztunnel.model.service import Service
from ztunnel.model.workload import SameNode, Workload
from ztunnel.outbound.connect import Call, Calls, PlainCall, TunnelCall
from ztunnel.outbound.decision import Context, Outcome, ToDirect, decide, endpoint_of
from ztunnel.outbound.defer import Connects, Deferred, Taker
from ztunnel.outbound.find import Tunnels
from ztunnel.outbound.oversee import DirectFlows
from ztunnel.outbound.route import Origin, Route, Routes, TunnelRoute
from ztunnel.redirect.attach import Redirection
from ztunnel.redirect.enroll import PodNetwork
from ztunnel.redirect.exempt import Exemption
from ztunnel.redirect.held import HeldCall
from ztunnel.redirect.layout import Recalled, push_caller
from ztunnel.state.hold import Hold
from ztunnel.state.lookup import service_at
from ztunnel.state.world import World
from ztunnel.telemetry.journey import Journey
from ztunnel.telemetry.labels import Reporter
from ztunnel.telemetry.report import Report

_NOT_REDIRECTED: Final = "no original destination: its entry was lost"
_WAITING: Final = 4096
"""Connects of one pod that wait at once: as many as may wait for one session."""

_FULL: Final = "too many connects of this pod wait for an answer"
_LEFT: Final = "failed to fetch information about local workload: it has left the mesh"


@dataclass(frozen=True, slots=True)
class Mesh:
    """What decisions depend on besides the world, how long a plain connection may take to stand, and how it
    is kept alive."""

    node: str
    same_node: SameNode
    direct: bool
    connect_seconds: float
    rng: Random
    keepalive: Keepalive | None = None


class Memory(Protocol):
    """Which endpoint of a VIP a client keeps (`redirect.enforce.Affinities`, which says more of each)."""

    def kept(self, cookie: int, vip: Endpoint, seconds: int, now_ns: int) -> Endpoint | None: ...
    def keep(self, cookie: int, vip: Endpoint, endpoint: Endpoint, now_ns: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Outbound:
    """What the way out of pods works with; one for all pods of the node. `calls` are those that live.

    Without programs of ours, `redirection` and `direct` are None: who accepts knows where a call goes
    (`OutboundAcceptor.redirected`), and no flow is direct.
    """

    engine: Engine
    hold: Hold
    report: Report
    redirection: Redirection | None
    tunnels: Tunnels
    direct: DirectFlows | None
    mesh: Mesh
    calls: Calls = field(default_factory=Calls)
    exemption: Exemption | None = None
    takers: dict[int, Taker] = field(default_factory=dict)
    """Who takes up the calls of a pod that wait, by the cookie of its namespace."""

    memory: Memory | None = None
    """Of the endpoints that clients keep, where the kernel's programs have none."""

    @property
    def programs(self) -> Redirection:
        """Our programs, of calls that they captured."""
        assert self.redirection is not None
        return self.redirection

    @property
    def affinities(self) -> Memory:
        """Which endpoint of a service each pod keeps."""
        return self.memory or self.programs.affinities


class OutboundAcceptor:
    """What becomes of each connection that the kernel redirected in one pod."""

    def __init__(self, outbound: Outbound, uid: str, network: PodNetwork) -> None:
        self._outbound = outbound
        self._uid = uid
        self._network = network
        self._routes_v4, self._routes_v6 = Routes(), Routes()
        self._contexts = TraceContexts(outbound.mesh.rng)
        self._connects = Connects(outbound.engine, network, _WAITING)
        outbound.takers[network.cookie] = self

    def take_from(self, accept_now: Callable[[int], None]) -> None:
        """Whose connections have been let in is to be taken up by this, as `Acceptor.accept_now` does."""
        self._connects.accept = accept_now

    def let_in(self) -> bool:
        """The listener is about to be closed: connects that wait would not find us any more. Whether there
        are any, who come to it now."""
        return self._connects.let_in()

    @property
    def expects(self) -> bool:
        """Whether calls that waited are on their way to the listener."""
        return self._connects.expects

    def hand_over(self) -> list[HeldCall]:
        """The connects that wait, for a successor."""
        return self._connects.hand_over()

    def close(self) -> None:
        """The pod is served no more: nobody's connect() is answered."""
        if self._outbound.takers.get(self._network.cookie) is self:
            del self._outbound.takers[self._network.cookie]
        self._connects.close()

    def held(self, held: HeldCall) -> None:
        """An application's connect() waits for us, or does no longer."""
        outbound, connects = self._outbound, self._connects
        known = connects.take(held.caller)
        if known is not None:
            known.gave_up()
        if held.gave_up:
            return
        recalled = outbound.programs.held.destination(held)
        deferred = connects.add(held)
        if connects.full:
            deferred.fail(ECONNREFUSED)
            outbound.report.deny_early(Direction.OUTBOUND, held.peer, recalled.destination, _FULL)
        else:
            self._take(deferred, held.peer, recalled)

    def accepted(self, opener: socket.socket, peer: PeerAddress) -> None:
        """Take over one accepted socket."""
        outbound = self._outbound
        port = 0
        try:
            if self._connects and self._joined(opener):
                return
            port = opener.getsockname()[1]
            if self._connects and self._joined_at(opener, peer, port):
                return
            recalled = outbound.programs.original_destination(self._network.cookie, peer, port)
        except OSError:
            recalled = None
        if recalled is None:
            close_with_reset(opener)
            outbound.report.deny_early(Direction.OUTBOUND, peer, Endpoint(peer.ip, port), _NOT_REDIRECTED)
        else:
            self._take(opener, peer, recalled)

    def redirected(self, opener: socket.socket, peer: PeerAddress, recalled: Recalled) -> None:
        """Take over one accepted socket that others than our programs have sent to us, which knows where it
        was to go. `recalled` is the same object whenever it is the same destination."""
        self._take(opener, peer, recalled)

    def _joined(self, opener: socket.socket) -> bool:
        """Whether it is the connection of a call that waited for it, by its SYN."""
        deferred = self._connects.take_from_syn(kept_syn(opener))
        if deferred is None:
            return False
        deferred.accepted(opener)
        return True

    def _joined_at(self, opener: socket.socket, peer: PeerAddress, port: int) -> bool:
        """The same where its listener, a predecessor's once, has kept no SYN, or a SYN is not plain."""
        deferred = self._connects.take(push_caller(self._network.cookie, peer, port))
        if deferred is None:
            return False
        deferred.accepted(opener)
        return True

    def _take(self, opener: socket.socket | Deferred, peer: PeerAddress, recalled: Recalled) -> None:
        """Take up one call of the application."""
        outbound = self._outbound
        source = outbound.hold.world.workload(self._uid)
        trouble = self._trouble()
        if source is None or trouble:
            if isinstance(opener, Deferred):
                opener.fail(ECONNREFUSED)
            else:
                close_with_reset(opener)
            reason = trouble or _LEFT
            outbound.report.deny_early(Direction.OUTBOUND, peer, recalled.destination, reason)
            return
        call = Call(opener, peer, outbound.report, outbound.calls)
        call.place = outbound.calls.room.enter(self._uid, recalled.host, call.give_way)
        call.share = outbound.calls.held.share(self._network.cookie, recalled.destination.ip)
        try:
            if call.place is None:
                call.journey = Journey(Reporter.SOURCE, recalled.destination, source)
                call.fail(Exhausted())
                return
            routes = self._routes_from(peer)
            origin = routes.enter(outbound.hold.world, source, peer.ip)
            route = routes.settled(recalled)
            if route is not None:
                self._tunnel(call, route)
            else:
                self._decide(call, origin, recalled, outbound.mesh.direct, recalled.picked)
        except BaseException:
            call.fail(ConnectionFailed("internal error"))
            raise

    def _routes_from(self, peer: PeerAddress) -> Routes:
        """Of calls from an address of that family."""
        return self._routes_v4 if isinstance(peer.ip, IPv4Address) else self._routes_v6

    def _trouble(self) -> str:
        """Why this call must not be made: it may be one of our own."""
        exemption = self._outbound.exemption
        if exemption is None:
            return ""
        now = self._outbound.engine.now
        if now >= exemption.look_at:
            exemption.look(now)
        return exemption.trouble

    def _decide(
        self, call: Call, origin: Origin, recalled: Recalled, direct: bool, picked: Endpoint | None
    ) -> None:
        """Decide by the world as it is now, and begin. `picked` is the endpoint to be preferred."""
        outbound, source = self._outbound, origin.workload
        world, mesh = outbound.hold.world, outbound.mesh
        picked = self._kept(world, source, recalled.destination) or picked
        context = Context(mesh.node, mesh.rng, mesh.same_node, direct, picked)
        try:
            outcome = decide(world, source, recalled.destination, context)
        except ConnectionFailed as error:
            service = service_at(world, recalled.destination, source.namespace)
            call.journey = Journey(Reporter.SOURCE, recalled.destination, source, None, service)
            call.fail(error)
            return
        chosen = endpoint_of(outcome) if outcome.service is not None else None
        self._keep(recalled, outcome.service, chosen)
        call.elsewhere = partial(self._elsewhere, call, recalled, chosen) if chosen is not None else None
        self._begin(call, origin, recalled, direct, outcome)

    def _elsewhere(self, call: Call, recalled: Recalled, tried: Endpoint, error: ConnectionFailed) -> bool:
        """An endpoint of a service cannot be reached: where there is another one, it is tried, once. False
        where there is none, and the call has failed."""
        outbound, mesh = self._outbound, self._outbound.mesh
        world = outbound.hold.world
        source = world.workload(self._uid)
        if source is None:
            return False
        context = Context(mesh.node, mesh.rng, mesh.same_node, mesh.direct, avoid=tried)
        try:
            outcome = decide(world, source, recalled.destination, context)
        except ConnectionFailed:
            return False
        if endpoint_of(outcome) in (None, tried):
            return False
        self._keep(recalled, outcome.service, endpoint_of(outcome))
        call.retries += 1
        outbound.tunnels.count_retry()
        origin = self._routes_from(call.peer).enter(world, source, call.peer.ip)
        self._begin(call, origin, recalled, mesh.direct, outcome)
        return True

    def _kept(self, world: World, source: Workload, asked: OriginalDestination) -> Endpoint | None:
        """The endpoint that this pod keeps of a service with session affinity."""
        service = service_at(world, asked, source.namespace)
        if service is None or not service.affinity_seconds:
            return None
        affinities = self._outbound.affinities
        try:
            return affinities.kept(self._network.cookie, asked, service.affinity_seconds, time.monotonic_ns())
        except OSError:
            return None

    def _keep(self, recalled: Recalled, service: Service | None, chosen: Endpoint | None) -> None:
        if service is not None and service.affinity_seconds and chosen is not None:
            affinities = self._outbound.affinities
            with suppress(OSError):  # no room: it gets another one the next time
                affinities.keep(self._network.cookie, recalled.destination, chosen, time.monotonic_ns())

    def _begin(self, call: Call, origin: Origin, recalled: Recalled, direct: bool, outcome: Outcome) -> None:
        """Go the way that was decided."""
        outbound, mesh = self._outbound, self._outbound.mesh
        routes = self._routes_from(call.peer)
        route = routes.route(recalled, outcome)
        if isinstance(route, TunnelRoute):
            if direct == mesh.direct:
                routes.settle(route)
            self._tunnel(call, route)
        elif isinstance(outcome, ToDirect):
            self._direct(call, origin, route, outcome)
        else:
            call.open(route.journey)
            plain = PlainCall(outbound.engine, call, outcome.endpoint, mesh.keepalive)
            plain.start(self._network, mesh.connect_seconds)

    def _decide_again(self, call: Call, recalled: Recalled, direct: bool, picked: Endpoint | None) -> None:
        """What was decided before cannot be done, or not any more. `picked` is the endpoint that it had come
        to."""
        world = self._outbound.hold.world
        source = world.workload(self._uid)
        if source is None:
            call.fail(NoDestination(_LEFT))
            return
        origin = self._routes_from(call.peer).enter(world, source, call.peer.ip)
        self._decide(call, origin, recalled, direct, picked or recalled.picked)

    def _direct(self, call: Call, origin: Origin, route: Route, target: ToDirect) -> None:
        """Directly, where both ends have certificates to show all the same; otherwise as if it were not
        possible."""
        outbound, recalled = self._outbound, route.recalled
        call.journey = route.journey
        instead = partial(self._decide_again, call, recalled, False, target.endpoint)
        proved = outbound.tunnels.proves(origin.identity, target.destination.identity)
        direct, asked = outbound.direct, recalled.destination
        if not proved or direct is None or not direct.begin(call, origin.workload, target, asked, instead):
            instead()

    def _tunnel(self, call: Call, route: TunnelRoute) -> None:
        outbound = self._outbound
        call.open(route.journey)
        context, spans = "", outbound.report.spans
        if spans is not None and call.account is not None:
            context = call.account.traceparent = call.account.traceparent or spans.begin()
        block = route.head.render(call.peer.port, context or self._contexts.new())
        stands = partial(self._stands, outbound.hold.world, call, route)
        outbound.tunnels.open(TunnelCall(outbound.tunnels, call, (route.key, self._network, block), stands))

    def _stands(self, world: World, call: Call, route: TunnelRoute) -> bool:
        """Whether what was decided in that world still holds. Where the world is another one, it is decided
        again."""
        outbound = self._outbound
        if outbound.hold.world is world:
            return True
        picked = None if route.target.waypoint else route.target.target
        self._decide_again(call, route.recalled, outbound.mesh.direct, picked)
        return False
