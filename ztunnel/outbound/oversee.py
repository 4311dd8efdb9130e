"""Oversees direct flows: the kernel's verdicts about pairs of pods of this node, and the flows that go by them.

The first call of a pair is judged here, made by us over the pods' own interfaces, and taught to the kernel once it
stands; the kernel makes the next ones alone and reports them. What is taught is void when either pod's generation has
moved on, and none of it counts unless the lease is renewed (`renew`).

    call -> judged -> dialled ── stands ──> taught, carried by us     ── unanswered for a second ──> HBONE instead
    kernel's record OPENED  -> an account at both ends, registered with the live connections
    kernel's record ENDED   -> its bytes, its account closed          (a refused or unanswered SYN voids the verdict)
    a change of the world   -> generations of what it touches move on; live flows are judged again, refused ones die
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass

from ztunnel.authz.direct import connection_between, judge_direct
from ztunnel.authz.enforce import LiveConnections
from ztunnel.errors import ConnectionFailed, Denied
from ztunnel.flow.connect import Connecting, connect
from ztunnel.flow.engine import Engine
from ztunnel.flow.flow import Counts
from ztunnel.flow.splice import Splice, splice
from ztunnel.kernel.sockets import dial_socket
from ztunnel.model.address import Endpoint
from ztunnel.model.connection import Connection
from ztunnel.model.service import ServiceName
from ztunnel.model.workload import Workload
from ztunnel.outbound.connect import Call, unreachable
from ztunnel.outbound.decision import ToDirect
from ztunnel.redirect.attach import PodNetwork, Redirection
from ztunnel.redirect.layout import Deny, Direct
from ztunnel.state.balancer import shares
from ztunnel.state.delta import Change
from ztunnel.state.hold import Hold
from ztunnel.state.world import World
from ztunnel.telemetry.labels import Reporter
from ztunnel.telemetry.report import Account, Journey, Report

UNANSWERED_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Pair:
    """Both ends of a direct call: pods of this node, where on the destination it goes, and what was asked for."""

    source: Workload
    source_network: PodNetwork
    route: ToDirect
    destination_network: PodNetwork
    asked: Endpoint

    def journey(self, reporter: Reporter, peer: Endpoint) -> Journey:
        """What to report; the kernel proves both identities, and there is no TLS."""
        return Journey(
            reporter,
            peer,
            self.route.endpoint,
            self.source,
            self.route.destination,
            self.route.service,
            self.source.identity,
            self.route.destination.identity,
        )


class DirectCall:
    """The first call of a pair, carried by us. Live at both ends: what touches either may end it."""

    def __init__(self, flows: DirectFlows, call: Call, pair: Pair, connection: Connection) -> None:
        self._flows = flows
        self._call = call
        self._pair = pair
        self._sock: socket.socket | None = None
        self._connecting: Connecting | None = None
        self._splice: Splice | None = None
        self._far: Account | None = None
        self.connection = connection
        self.workload_uid = pair.route.destination.uid

    def start(self, verdict: Direct, unanswered: Callable[[Call], None]) -> None:
        """Dial; `unanswered(call)` gets the call back if the other end does not answer within a second."""
        flows, pair = self._flows, self._pair
        endpoint = pair.route.endpoint
        flows.live.register(self, pair.source.uid)

        def connected(error: OSError | None) -> None:
            self._connecting = None
            if error is None:
                self._stands(verdict)
            elif isinstance(error, TimeoutError):
                self._drop()
                unanswered(self._call)
            else:
                self._fail(error)

        try:
            self._sock = sock = dial_socket(
                pair.source_network.netns, socket.AF_INET if endpoint.ip.version == 4 else socket.AF_INET6
            )
            if endpoint.ip not in pair.source_network.addresses:
                sock.bind((str(self.connection.source.ip), 0))
                flows.redirection.admit(Endpoint(self.connection.source.ip, sock.getsockname()[1]), endpoint)
            self._connecting = connect(
                flows.engine, sock, (str(endpoint.ip), endpoint.port), UNANSWERED_SECONDS, connected
            )
        except OSError as error:
            self._fail(error)

    def abort(self, error: ConnectionFailed) -> None:
        """End it now, both sides reset."""
        if self._splice is not None:
            self._splice.abort(error)
            return
        if self._connecting is not None:
            self._connecting.cancel()
        self._drop()
        self._call.fail(error)

    def _stands(self, verdict: Direct) -> None:
        flows, pair, call = self._flows, self._pair, self._call
        sock, self._sock = self._sock, None
        assert sock is not None
        flows.teach(pair, verdict)
        peer = Endpoint(self.connection.source.ip, sock.getsockname()[1])
        self._far = flows.report.open(pair.journey(Reporter.DESTINATION, peer), call.counts)
        self._splice = splice(flows.engine, call.hand_over(), sock, call.counts, self._ended)

    def _ended(self, error: ConnectionFailed | None) -> None:
        self._flows.live.unregister(self, self._pair.source.uid)
        if self._far is not None:
            self._flows.report.close(self._far, error)
        self._call.ended(error)

    def _fail(self, error: OSError) -> None:
        self._drop()
        self._call.fail(unreachable(self._pair.route.endpoint, error))

    def _drop(self) -> None:
        self._flows.live.unregister(self, self._pair.source.uid)
        if self._sock is not None:
            self._sock.close()
            self._sock = None


class DirectFlows:
    """What this node's kernel may carry by itself. `pods` are the enrolled pods by workload uid, kept by `pods/`."""

    def __init__(
        self, engine: Engine, redirection: Redirection, hold: Hold, report: Report, live: LiveConnections
    ) -> None:
        self.engine = engine
        self.redirection = redirection
        self.report = report
        self.live = live
        self.pods: dict[str, PodNetwork] = {}
        self._hold = hold
        self._vips: dict[ServiceName, set[Endpoint]] = {}
        self._policies: list[str] = [""]
        # What was taught before we were started was true of a world that we have not seen.
        redirection.bump_all()
        hold.subscribe(self._changed)

    def begin(
        self,
        call: Call,
        source: Workload,
        route: ToDirect,
        asked: Endpoint,
        unanswered: Callable[[Call], None],
    ) -> bool:
        """Make a call directly; False if one of the ends is not a pod that is enrolled here, and nothing was done.

        A refusal closes the call's account and is taught to the kernel, so that the next call fails at connect.
        """
        near = self.pods.get(source.uid)
        far = self.pods.get(route.destination.uid)
        if near is None or far is None:
            return False
        pair = Pair(source, near, route, far, asked)
        # Read before judging: a change that comes between voids the verdict before it is stored.
        generations = self.redirection.generation(near.cookie), self.redirection.generation(far.cookie)
        connection = connection_between(source, route.endpoint)
        try:
            judge_direct(
                self._hold.world, source, route.destination, connection.source, connection.destination
            )
        except Denied as denied:
            self.teach(pair, Deny(self._number(denied.policy), generations[0], far.cookie, generations[1]))
            self.report.refuse(pair.journey(Reporter.DESTINATION, call.account.journey.source), denied)
            call.fail(denied)
        else:
            DirectCall(self, call, pair, connection).start(Direct(far.cookie, *generations), unanswered)
        return True

    def teach(self, pair: Pair, verdict: Direct | Deny) -> None:
        """From now on the kernel answers for this pair, and picks among the endpoints of the VIP that was asked for."""
        self.redirection.teach(pair.source_network.cookie, pair.route.endpoint, verdict)
        service = pair.route.service
        if service is None or pair.asked in self._vips.get(service.key, ()):
            return
        served = self._hold.world.served[service.key]
        self.redirection.serve_vip(pair.asked, shares(served, pair.asked, pair.source))
        self._vips.setdefault(service.key, set()).add(pair.asked)

    def policy(self, number: int) -> str:
        """The key of the policy that a kernel's refusal names."""
        return self._policies[number] if number < len(self._policies) else ""

    def _number(self, policy: str) -> int:
        if policy not in self._policies:
            self._policies.append(policy)
        return self._policies.index(policy)

    def _changed(self, before: World, world: World, change: Change) -> None:
        """Void what the change can touch. Runs before the change is acknowledged."""
        if change.everywhere:
            self.redirection.bump_all()
        else:
            for uid, network in self.pods.items():
                workload = world.workload(uid) or before.workload(uid)
                if workload is not None and change.touches(workload):
                    self.redirection.bump(network.cookie)
        for name in change.services:
            for vip in self._vips.pop(name, ()):
                self.redirection.drop_vip(vip)
        self.live.rejudge(world, change)
