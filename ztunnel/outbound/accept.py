"""Takes up each connection that the kernel redirected to a pod's 15001: where to, which way, and off it goes."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from functools import partial
from random import Random

from ztunnel.errors import ConnectionFailed
from ztunnel.flow.engine import Engine
from ztunnel.flow.flow import Counts
from ztunnel.flow.splice import close_with_reset
from ztunnel.hbone.pool import PoolKey
from ztunnel.hbone.request import ConnectRequest, new_traceparent, render_baggage, render_request
from ztunnel.model.address import Endpoint, PeerAddress
from ztunnel.model.connection import Direction, Security
from ztunnel.model.workload import SameNode, Workload
from ztunnel.outbound.connect import Call, PlainCall, TunnelCall
from ztunnel.outbound.decision import Context, Outcome, ToDirect, ToPlain, ToTunnel, decide
from ztunnel.outbound.dial import Tunnels
from ztunnel.outbound.oversee import DirectFlows
from ztunnel.redirect.attach import PodNetwork, Redirection
from ztunnel.redirect.layout import Recalled
from ztunnel.state.hold import Hold
from ztunnel.state.lookup import OUTBOUND_PORT, service_at
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
    """What the way out of pods works with; one for all pods of the node."""

    engine: Engine
    hold: Hold
    report: Report
    redirection: Redirection
    tunnels: Tunnels
    direct: DirectFlows
    mesh: Mesh


class OutboundAcceptor:
    """What becomes of each connection that the kernel redirected in one pod."""

    def __init__(self, outbound: Outbound, uid: str, network: PodNetwork) -> None:
        self._outbound = outbound
        self._uid = uid
        self._network = network

    def accepted(self, opener: socket.socket, peer: PeerAddress) -> None:
        """Take over one accepted socket."""
        outbound = self._outbound
        recalled = outbound.redirection.original_destination(self._network.cookie, peer)
        if recalled is None:
            close_with_reset(opener)
            local = Endpoint(peer.ip, OUTBOUND_PORT)
            outbound.report.deny_early(Direction.OUTBOUND, peer, local, _NOT_REDIRECTED)
            return
        source = outbound.hold.world.workload(self._uid)
        if source is None:
            close_with_reset(opener)
            outbound.report.deny_early(Direction.OUTBOUND, peer, recalled.destination, _LEFT)
            return
        try:
            outcome = self._decide(source, recalled, outbound.mesh.direct)
        except ConnectionFailed as error:
            close_with_reset(opener)
            service = service_at(outbound.hold.world, recalled.destination.ip, source.namespace)
            journey = Journey(Reporter.SOURCE, peer, recalled.destination, source, None, service)
            outbound.report.refuse(journey, error)
        else:
            self._begin(opener, (peer, source, recalled), outcome)

    def _decide(self, source: Workload, recalled: Recalled, direct: bool) -> Outcome:
        mesh = self._outbound.mesh
        context = Context(mesh.node, mesh.rng, mesh.same_node, direct, recalled.picked)
        return decide(self._outbound.hold.world, source, recalled.destination, context)

    def _begin(
        self, opener: socket.socket, known: tuple[PeerAddress, Workload, Recalled], outcome: Outcome
    ) -> None:
        outbound = self._outbound
        peer, source, recalled = known
        counts = Counts()
        account = outbound.report.open(_journey(peer, source, outcome), counts)
        call = Call(opener, account, counts, outbound.report)
        if isinstance(outcome, ToDirect):
            instead = partial(self._tunnel_instead, known)
            if not outbound.direct.begin(call, source, outcome, recalled.destination, instead):
                self._tunnel_instead(known, call)
        elif isinstance(outcome, ToPlain):
            plain = PlainCall(outbound.engine, call, outcome.endpoint)
            plain.start(self._network, outbound.mesh.connect_seconds)
        else:
            self._tunnel(call, known, outcome)

    def _tunnel_instead(self, known: tuple[PeerAddress, Workload, Recalled], call: Call) -> None:
        """What could not go directly goes by HBONE, or as the world says by now."""
        _, source, recalled = known
        opener = call.hand_over()
        try:
            outcome = self._decide(source, recalled, direct=False)
        except ConnectionFailed as error:
            call.opener = opener
            call.fail(error)
            return
        self._outbound.report.withdraw(call.account)
        self._begin(opener, known, outcome)

    def _tunnel(self, call: Call, known: tuple[PeerAddress, Workload, Recalled], route: ToTunnel) -> None:
        peer, source, _ = known
        outbound = self._outbound
        key = PoolKey(source.identity, frozenset(route.identities), peer.ip, route.endpoint)
        request = ConnectRequest(
            route.authority,
            render_baggage(source),
            peer,
            route.service.hostname if route.service else "",
            new_traceparent(outbound.mesh.rng),
        )
        outbound.tunnels.open(TunnelCall(outbound.tunnels, call, key, self._network, render_request(request)))


def _journey(peer: PeerAddress, source: Workload, outcome: Outcome) -> Journey:
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
        source.identity,
        destination.identity if destination else None,
        Security.MUTUAL_TLS if tunnelled else Security.UNKNOWN,
        outcome.authority if isinstance(outcome, ToTunnel) else "",
    )
