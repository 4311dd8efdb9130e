"""Answers the CONNECT requests of one session: judged, then joined with the application, or refused with a status."""

from __future__ import annotations

import socket

from ztunnel.errors import ConnectionFailed, Denied, Drained, PeerError, Unreachable
from ztunnel.flow.flow import Counts
from ztunnel.hbone.answer import IncomingTunnel
from ztunnel.hbone.request import parse_request, render_baggage, render_response
from ztunnel.inbound.accept import Inbound
from ztunnel.inbound.connect import AppDial
from ztunnel.inbound.decision import Arrival, InboundAdmitted, judge_tunnel
from ztunnel.model.address import Endpoint, PeerAddress
from ztunnel.model.connection import Connection, Security
from ztunnel.model.identity import SpiffeId
from ztunnel.redirect.attach import PodNetwork
from ztunnel.telemetry.labels import Reporter
from ztunnel.telemetry.report import Account, Journey

_UNAVAILABLE = 503
_UNAUTHORIZED = 401


class TunnelConnection:
    """One tunnel into a pod, from its admission to its end. Live: a change of policy can end it."""

    __slots__ = (
        "_account",
        "_counts",
        "_dial",
        "_inbound",
        "_joined",
        "_tunnel",
        "connection",
        "workload_uid",
    )

    def __init__(self, inbound: Inbound, uid: str, tunnel: IncomingTunnel, connection: Connection) -> None:
        self._inbound = inbound
        self._tunnel = tunnel
        self._counts = Counts()
        self._account: Account | None = None
        self._dial: AppDial | None = None
        self._joined = False
        self.connection = connection
        self.workload_uid = uid

    def start(self, network: PodNetwork, journey: Journey) -> None:
        """Connect the application; 200 is sent when it stands."""
        self._account = self._inbound.report.open(journey, self._counts)
        self._inbound.live.register(self)
        self._tunnel.cancelled = self._cancelled
        self._dial = AppDial(
            self._inbound.engine,
            self._inbound.admissions,
            network,
            self.connection.source,
            self.connection.destination,
        )
        self._dial.start(self._reached)

    def abort(self, error: ConnectionFailed) -> None:
        """End it now: the peer's stream and the application's connection are reset."""
        if self._joined:
            self._tunnel.abort(error)
        elif self._dial is not None:
            self._dial.cancel()
            self._dial = None
            self._tunnel.refuse(render_response(_UNAUTHORIZED if isinstance(error, Denied) else _UNAVAILABLE))
            self._ended(error)

    def _reached(self, app: socket.socket | None, error: OSError | None) -> None:
        self._dial = None
        if app is None:
            self._tunnel.refuse(render_response(_UNAVAILABLE))
            self._ended(Unreachable(f"connection failed: {error}"))
            return
        self._joined = True
        workload = self._inbound.hold.world.workload(self.workload_uid)
        fields = render_response(200, render_baggage(workload) if workload else "")
        self._tunnel.accept(fields, app, self._counts, self._ended)

    def _cancelled(self) -> None:
        """The peer gave up before we answered."""
        if self._dial is not None:
            self._dial.cancel()
            self._dial = None
            self._ended(None)

    def _ended(self, error: ConnectionFailed | None) -> None:
        self._inbound.live.unregister(self)
        if self._account is not None:
            self._inbound.report.close(self._account, error)


class TunnelAcceptor:
    """Judges the requests of one session: who the peer is was proved once, for all of them."""

    __slots__ = ("_identity", "_inbound", "_local", "_network", "_peer", "_uid")

    def __init__(
        self,
        inbound: Inbound,
        pod: tuple[str, PodNetwork],
        ends: tuple[Endpoint, PeerAddress],
        identity: SpiffeId,
    ) -> None:
        """`ends` are the pod's own address with port 15008, and the peer's."""
        self._inbound = inbound
        self._uid, self._network = pod
        self._local, self._peer = ends
        self._identity = identity

    def requested(self, tunnel: IncomingTunnel) -> None:
        """The peer asks for a tunnel."""
        inbound = self._inbound
        world = inbound.hold.world
        workload = world.workload(self._uid)
        authority = ""
        try:
            request = parse_request(tunnel.headers)
            authority = request.authority
            if workload is None:
                raise Drained("the workload has left the mesh")
            arrival = Arrival(request.authority, self._local, self._peer, self._identity, request.host)
            found = judge_tunnel(world, workload, arrival)
        except PeerError as error:
            tunnel.refuse(render_response(error.reply or 400))
            inbound.report.deny_early(Reporter.DESTINATION.direction, self._peer, self._local, str(error))
        except ConnectionFailed as error:
            tunnel.refuse(render_response(_UNAUTHORIZED if isinstance(error, Denied) else _UNAVAILABLE))
            inbound.report.refuse(self._journey(None, authority), error)
        else:
            connection = found.admitted.connection
            journey = self._journey(found, str(found.app))
            TunnelConnection(inbound, self._uid, tunnel, connection).start(self._network, journey)

    def _journey(self, found: InboundAdmitted | None, target: str) -> Journey:
        world = self._inbound.hold.world
        source = found.source if found else world.by_ip(self._peer.ip)
        if source is not None and source.identity != self._identity:
            source = None
        local = world.workload(self._uid)
        return Journey(
            Reporter.DESTINATION,
            self._peer,
            self._local,
            source,
            local,
            found.service if found else None,
            self._identity,
            local.identity if local else None,
            Security.MUTUAL_TLS,
            target,
        )
