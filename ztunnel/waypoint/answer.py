"""Answers who asks a waypoint for a tunnel: finds out what is called, and has the bytes in it seen to."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from ztunnel.errors import ConnectionFailed, Denied, NoDestination, Overflow, PeerError
from ztunnel.flow.engine import Engine
from ztunnel.flow.flow import Counts
from ztunnel.flow.transport import Receiver
from ztunnel.hbone.hold import TunnelStream
from ztunnel.hbone.request import BAD_REQUEST, parse_request, render_baggage, render_response
from ztunnel.hbone.terminate import TerminatedTunnel
from ztunnel.http2.standing import Standing
from ztunnel.l7.jwt.authentication import Authentication
from ztunnel.l7.policy.authorization import Authorizations
from ztunnel.l7.policy.rule import Decision
from ztunnel.model.address import Endpoint, PeerAddress, parse_endpoint
from ztunnel.model.connection import Connection, Direction
from ztunnel.model.identity import SpiffeId
from ztunnel.model.workload import Workload
from ztunnel.state.world import World
from ztunnel.telemetry.labels import Reporter
from ztunnel.telemetry.metrics import Live
from ztunnel.telemetry.report import Report
from ztunnel.waypoint.attachment import WAIT_SECONDS, Attachments, may_come
from ztunnel.waypoint.authenticate import Authenticator, Source
from ztunnel.waypoint.chain import Chain, Treatment, jwt_policies_of
from ztunnel.waypoint.connect import Call, Servers
from ztunnel.waypoint.detection import DETECT_SECONDS, Detector, Spoken
from ztunnel.waypoint.downstream1 import Http1Server
from ztunnel.waypoint.downstream2 import Http2Server
from ztunnel.waypoint.exchange import Exchange
from ztunnel.waypoint.find import Here
from ztunnel.waypoint.guard import NO_POLICY, Guard, denied, refusal
from ztunnel.waypoint.limiting import Limiter, Limiting
from ztunnel.waypoint.report import Caller, Reports, Telemetry
from ztunnel.waypoint.routing import Routers, Unserved, routing_of, version_for
from ztunnel.waypoint.shadow import Shadows
from ztunnel.waypoint.sides import Copy
from ztunnel.waypoint.spot import Cancellable, Stream, Target, Terms
from ztunnel.waypoint.tcp import Passage
from ztunnel.waypoint.unary import UnaryCalls
from ztunnel.waypoint.way import Common, HttpWay

Note = Callable[[Decision, str, str], None]
"""Of what policies say beside a decision, with who called, and what."""

_OK, _DENIED, _NOT_FOUND, _UNAVAILABLE = 200, 401, 404, 503
_LOOK_SECONDS = 0.05
_MOST_WAITING = 1000
"""Tunnels that wait to hear that what they are for is attached; more are refused at once."""


def _wall() -> float:
    """Seconds since the epoch."""
    return time.time_ns() / 1e9


@dataclass(slots=True)
class Parts:
    """What all sessions of a waypoint work with.

    Attributes:
        undetected: tunnels of which nobody could tell within a second what is spoken in them.
        waiting: tunnels that wait for what they are for to be attached.
        tells_identity: whether servers are told who calls, in `x-forwarded-client-cert`.
        authorizations: what policies say, compiled.
        guarded: the tunnels with something under way, to be judged again when policies change.
        hops: proxies before this one whose X-Forwarded-For is believed.
        note: is told what policies under trial, and AUDIT's, make of what was admitted.
        authenticator: finds out who requests speak for.
        limiter: the rate limits of all tunnels.
        routers, shadows: the routes of services, compiled, and copies of requests that are under way.
    """

    engine: Engine
    here: Here
    servers: Servers
    common: Common
    telemetry: Telemetry
    report: Report
    undetected: int = 0
    waiting: int = 0
    attachments: Attachments = field(default_factory=Attachments)
    tells_identity: bool = False
    authorizations: Authorizations = field(default_factory=Authorizations)
    guarded: set[_Tunnel] = field(default_factory=set)
    hops: int = 0
    note: Note | None = None
    authenticator: Authenticator = field(init=False)
    limiter: Limiter = field(init=False)
    routers: Routers = field(default_factory=Routers)
    shadows: Shadows = field(init=False)

    def __post_init__(self) -> None:
        self.authenticator = Authenticator(self.engine, _wall)
        self.limiter = Limiter(UnaryCalls(self.engine, self.servers, self.current), self.engine.clock)
        self.shadows = Shadows(self.engine)

    def current(self) -> tuple[World, Workload | None]:
        """The world of the moment, and the waypoint in it."""
        return self.here.hold.world, self.here.workload

    def rejudge(self) -> None:
        """Policies have changed: end what is under way and may not go on."""
        for tunnel in tuple(self.guarded):
            tunnel.rejudge()

    def expire(self) -> None:
        """Time has passed: end what goes on by a token that has expired."""
        for tunnel in tuple(self.guarded):
            tunnel.expire()


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
        self._answer(tunnel, asked, hinted, self._parts.engine.now + WAIT_SECONDS)

    def _answer(self, tunnel: TerminatedTunnel, asked: Endpoint, hinted: int, until: float) -> None:
        """Accept or refuse it; or look again until `until`, where it is for something that may be attached in
        a moment. `hinted` is the caller's port, as the peer has it."""
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
        caller = Caller(Endpoint(self._peer.ip, hinted), workload, self._identity)
        reports = Reports(parts.telemetry, caller, chain, lambda: parts.engine.now)
        one = _Tunnel(parts, tunnel, (chain, caller), reports, self._standing)
        if chain.treatment is Treatment.TCP:
            one.pass_on()
        else:
            tunnel.accept(render_response(_OK, render_baggage(here)), one.detect())

    def _again(self, tunnel: TerminatedTunnel, asked: Endpoint, hinted: int, until: float) -> None:
        self._parts.waiting -= 1
        if not tunnel.closed:
            self._answer(tunnel, asked, hinted, until)

    def _refuse(self, tunnel: TerminatedTunnel, status: int, reason: str) -> None:
        tunnel.refuse(render_response(status))
        self._parts.report.deny_early(Direction.INBOUND, self._peer, self._local, reason)


