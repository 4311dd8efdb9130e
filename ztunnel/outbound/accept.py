"""Takes up each connection that the kernel redirected to a pod's 15001: where to, which way, and off it
goes."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from functools import partial
from random import Random

from ztunnel.errors import ConnectionFailed, NoDestination
from ztunnel.flow.engine import Engine
from ztunnel.flow.splice import close_with_reset
from ztunnel.hbone.pool import PoolKey
from ztunnel.hbone.request import ConnectRequest, new_traceparent, render_baggage, render_request
from ztunnel.model.address import Endpoint, PeerAddress
from ztunnel.model.connection import Direction, Security
from ztunnel.model.identity import SpiffeId
from ztunnel.model.workload import SameNode, Workload
from ztunnel.outbound.connect import Call, Calls, PlainCall, TunnelCall
from ztunnel.outbound.decision import Context, Outcome, ToDirect, ToPlain, ToTunnel, decide
from ztunnel.outbound.dial import Tunnels
from ztunnel.outbound.oversee import DirectFlows
from ztunnel.redirect.attach import PodNetwork, Redirection
from ztunnel.redirect.layout import Recalled
from ztunnel.state.hold import Hold
from ztunnel.state.lookup import OUTBOUND_PORT, service_at
from ztunnel.state.world import World
from ztunnel.telemetry.labels import Reporter
from ztunnel.telemetry.report import Journey, Report

_NOT_REDIRECTED = "no original destination: the connection was made to the proxy's own port"
_LEFT = "failed to fetch information about local workload: it has left the mesh"


@dataclass(frozen=True, slots=True)
class Mesh:
    """What decisions depend on besides the world, and how long a plain connection may take to stand."""

    node: str
    same_node: SameNode
    direct: bool
    connect_seconds: float
    rng: Random


@dataclass(frozen=True, slots=True)
class Outbound:
    """What the way out of pods works with; one for all pods of the node. `calls` are those that live."""

    engine: Engine
    hold: Hold
    report: Report
    redirection: Redirection
    tunnels: Tunnels
    direct: DirectFlows
    mesh: Mesh
    calls: Calls = field(default_factory=Calls)


_Known = tuple[PeerAddress, Workload, Recalled]
"""What is known of a call: who made it, from where, and what it asked for."""


class OutboundAcceptor:
    """What becomes of each connection that the kernel redirected in one pod."""

    def __init__(self, outbound: Outbound, uid: str, network: PodNetwork) -> None:
        self._outbound = outbound
        self._uid = uid
        self._network = network
        # What costs to make anew for each connection, and changes with the workload only.
        self._source: Workload | None = None
        self._identity = SpiffeId("", "", "")
        self._baggage = ""

    def accepted(self, opener: socket.socket, peer: PeerAddress) -> None:
        """Take over one accepted socket."""
        outbound = self._outbound
        try:
            recalled = outbound.redirection.original_destination(self._network.cookie, peer)
        except OSError:
            recalled = None
        source = self._present()
        if recalled is None or source is None:
            close_with_reset(opener)
            called = Endpoint(peer.ip, OUTBOUND_PORT) if recalled is None else recalled.destination
            reason = _NOT_REDIRECTED if recalled is None else _LEFT
            outbound.report.deny_early(Direction.OUTBOUND, peer, called, reason)
            return
        call = Call(opener, outbound.report, outbound.calls)
        try:
            self._decide(call, (peer, source, recalled), outbound.mesh.direct)
        except BaseException:
            call.fail(ConnectionFailed("internal error"))
            raise

    def _present(self) -> Workload | None:
        """The pod as the world knows it now, None if it has left."""
        source = self._outbound.hold.world.workload(self._uid)
        if source is not self._source and source is not None:
            self._source, self._identity, self._baggage = source, source.identity, render_baggage(source)
        return source

    def _decide(self, call: Call, known: _Known, direct: bool) -> None:
        """Decide by the world as it is now, and begin."""
        outbound = self._outbound
        peer, source, recalled = known
        world, mesh = outbound.hold.world, outbound.mesh
        context = Context(mesh.node, mesh.rng, mesh.same_node, direct, recalled.picked)
        try:
            outcome = decide(world, source, recalled.destination, context)
        except ConnectionFailed as error:
            service = service_at(world, recalled.destination.ip, source.namespace)
            call.journey = Journey(Reporter.SOURCE, peer, recalled.destination, source, None, service)
            call.fail(error)
            return
        if isinstance(outcome, ToTunnel):
            self._tunnel(call, known, outcome)
        elif isinstance(outcome, ToPlain):
            call.open(self._journey(peer, source, outcome))
            plain = PlainCall(outbound.engine, call, outcome.endpoint)
            plain.start(self._network, mesh.connect_seconds)
        else:
            self._direct(call, known, outcome)

    def _decide_again(self, call: Call, known: _Known, direct: bool, picked: Endpoint | None) -> None:
        """What was decided before cannot be done, or not any more. `picked` is the endpoint that it had come
        to."""
        peer, _, recalled = known
        source = self._present()
        if source is None:
            call.fail(NoDestination(_LEFT))
            return
        again = Recalled(recalled.destination, picked or recalled.picked)
        self._decide(call, (peer, source, again), direct)

    def _direct(self, call: Call, known: _Known, route: ToDirect) -> None:
        """Directly, where both ends have certificates to show all the same; otherwise as if it were not
        possible."""
        outbound = self._outbound
        peer, source, recalled = known
        call.journey = self._journey(peer, source, route)
        instead = partial(self._decide_again, call, known, False, route.endpoint)
        proved = outbound.tunnels.proves(self._identity, route.destination.identity)
        if not proved or not outbound.direct.begin(call, source, route, recalled.destination, instead):
            instead()

    def _tunnel(self, call: Call, known: _Known, route: ToTunnel) -> None:
        peer, source, _ = known
        outbound = self._outbound
        call.open(self._journey(peer, source, route))
        key = PoolKey(self._identity, frozenset(route.identities), peer.ip, route.endpoint)
        request = ConnectRequest(
            route.authority,
            self._baggage,
            peer,
            route.service.hostname if route.service else "",
            new_traceparent(outbound.mesh.rng),
        )
        stands = partial(self._stands, outbound.hold.world, call, known, route)
        way = key, self._network, render_request(request)
        outbound.tunnels.open(TunnelCall(outbound.tunnels, call, way, stands))

    def _stands(self, world: World, call: Call, known: _Known, route: ToTunnel) -> bool:
        """Whether what was decided in that world still holds. Where the world is another one, it is decided
        again."""
        if self._outbound.hold.world is world:
            return True
        self._decide_again(call, known, self._outbound.mesh.direct, None if route.waypoint else route.target)
        return False

    def _journey(self, peer: PeerAddress, source: Workload, outcome: Outcome) -> Journey:
        """What to report of a call that goes that way."""
        destination = outcome.destination
        if isinstance(outcome, ToPlain):
            return Journey(Reporter.SOURCE, peer, outcome.endpoint, source, destination, outcome.service)
        tunnelled = isinstance(outcome, ToTunnel)
        return Journey(
            Reporter.SOURCE,
            peer,
            outcome.endpoint,
            source,
            destination,
            outcome.service,
            self._identity,
            destination.identity if destination else None,
            Security.MUTUAL_TLS if tunnelled else Security.UNKNOWN,
            outcome.authority if isinstance(outcome, ToTunnel) else "",
        )
