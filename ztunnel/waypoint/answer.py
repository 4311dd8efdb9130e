"""Answers who asks a waypoint for a tunnel: finds out what is called, and has the bytes in it seen to."""

from __future__ import annotations

from functools import partial

from ztunnel.errors import NoDestination, PeerError
from ztunnel.hbone.hold import TunnelStream
from ztunnel.hbone.request import BAD_REQUEST, parse_request, render_baggage, render_response
from ztunnel.hbone.terminate import TerminatedTunnel
from ztunnel.http2.standing import Standing
from ztunnel.model.address import Endpoint, PeerAddress, parse_endpoint
from ztunnel.model.connection import Direction
from ztunnel.model.identity import SpiffeId
from ztunnel.telemetry.tunnel_span import is_sampled
from ztunnel.waypoint.attachment import WAIT_SECONDS, may_come
from ztunnel.waypoint.chain import Treatment
from ztunnel.waypoint.hold import Parts
from ztunnel.waypoint.reporting.report import Caller, Reports
from ztunnel.waypoint.serve import Tunnel

_OK, _NOT_FOUND = 200, 404
_Hint = tuple[int, str]
"""The caller's port, as the peer has it, and the context of a trace."""

_LOOK_SECONDS = 0.05
_MOST_WAITING = 1000
"""Tunnels that wait to hear that what they are for is attached; more are refused at once."""


class WaypointAcceptor:
    """Answers the requests of one session."""

    def __init__(self, parts: Parts, ends: tuple[Endpoint, PeerAddress], identity: SpiffeId) -> None:
        """`ends` are the waypoint's own address with port 15008, and the peer's, who proved `identity`."""
        self._parts = parts
        self._local, self._peer = ends
        self._identity = identity
        self._standing = Standing(parts.engine.now)

    def requested(self, tunnel: TunnelStream) -> None:
        """The peer asks for a tunnel."""
        assert isinstance(tunnel, TerminatedTunnel)
        untrusted, tunnel.headers = tunnel.headers, ()
        try:
            request = parse_request(untrusted)
            asked = parse_endpoint(request.authority)
        except PeerError as error:
            self._refuse(tunnel, BAD_REQUEST, str(error))
            return
        hinted = request.source.port if request.source else 0
        context = request.traceparent if is_sampled(request.traceparent) else ""
        self._answer(tunnel, asked, (hinted, context), self._parts.engine.now + WAIT_SECONDS)

    def _answer(self, tunnel: TerminatedTunnel, asked: Endpoint, hinted: _Hint, until: float) -> None:
        """Accept or refuse it; or look again until `until`, where it is for something that may be attached in
        a moment."""
        parts = self._parts
        here, world, now = parts.here.workload, parts.here.hold.world, parts.engine.now
        try:
            if here is None:
                raise NoDestination("this waypoint is not in the mesh (yet)")
            chain = parts.attachments.chain(world, here, asked, now)
        except NoDestination as error:
            waits = now < until and parts.waiting < _MOST_WAITING
            if waits and here is not None and may_come(world, here, asked):
                parts.waiting += 1
                parts.engine.after(_LOOK_SECONDS, partial(self._again, tunnel, asked, hinted, until))
                return
            self._refuse(tunnel, _NOT_FOUND, str(error))
            return
        workload = world.by_ip(self._peer.ip)
        if workload is not None and workload.identity != self._identity:
            workload = None
        port, context = hinted
        caller = Caller(Endpoint(self._peer.ip, port), workload, self._identity, context)
        reports = Reports(parts.telemetry, caller, chain, lambda: parts.engine.now)
        one = Tunnel(parts, tunnel, (chain, caller), reports, self._standing)
        if chain.treatment is Treatment.TCP:
            one.forward()
        else:
            tunnel.accept(render_response(_OK, render_baggage(here)), one.detect())

    def _again(self, tunnel: TerminatedTunnel, asked: Endpoint, hinted: _Hint, until: float) -> None:
        self._parts.waiting -= 1
        if not tunnel.closed:
            self._answer(tunnel, asked, hinted, until)

    def _refuse(self, tunnel: TerminatedTunnel, status: int, reason: str) -> None:
        tunnel.refuse(render_response(status))
        self._parts.report.deny_early(Direction.INBOUND, self._peer, self._local, reason)
