"""Serves what comes through one tunnel: finds out what is spoken in it, and takes each request, or the bytes
as they are, to a server, as far as policies let it."""

from __future__ import annotations

from functools import partial

from ztunnel.flow.transport import Receiver
from ztunnel.hbone.terminate import TerminatedTunnel
from ztunnel.http2.standing import Standing
from ztunnel.l7.jwt.authentication import NO_RULES, Authentication
from ztunnel.l7.policy.rule import Decision
from ztunnel.model.connection import Connection
from ztunnel.telemetry.labels import Reporter
from ztunnel.waypoint.chain import Chain, Treatment, jwt_policies_of
from ztunnel.waypoint.detection import DETECT_SECONDS, Detector, Spoken
from ztunnel.waypoint.downstream1 import Http1Server
from ztunnel.waypoint.downstream2 import Http2Server
from ztunnel.waypoint.exchange.exchange import Exchange
from ztunnel.waypoint.exchange.sides import Copy
from ztunnel.waypoint.forward import Forwarding
from ztunnel.waypoint.hold import Parts
from ztunnel.waypoint.reporting.report import Caller, Reports
from ztunnel.waypoint.rules.admit import Admission, Ends
from ztunnel.waypoint.rules.aim import Terms
from ztunnel.waypoint.rules.authenticate import Source
from ztunnel.waypoint.rules.guard import NO_POLICY, Guard, denied
from ztunnel.waypoint.rules.limiting import Limiting
from ztunnel.waypoint.rules.routing import Unserved, routing_of, version_for
from ztunnel.waypoint.way import HttpWay


class Tunnel:
    """One tunnel, from the moment on at which it is known what it is for."""

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
        self._guard = Guard(parts.authorizations, parts.here.uid, self._chain, calls, parts.hops)
        self._limiting = Limiting(parts.limiter, parts.current, self._chain, calls, parts.hops)
        self._ruled: object = None
        self._rules_then = NO_RULES
        self._ends = Ends(calls, parts.here.workload)
        source = Source(self._caller.identity, self._caller.source.ip)
        asking = parts.authenticator, parts.checks
        self._admission = Admission(
            asking, (self._guard, parts.here.hold, self._rules), self._ends, source, self
        )
        self._reports = reports
        self._routing = routing_of(parts.routers, self._chain, calls, parts.common.rng)
        self._standing = standing
        self._version = 1
        self._terms = Terms(self._chain.destination, self._caller.source.ip)
        self._began = parts.engine.now
        self._detector: Detector | None = None
        self._forwarding: Forwarding | None = None

    # What is spoken.

    def detect(self) -> Receiver:
        """The receiver that finds out."""
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
            self.forward()
            return None
        self._version = self._terms.version = self._ends.version = 2 if what is Spoken.HTTP2 else 1
        way = HttpWay(parts.common, self, self, self._forwarded(), self._reports.scope)
        way.context = self._caller.context.encode()
        if what is Spoken.HTTP2:
            return Http2Server(way, self._tunnel, self._standing)
        return Http1Server(way, self._tunnel, parts.engine.next_round)

    def _forwarded(self) -> bytes:
        """What servers are told of who calls (Envoy's x-forwarded-client-cert; Istio's synthesis of it)."""
        here = self._parts.here.workload
        if not self._parts.tells_identity or here is None:
            return b""
        return f"By={here.identity};URI={self._reports.identity}".encode()

    # Requests.

    def begin(self, exchange: Exchange) -> None:
        """Say what becomes of it, if its token is good and policies let it through."""
        self._admission.begin(exchange)

    def admitted(self, exchange: Exchange, decision: Decision) -> None:
        """It may go on."""
        self._note(decision)
        exchange.trials = decision.tried
        self._parts.guarded.add(self)
        self._routing.begin(self._parts.here.hold.world, exchange, self._limiting.admit)

    def connect(self, exchange: Exchange) -> None:
        """Find a server for it."""
        try:
            version = version_for(self._parts.here.hold.world, self._chain, exchange, self._version)
        except Unserved as error:
            exchange.unreachable(error.reply, str(error))
            return
        self._parts.servers.connect(exchange, self._terms, version)

    def copies(self, exchange: Exchange, end: bool) -> list[Copy]:
        """Send the copies that its plan has."""
        return self._parts.shadows.begin(exchange, end, self.connect)

    def ended(self, exchange: Exchange) -> None:
        """It is over; nobody waits for what is said of that."""
        self._admission.ended(exchange)
        self._over()
        self._parts.engine.afterwards(partial(self._reports.ended, exchange, self._version))

    # Policies.

    def rejudge(self) -> None:
        """End what may not go on by the policies of now."""
        world, forwarding = self._parts.here.hold.world, self._forwarding
        changed = self._guard.changed(world)
        self._admission.rejudge(changed)
        if changed and forwarding is not None and forwarding.goes_on:
            decision = self._guard.judge_connection(world, permitted=True)
            if not decision.allowed:
                self.denies(decision.policy)
                forwarding.end(denied(decision, "policy change"))

    def expire(self) -> None:
        """End what goes on by a token that has expired, or for a client that has gone."""
        self._admission.expire()
        if self._forwarding is not None:
            self._forwarding.look()

    def _rules(self) -> Authentication:
        """Those about tokens, of the moment: worked out once for each world."""
        here = self._parts.here
        world = here.hold.world
        if world.mark is not self._ruled:
            workload = here.workload
            names = jwt_policies_of(world, workload, self._chain) if workload is not None else ()
            self._rules_then = self._parts.authenticator.rules.of(world.jwt_policies, names)
            self._ruled = world.mark
        return self._rules_then

    def denies(self, policy: str) -> None:
        """Something was refused, by that policy."""
        self._parts.telemetry.connections.denied(Reporter.WAYPOINT, policy or NO_POLICY)

    def _note(self, decision: Decision) -> None:
        note = self._parts.note
        if note is not None and (decision.tried or decision.audited):
            chain = self._chain
            called = str(chain.service.key if chain.service is not None else chain.destination)
            note(decision, str(self._caller.identity), called)

    def _over(self) -> None:
        """Nothing of the tunnel is to be judged again, unless something goes on."""
        forwarding = self._forwarding
        if not self._admission.exchanges and (forwarding is None or not forwarding.goes_on):
            self._parts.guarded.discard(self)

    # What is no HTTP.

    def forward(self) -> None:
        """Connect a server first: the client is answered when that stands."""
        parts = self._parts
        forwarding = Forwarding(self._tunnel, self._detector, self._reports, self._began, self._over)
        self._forwarding = forwarding
        decision = self._guard.judge_connection(parts.here.hold.world)
        if decision.provider:
            parts.guarded.add(self)
            self._admission.ask_about_connection(decision, forwarding.wait, self._judged)
        else:
            self._judged(decision)

    def _judged(self, decision: Decision) -> None:
        parts, forwarding = self._parts, self._forwarding
        assert forwarding is not None
        if not decision.allowed:
            self.denies(decision.policy)
            forwarding.refuse(denied(decision))
            return
        self._note(decision)
        forwarding.start(parts.servers, parts.here, self._chain, self._caller.source.ip)
        if forwarding.goes_on:
            parts.guarded.add(self)