class _Tunnel:
    """One tunnel, from its request on."""

    def __init__(
        self,
        parts: Parts,
        tunnel: TerminatedTunnel,
        asked: tuple[Chain, Caller],
        reports: Reports,
        standing: Standing,
    ) -> None:
        self._parts = parts
        self._tunnel = tunnel
        self._chain, self._caller = asked
        calls = Connection(self._caller.source, self._chain.destination, self._caller.identity)
        self._guard = Guard(parts.authorizations, parts.current, self._chain, calls, parts.hops)
        self._limiting = Limiting(parts.limiter, parts.current, self._chain, calls, parts.hops)
        self._exchanges: set[Exchange] = set()
        self._source = Source(self._caller.identity, self._caller.source.ip)
        self._last_rules = self._rules()
        self._passage: Passage | None = None
        self._reports = reports
        self._routing = routing_of(parts.routers, self._chain, calls, parts.common.rng)
        self._standing = standing
        self._version = 1
        self._began = parts.engine.now
        self._counts = Counts()
        self._live: Live | None = None
        self._calling: Cancellable | None = None
        self._detector: Detector | None = None
        self._host = ""
        self._call: Call | None = None
        self._is_over = False

    # HTTP.

    def detect(self) -> Receiver:
        """The receiver that finds out what is spoken."""
        declared = self._chain.treatment is Treatment.HTTP
        detector = self._detector = Detector(self._tunnel, declared, self._found)
        if not declared:
            self._parts.engine.after(DETECT_SECONDS, self._silent)
        return detector

    def _silent(self) -> None:
        if self._detector is not None and self._detector.silent():
            self._parts.undetected += 1

    def _found(self, what: Spoken) -> Receiver | None:
        parts = self._parts
        if what is Spoken.OTHER:
            self._connect()
            return None
        self._version = 2 if what is Spoken.HTTP2 else 1
        way = HttpWay(parts.common, self, self, self._forwarded())
        if what is Spoken.HTTP2:
            return Http2Server(way, self._tunnel, self._standing)
        return Http1Server(way, self._tunnel, parts.engine.next_round)

    def _forwarded(self) -> bytes:
        """What servers are told of who calls (Envoy's x-forwarded-client-cert; Istio's synthesis of it)."""
        here = self._parts.here.workload
        if not self._parts.tells_identity or here is None:
            return b""
        return f"By={here.identity};URI={self._reports.identity}".encode()

    def begin(self, exchange: Exchange) -> None:
        """Say what becomes of it, if its token is good and policies let it through."""
        self._parts.authenticator.admit(exchange, self._rules, self._source, self._authorize)

    def _authorize(self, exchange: Exchange) -> None:
        """It is known who the request speaks for."""
        decision = self._guard.judge(exchange.admitted)
        if not decision.allowed:
            self._denies(decision.policy)
            exchange.failure = decision.reason
            exchange.reply(refusal(decision))
            return
        self._note(decision)
        self._exchanges.add(exchange)
        self._parts.guarded.add(self)
        self._routing.begin(self._parts.here.hold.world, exchange, self._limiting.admit)

    def connect(self, exchange: Exchange) -> None:
        """Find a server for it."""
        try:
            version = version_for(self._parts.here.hold.world, self._chain, exchange, self._version)
        except Unserved as error:
            exchange.unreachable(error.reply, str(error))
            return
        terms = Terms(self._caller.source.ip, version, self._version)
        self._parts.servers.connect(exchange, self._chain.destination, terms)

    def copies(self, exchange: Exchange, end: bool) -> list[Copy]:
        """Send the copies that its plan has."""
        return self._parts.shadows.begin(exchange, end, self.connect)

    def ended(self, exchange: Exchange) -> None:
        """It is over."""
        self._exchanges.discard(exchange)
        self._over()
        self._reports.ended(exchange, self._version)

    # Policies.

    def rejudge(self) -> None:
        """End what may not go on by the policies of now."""
        rules = self._rules()
        others, self._last_rules = rules is not self._last_rules, rules
        if others:
            for exchange in tuple(self._exchanges):
                again = self._parts.authenticator.judge_again
                again(exchange, self._rules, self._source, self._judge_again)
        if not self._guard.changed():
            return
        if not others:
            for exchange in tuple(self._exchanges):
                self._judge_again(exchange)
        if self._calling is not None or self._passage is not None:
            decision = self._guard.judge_connection()
            if not decision.allowed:
                self._denies(decision.policy)
                self._end(denied(decision, "policy change"))

    def _judge_again(self, exchange: Exchange) -> None:
        decision = self._guard.judge(exchange.admitted)
        if not decision.allowed:
            self._denies(decision.policy)
            exchange.failure = decision.reason or "a change of policy"
            exchange.revoke(refusal(decision))

    def expire(self) -> None:
        """End what goes on by a token that has expired."""
        for exchange in tuple(self._exchanges):
            self._parts.authenticator.expire(exchange)

    def _rules(self) -> Authentication:
        """Those about tokens, of the moment."""
        world, here = self._parts.current()
        names = jwt_policies_of(world, here, self._chain) if here is not None else ()
        return self._parts.authenticator.rules.of(world.jwt_policies, names)

    def _end(self, error: ConnectionFailed) -> None:
        """End a connection that is passed on, or is to be."""
        calling, passage = self._calling, self._passage
        if calling is not None:
            calling.cancel()
            self._failed(error)
        elif passage is not None:
            passage.abort(error)

    def _denies(self, policy: str) -> None:
        self._parts.telemetry.connections.denied(Reporter.WAYPOINT, policy or NO_POLICY)

    def _note(self, decision: Decision) -> None:
        note = self._parts.note
        if note is not None and (decision.tried or decision.audited):
            chain = self._chain
            called = str(chain.service.key if chain.service is not None else chain.destination)
            note(decision, str(self._caller.identity), called)

    def _over(self) -> None:
        """Nothing of the tunnel is to be judged again, unless something goes on."""
        if not self._exchanges and self._calling is None and self._passage is None:
            self._parts.guarded.discard(self)

    def pass_on(self) -> None:
        """Connect a server first: the client is answered when that stands."""
        self._connect()

    def _connect(self) -> None:
        parts = self._parts
        decision = self._guard.judge_connection()
        if not decision.allowed:
            self._denies(decision.policy)
            self._failed(denied(decision))
            return
        self._note(decision)
        try:
            call = self._call = parts.servers.pick(self._chain, self._caller.source.ip)
        except (NoDestination, Overflow) as error:
            self._failed(error)
            return
        self._host = call.host
        calling = call.start(partial(self._stands, call.target), self._failed)
        if self._passage is None and not self._is_over:
            self._calling = calling
            parts.guarded.add(self)

    def _stands(self, target: Target, server: Stream) -> None:
        self._calling = None
        client, here = self._tunnel, self._parts.here.workload
        self._counts = client.counts
        self._live = self._reports.opened(target.destination, self._counts)
        passage = self._passage = Passage(client, server, self._ended)
        if self._call is not None:
            self._call.watch(passage)
        self._parts.guarded.add(self)
        if self._detector is None:
            client.accept(render_response(_OK, render_baggage(here) if here else ""), passage.client)
        else:
            self._detector.attach(passage.client)
        server.attach(passage.server)

    def _failed(self, error: ConnectionFailed) -> None:
        self._calling = None
        if self._detector is None:
            status = _DENIED if isinstance(error, Denied) else _UNAVAILABLE
            self._tunnel.refuse(render_response(status))
        else:
            self._tunnel.abort(error)
        self._ended(error)

    def _ended(self, error: ConnectionFailed | None) -> None:
        self._is_over, self._calling, self._passage = True, None, None
        if self._call is not None:
            self._call.end()
        self._over()
        self._reports.closed(self._live, self._counts, self._began, self._host, error)
