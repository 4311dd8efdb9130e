"""Answers the CONNECT requests of a session: judged, then joined with the application, or refused."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Final, NamedTuple

from ztunnel.authz.verdict import Trial
from ztunnel.errors import ConnectionFailed, Denied, Drained, Exhausted, PeerError
from ztunnel.flow.flow import Counts
from ztunnel.flow.share import Place
from ztunnel.hbone.answer import IncomingTunnel
from ztunnel.hbone.hold import TunnelStream
from ztunnel.hbone.request import (
    BAD_REQUEST,
    Outline,
    calling_port,
    context_of,
    outline_of,
    parse_request,
    render_baggage,
    render_response,
)
from ztunnel.http2.fields import Fields
from ztunnel.inbound.accept import Inbound, LocalPod
from ztunnel.inbound.connect import AppDial, Approach, unreachable
from ztunnel.inbound.decision import Arrival, InboundAdmitted, judge_tunnel
from ztunnel.model.address import Endpoint, PeerAddress
from ztunnel.model.connection import Connection, Security
from ztunnel.model.identity import SpiffeId
from ztunnel.model.port import ports_instead
from ztunnel.model.workload import Workload
from ztunnel.state.world import World
from ztunnel.telemetry.journey import Journey
from ztunnel.telemetry.labels import Reporter
from ztunnel.telemetry.report import Account
from ztunnel.telemetry.tunnel_span import is_sampled

_OK: Final = 200
_UNAUTHORIZED: Final = 401
_UNAVAILABLE: Final = 503
_REMEMBERED: Final = 64
"""Outlines that a session's answers are kept for: a pod has few ports, and a peer may invent many."""


class TunnelConnection:
    """One tunnel into a pod, from its admission to its end. Live: a change of policy can end it.

    dialling ── the application answers: 200 ──> joined ── either side ends, or abort ──> over
       │ it does not: 503; abort: 401 or 503; the peer gives up ──> over
    """

    __slots__ = (
        "_account",
        "_counts",
        "_dial",
        "_inbound",
        "_place",
        "_tunnel",
        "_welcome",
        "connection",
        "workload_uid",
    )

    def __init__(self, inbound: Inbound, uid: str, tunnel: IncomingTunnel, connection: Connection) -> None:
        self._inbound = inbound
        self._tunnel = tunnel
        self._counts = Counts()
        self._account: Account | None = None
        self._dial: AppDial | None = None
        self._place: Place | None = None
        self._welcome: Callable[[], bytes] = bytes
        self.connection = connection
        self.workload_uid = uid

    def start(self, approach: Approach, port: int, journey: Journey, welcome: Callable[[], bytes]) -> None:
        """Connect the application from `port` of the client's; when it stands, `welcome()` is sent, the
        200."""
        inbound = self._inbound
        self._welcome = welcome
        self._account = inbound.report.open(journey, self.connection.source, self._counts)
        inbound.live.register(self)
        source = self.connection.identity or self.connection.source.ip
        self._place = inbound.room.enter(self.workload_uid, source, self._give_way)
        if self._place is None:
            self._refuse(_UNAVAILABLE, Exhausted())
            return
        self._tunnel.cancelled = self._cancelled
        self._dial = AppDial(inbound.engine, inbound.spare_ports, approach)
        self._dial.start([port, *ports_instead(port)], self._reached)

    def trace(self, traceparent: str) -> None:
        """There is to be a span of it, of that trace."""
        if self._account is not None:
            self._account.traceparent = traceparent

    def _give_way(self) -> None:
        self.abort(Exhausted())

    def abort(self, error: ConnectionFailed) -> None:
        """End it now: the peer gets its answer or a reset, the application a reset. Nothing if it has ended
        already."""
        if self._dial is None:
            self._tunnel.abort(error)
            return
        self._dial.cancel()
        self._dial = None
        self._refuse(_status_of(error), error)

    def _reached(self, app: socket.socket | None, error: OSError | None) -> None:
        self._dial = None
        if app is None:
            self._refuse(_UNAVAILABLE, unreachable(self.connection.destination, error))
            return
        self._tunnel.accept(self._welcome(), app, self._counts, self._ended)

    def _refuse(self, status: int, error: ConnectionFailed) -> None:
        self._tunnel.refuse(render_response(status))
        self._ended(error)

    def _cancelled(self) -> None:
        """The peer gave up before we answered, or its session broke."""
        if self._dial is not None:
            self._dial.cancel()
            self._dial = None
            self._ended(None)

    def _ended(self, error: ConnectionFailed | None) -> None:
        self._inbound.live.unregister(self)
        place, self._place = self._place, None
        if place is not None:
            self._inbound.room.leave(place)
        if self._account is not None:
            self._inbound.report.close(self._account, error)


