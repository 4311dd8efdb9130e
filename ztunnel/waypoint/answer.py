"""Answers who asks a waypoint for a tunnel: finds out what is called, and has the bytes in it seen to.

A waypoint is sent what it serves, not all addresses of the mesh: who calls, and what else is called, it asks
for when it meets them. Until it knows, which takes a second at most, the tunnel waits. Nothing is decided by
it: what is not attached is refused, known or not, and policies ask who has proved what; it is what telemetry
says of the source.
"""

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
from ztunnel.model.workload import Workload
from ztunnel.state.world import World
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
_SOON_SECONDS = 0.005
"""Between looks for an answer about who calls, which takes some milliseconds."""
_MOST_WAITING = 1000
"""Tunnels that wait to hear that what they are for is attached, or who calls; more are refused at once, or go
on without."""


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
        self._parts.asked_at = self._parts.engine.now
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
            if here is not None and self._may_wait(until) and self._may_come(world, here, asked):
                self._wait(_LOOK_SECONDS, tunnel, asked, hinted, until)
                return
            self._refuse(tunnel, _NOT_FOUND, str(error))
            return
        workload = world.by_ip(self._peer.ip)
        if workload is not None:
            parts.on_demand.meet(self._peer.ip, now)
        elif parts.on_demand.awaits(self._peer.ip, now) and self._may_wait(until):
            self._wait(_SOON_SECONDS, tunnel, asked, hinted, until)
            return
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

    def _may_come(self, world: World, here: Workload, asked: Endpoint) -> bool:
        """Whether what is called may be attached in a moment."""
        if may_come(world, here, asked):
            return True
        parts = self._parts
        return parts.on_demand.awaits(asked.ip, parts.engine.now)

    def _may_wait(self, until: float) -> bool:
        return self._parts.engine.now < until and self._parts.waiting < _MOST_WAITING

    def _wait(
        self, seconds: float, tunnel: TerminatedTunnel, asked: Endpoint, hinted: _Hint, until: float
    ) -> None:
        self._parts.waiting += 1
        self._parts.engine.after(seconds, partial(self._again, tunnel, asked, hinted, until))

    def _again(self, tunnel: TerminatedTunnel, asked: Endpoint, hinted: _Hint, until: float) -> None:
        self._parts.waiting -= 1
        if not tunnel.closed:
            self._answer(tunnel, asked, hinted, until)

    def _refuse(self, tunnel: TerminatedTunnel, status: int, reason: str) -> None:
        tunnel.refuse(render_response(status))
        self._parts.report.deny_early(Direction.INBOUND, self._peer, self._local, reason)
