"""Oversees direct flows: the kernel's verdicts about pairs of pods of this node, and the flows that go by
them.

The first call of a pair is judged here, made by us (`call`), and taught to the kernel once it stands; the
kernel makes the next ones alone and reports them (`follow`). What is taught is void when either pod's
generation has moved on, and none of it counts unless the lease is renewed.

    call -> judged -> dialled ── stands ──> taught, carried by us
              │           └─ unanswered for a second ──> HBONE instead; for a minute at once, where the SYN
              │                                          has not arrived in the pod
              └─ refused ──> taught as well, so that the next call fails at connect
    kernel's record OPENED -> an account at both ends, registered with the live connections
    kernel's record ENDED  -> its bytes, its account closed; a SYN that is refused, or has not arrived within
                              a second, voids the verdict
    a change of the world  -> generations of what it touches move on; live flows are judged again
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from ztunnel.authz.direct import judge_direct
from ztunnel.authz.enforce import LiveConnections
from ztunnel.authz.verdict import NO_POLICY
from ztunnel.errors import Denied
from ztunnel.flow.engine import Engine
from ztunnel.model.address import Endpoint, IPAddress
from ztunnel.model.identity import SpiffeId
from ztunnel.model.service import ServiceName
from ztunnel.model.workload import Workload
from ztunnel.outbound.call import Admissions, DirectCall, Pair
from ztunnel.outbound.connect import Call
from ztunnel.outbound.decision import ToDirect
from ztunnel.redirect.enroll import PodNetwork
from ztunnel.redirect.layout import Deny, Direct
from ztunnel.redirect.records import FlowRecord, LiveFlow
from ztunnel.state.balancer import shares
from ztunnel.state.change import Change
from ztunnel.state.hold import Hold
from ztunnel.state.world import World
from ztunnel.telemetry.labels import Reporter
from ztunnel.telemetry.report import Report

_DETOUR_SECONDS = 60.0
"""For so long a pair whose SYN did not arrive (a NetworkPolicy lets only HBONE through) is not tried
again."""

_DETOURS = 4096
_RACE_NS = 10_000_000
"""More than a hook can take between reading a verdict and writing down the time."""


class Kernel(Admissions, Protocol):
    """What the kernel holds of direct flows (`redirect.attach.Redirection`, which says more of each)."""

    @property
    def records_fd(self) -> int: ...

    def generation(self, cookie: int) -> int: ...
    def bump(self, cookie: int) -> int: ...
    def bump_all(self) -> None: ...
    def teach(self, source_cookie: int, destination: Endpoint, verdict: Direct | Deny) -> None: ...
    def forget(self, source_cookie: int, destination: Endpoint) -> None: ...
    def serve_vip(
        self, vip: Endpoint, endpoints: Sequence[tuple[Endpoint, int]], affinity_seconds: int = 0
    ) -> None: ...
    def drop_vip(self, vip: Endpoint) -> None: ...
    def drop_vips(self) -> None: ...
    def records(self, limit: int) -> list[FlowRecord]: ...
    def direct_flows(self) -> list[LiveFlow]: ...
    def outcomes(self) -> dict[str, int]: ...


class DirectFlows:
    """What this node's kernel may carry by itself.

    Attributes:
        pods: the enrolled pods by workload uid, kept by `pods/`.
        untaught: how often the kernel's maps had no room for what was to be taught; it asks again then.
    """

    def __init__(
        self, engine: Engine, kernel: Kernel, hold: Hold, report: Report, live: LiveConnections
    ) -> None:
        self.engine = engine
        self.kernel = kernel
        self.report = report
        self.live = live
        self.pods: dict[str, PodNetwork] = {}
        self.untaught = 0
        self._hold = hold
        self._vips: dict[Endpoint, ServiceName] = {}
        self._policies: list[str] = []
        self._numbers: dict[str, int] = {}
        self._number(NO_POLICY)
        self._detours: dict[tuple[int, Endpoint], float] = {}
        self._handed_over = False
        self._voided_ns = 0
        self.begin_anew()
        hold.subscribe(self._changed)

    def begin_anew(self) -> None:
        """Void what was taught so far: it was true of a world that we have not seen."""
        self._vips.clear()
        self.kernel.bump_all()
        self.kernel.drop_vips()
        self._voided_ns = time.monotonic_ns()

    def hand_over(self) -> None:
        """A successor teaches the kernel from now on; calls that we carry are still judged here."""
        self._handed_over = True

    def begin(
        self, call: Call, source: Workload, route: ToDirect, asked: Endpoint, instead: Callable[[], None]
    ) -> bool:
        """Make a call directly; False if that is not possible now, and nothing was done.

        A refusal ends the call and is taught to the kernel, so that the next call fails at connect.
        `instead()` is called later if nobody answers: the call still has the application's socket then.
        """
        near = self.pods.get(source.uid)
        far = self.pods.get(route.destination.uid)
        if near is None or far is None or self._takes_detour(near.cookie, route.endpoint):
            return False
        pair = Pair(source, near, route, far, asked)
        # Read before judging: a change that comes between voids the verdict before it is stored.
        generations = self.kernel.generation(near.cookie), self.kernel.generation(far.cookie)
        connection = pair.connection(call.peer)
        try:
            admitted = judge_direct(
                self._hold.world, source, route.destination, connection.source, connection.destination
            )
        except Denied as denied:
            deny = Deny(self._number(denied.policy), generations[0], far.cookie, generations[1])
            self.teach(pair, deny, connection.source.ip)
            self.report.refuse(pair.journey(Reporter.DESTINATION), call.peer, denied)
            call.fail(denied)
            return True
        if admitted.tried:
            self.report.try_out(admitted.tried, pair.journey(Reporter.DESTINATION), connection.source)
        return DirectCall(self, call, pair, connection, Direct(far.cookie, *generations)).start(instead)

    def teach(self, pair: Pair, verdict: Direct | Deny, source: IPAddress) -> None:
        """From now on the kernel answers for this pair, and picks among the endpoints of the VIP that was
        asked for. Not about calls from an address that the application chose: they come to us each time."""
        if self._handed_over or pair.source_network.chosen(source, pair.route.endpoint.ip) is not None:
            return
        try:
            self.kernel.teach(pair.source_network.cookie, pair.route.endpoint, verdict)
            self._serve_vip(pair)
        except OSError:
            self.untaught += 1

    def still_holds(self, pair: Pair, verdict: Direct) -> bool:
        """Whether nothing has changed since it was judged that could change it."""
        return (
            self.kernel.generation(pair.source_network.cookie) == verdict.source_generation
            and self.kernel.generation(pair.destination_network.cookie) == verdict.destination_generation
        )

    def may_be_void(self, since_ns: int) -> bool:
        """Whether a flow that the kernel began then (CLOCK_MONOTONIC) may rest on a verdict that is void by
        now."""
        return since_ns <= self._voided_ns + _RACE_NS

    def detour(self, cookie: int, destination: Endpoint) -> None:
        """A SYN to there did not arrive: for a while this pod's calls to it go by HBONE at once."""
        if len(self._detours) >= _DETOURS:
            del self._detours[next(iter(self._detours))]
        self._detours[cookie, destination] = self.engine.now + _DETOUR_SECONDS

    def void_unproved(self, current: Callable[[SpiffeId], object | None]) -> None:
        """Void what is taught about pods without a valid certificate (`Certificates.current`): to be asked
        every few seconds, because a certificate that runs out is no event. New calls of such pods go by
        HBONE, and say why."""
        for uid, network in self.pods.items() if not self._handed_over else ():
            workload = self._hold.world.workload(uid)
            if workload is not None and current(workload.identity) is None:
                self.kernel.bump(network.cookie)

    def policy(self, number: int) -> str | None:
        """The key of the policy that a kernel's refusal names, `NO_POLICY` where none allowed; None for a
        number that is not ours, but a predecessor's."""
        return self._policies[number] if number < len(self._policies) else None

    def _takes_detour(self, cookie: int, destination: Endpoint) -> bool:
        until = self._detours.get((cookie, destination)) if self._detours else None
        if until is not None and until <= self.engine.now:
            del self._detours[cookie, destination]
            return False
        return until is not None

    def _serve_vip(self, pair: Pair) -> None:
        """Where several services share a VIP, or one is private, which one is meant depends
        on who asks: the proxy picks."""
        service, vip, world = pair.route.service, pair.asked, self._hold.world
        if service is None or service.private or vip in self._vips:
            return
        served = world.served.get(service.key)
        if served is not None and [each.key for each in world.services_at(vip.ip)] == [service.key]:
            self.kernel.serve_vip(vip, shares(served, vip, pair.source), service.affinity_seconds)
            self._vips[vip] = service.key

    def _number(self, policy: str) -> int:
        number = self._numbers.setdefault(policy, len(self._policies))
        if number == len(self._policies):
            self._policies.append(policy)
        return number

    def _changed(self, before: World, world: World, change: Change) -> None:
        """Void what the change can touch. Runs before the change is acknowledged; what the kernel refuses to
        take is raised, so that it is not."""
        if not self._handed_over:
            self._void(before, world, change)
        self.live.rejudge(world, change)

    def _void(self, before: World, world: World, change: Change) -> None:
        if change.everywhere:
            self.kernel.bump_all()
        else:
            for uid, network in self.pods.items():
                workload = world.workload(uid) or before.workload(uid)
                if workload is not None and change.touches(workload):
                    self.kernel.bump(network.cookie)
        for vip in self._concerned(world, change) if change.services else ():
            del self._vips[vip]
            self.kernel.drop_vip(vip)
        self._voided_ns = time.monotonic_ns()

    def _concerned(self, world: World, change: Change) -> Iterable[Endpoint]:
        """The VIPs whose service has changed, or that another service has as well by now."""
        return [
            vip
            for vip, name in self._vips.items()
            if name in change.services or any(s.key in change.services for s in world.services_at(vip.ip))
        ]