def _status_of(error: ConnectionFailed) -> int:
    """ztunnel's: 401 where a policy refuses, 503 for everything else (src/proxy/inbound.rs)."""
    return _UNAUTHORIZED if isinstance(error, Denied) else _UNAVAILABLE


class _Admission(NamedTuple):
    """What becomes of every request of an outline: it was admitted."""

    connection: Connection
    journey: Journey
    approach: Approach
    tried: tuple[Trial, ...]


class TunnelAcceptor:
    """Judges the requests of one session: who the peer is was proved once, for all of them.

    What becomes of a request depends on what it asks for and on the world, because both ends and the identity
    are the session's: so an answer counts for every request of the same outline, until the world or the pod's
    network is another one.
    """

    __slots__ = (
        "_admitted",
        "_described",
        "_identity",
        "_inbound",
        "_local",
        "_network",
        "_peer",
        "_pod",
        "_welcoming",
        "_world",
    )

    def __init__(
        self, inbound: Inbound, pod: LocalPod, ends: tuple[Endpoint, PeerAddress], identity: SpiffeId
    ) -> None:
        """`ends` are the pod's own address with port 15008, and the peer's."""
        self._inbound = inbound
        self._pod = pod
        self._local, self._peer = ends
        self._identity = identity
        self._world: World | None = None
        self._network = pod.network
        self._admitted: dict[Outline, _Admission] = {}
        self._described: Workload | None = None
        self._welcoming = render_response(_OK)

    def requested(self, tunnel: TunnelStream) -> None:
        """The peer asks for a tunnel."""
        assert isinstance(tunnel, IncomingTunnel)
        world, network = self._inbound.hold.world, self._pod.network
        if world is not self._world or network is not self._network:
            self._world, self._network = world, network
            self._admitted.clear()
        # Up to 64 KiB of the peer's, which would stay for as long as the tunnel.
        untrusted, tunnel.headers = tunnel.headers, ()
        outline = outline_of(untrusted)
        known = self._admitted.get(outline) if outline else None
        if known is None:
            known = self._judge(world, tunnel, untrusted)
            if known is None:
                return
            if outline and len(self._admitted) < _REMEMBERED:
                self._admitted[outline] = known
        connection = TunnelConnection(self._inbound, self._pod.uid, tunnel, known.connection)
        if known.tried:
            self._inbound.report.try_out(known.tried, known.journey, known.connection.source)
        connection.start(known.approach, calling_port(untrusted), known.journey, self._welcome)
        if self._inbound.report.spans is not None and is_sampled(context := context_of(untrusted)):
            connection.trace(context)

    def _judge(self, world: World, tunnel: IncomingTunnel, untrusted: Fields) -> _Admission | None:
        """What was admitted; None where the tunnel has been refused."""
        inbound = self._inbound
        workload = world.workload(self._pod.uid)
        authority = ""
        try:
            request = parse_request(untrusted)
            authority = request.authority
            if workload is None:
                raise Drained("the workload has left the mesh")
            arrival = Arrival(authority, self._local, self._peer, self._identity, request.host)
            found = judge_tunnel(world, workload, arrival)
        except PeerError as error:
            tunnel.refuse(render_response(error.reply or BAD_REQUEST))
            inbound.report.deny_early(Reporter.DESTINATION.direction, self._peer, self._local, str(error))
        except ConnectionFailed as error:
            tunnel.refuse(render_response(_status_of(error)))
            inbound.report.refuse(self._journey(workload, None, authority), self._peer, error)
        else:
            connection = found.admitted.connection
            approach = Approach(self._network, connection.source.ip, connection.destination)
            journey = self._journey(workload, found, str(found.app))
            return _Admission(connection, journey, approach, found.admitted.tried)
        return None

    def _welcome(self) -> bytes:
        """The 200 that says who we are; rendered again when the workload has changed."""
        workload = self._inbound.hold.world.workload(self._pod.uid)
        if workload is not self._described:
            self._described = workload
            self._welcoming = render_response(_OK, render_baggage(workload) if workload else "")
        return self._welcoming

    def _journey(self, local: Workload | None, found: InboundAdmitted | None, target: str) -> Journey:
        if found is not None:
            source = found.source
        else:
            source = self._inbound.hold.world.by_ip(self._peer.ip)
            if source is not None and source.identity != self._identity:
                source = None
        return Journey(
            Reporter.DESTINATION,
            self._local,
            source,
            local,
            found.service if found else None,
            self._identity,
            local.identity if local else None,
            Security.MUTUAL_TLS,
            target,
        )
