"""Serves the pods that the agent names: each as soon as it is named, until it is taken away.

A pod that cannot be served stays pending and is tried again; the agent is told why, and so is readiness.
While there is no agent, all goes on as it was: ztunnel would not be ready then, which helps nobody.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

import trio

from ztunnel.errors import PeerError
from ztunnel.kernel.netns import NetworkNamespace, current, is_network_namespace
from ztunnel.kernel.sockets import Listening, TcpState, connections
from ztunnel.model.workload import Workload
from ztunnel.pods.hold import Ways
from ztunnel.pods.lifecycle import Told, cause_of, summary
from ztunnel.pods.listen import CannotEnroll
from ztunnel.pods.repair import Reports
from ztunnel.state.change import Change
from ztunnel.state.lookup import HBONE_PORT
from ztunnel.state.world import World
from ztunnel.telemetry.component import PodFigures
from ztunnel.telemetry.figures import Figures, Sample
from ztunnel.zds.connect import Packet
from ztunnel.zds.follow import follow
from ztunnel.zds.hold import RedirectedPod
from ztunnel.zds.message import Add, Named, parse, render_answer
from ztunnel.zds.relay import NameServers
from ztunnel.zds.roster import Roster

UNKNOWN_SECONDS: Final = 5.0
"""So long what a pod opens waits for the world to know the pod (ztunnel: wait_for_workload)."""

RETRY_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 0.5
_TASK: Final = "workload proxy manager"
"""As ztunnel calls it on its page of readiness."""

_AGENT, _PODS = "agent", "pods"


class Inside(NamedTuple):
    """How a pod is served in its namespace.

    Attributes:
        mark: what Istio's rules know our packets by.
        names: who is asked for names; None where DNS is not captured.
    """

    listening: Listening
    mark: int
    names: NameServers | None = None


class AgentPods:
    """The pods of one node that come from the agent.

    Attributes:
        connected: whether the agent is there.
        refused_total: requests that could not be carried out.
    """

    def __init__(self, ways: Ways, node: str, reports: Reports, inside: Inside) -> None:
        self._ways = ways
        self._node = node
        self._inside = inside
        self._log, self._readiness, self._repairs = reports.log, reports.readiness, reports.repairs
        with current() as home:
            self._roster = Roster(home.cookie)
        self._held: dict[str, RedirectedPod] = {}
        self._since: dict[str, float] = {}
        self._waiting: dict[str, tuple[Named, NetworkNamespace]] = {}
        self._pending: dict[str, str] = {}
        self._told = Told()
        self._stirred = trio.Event()
        self._stopping = False
        self._figures: PodFigures | None = None
        self.connected = False
        self.refused_total = 0
        ways.outbound.hold.subscribe(self._changed)
        self._readiness.pend(_TASK)

    async def run(self, path: Path, rng: Random) -> None:
        """Serve what the agent at `path` names, until cancelled; then nothing is served here any more."""
        self._readiness.detail(_AGENT, f"not connected yet: {path}")
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(follow, path, self, rng)
                retry_at = 0.0
                while True:
                    with trio.move_on_after(_LOOK_SECONDS):
                        await self._stirred.wait()
                    self._stirred = trio.Event()
                    now = trio.current_time()
                    if now >= retry_at:
                        retry_at = now + RETRY_SECONDS
                        await self._retry()
                        await self._look()
                    self._match()
                    self._tell()
        finally:
            for pod in self._held.values():
                pod.let_go()
            for _, netns in self._waiting.values():
                netns.close()

    def stop_accepting(self) -> None:
        """The process ends: no new connections here, and no more pods."""
        self._stopping = True
        for pod in self._held.values():
            pod.stop()

    @property
    def succeeded(self) -> bool:
        """Whether another proxy listens beside us: it has come to take our place."""
        for pod in self._held.values():
            try:
                found = connections(pod.network.netns, [TcpState.LISTEN])
            except OSError:
                continue
            return sum(each.local.port == HBONE_PORT for each in found) > 1
        return False

    # What the agent says (`follow.Told`).

    def connect(self) -> None:
        """A connection stands."""
        self._roster.connect()
        self.connected = True
        self._readiness.detail(_AGENT, "")
        self._log.info("agent connected")

    def disconnect(self, reason: str) -> None:
        """There is none; what is served goes on."""
        if self.connected:
            self._log.warn("agent disconnected", reason=reason)
        self.connected = False
        self._readiness.detail(_AGENT, f"not connected: {reason}")

    def take(self, packet: Packet) -> bytes:
        """Carry out one request, and answer it."""
        try:
            self._carry_out(packet)
        except (PeerError, CannotEnroll, OSError) as error:
            self.refused_total += 1
            self._log.warn("request of the agent refused", reason=str(error))
            return render_answer(str(error))
        return render_answer()

    def _carry_out(self, packet: Packet) -> None:
        if self._stopping:
            raise PeerError("this proxy ends: ask its successor")
        request = parse(packet.payload, len(packet.descriptors), packet.truncated)
        netns = self._opened(packet, request.pod) if isinstance(request, Add) else None
        try:
            step = self._roster.take(request, netns.cookie if netns is not None else 0)
            for uid in step.stop:
                self._stop(uid)
            if isinstance(request, Add) and step.start and netns is not None:
                self._waiting[step.start], netns = (request.pod, netns), None
        finally:
            if netns is not None:
                netns.close()
        if isinstance(request, Add) and request.uid in self._waiting:
            self._start(request.uid)
        if self._roster.whole:
            self._readiness.done(_TASK)
        self._stirred.set()

    def _opened(self, packet: Packet, pod: Named) -> NetworkNamespace:
        """The namespace that came with a packet."""
        fd = packet.take()
        if not is_network_namespace(fd):
            os.close(fd)
            raise PeerError(f"what came with {pod} is no network namespace")
        return NetworkNamespace(fd, f"pod {pod}", self._inside.mark)

    # Pods.

    def _start(self, uid: str) -> None:
        """Raises CannotEnroll, OSError: it stays pending."""
        pod, netns = self._waiting[uid]
        try:
            held = RedirectedPod(self._ways, pod, netns, self._inside.listening, self._inside.names)
        except (CannotEnroll, OSError) as error:
            self._pending[uid] = str(error)
            raise
        del self._waiting[uid]
        self._pending.pop(uid, None)
        self._held[uid] = held
        self._since[uid] = trio.current_time()
        if self._figures is not None:
            self._figures.started()
        self._log.info("pod served", pod=str(pod), uid=uid)
        self._match()

    def _stop(self, uid: str) -> None:
        self._pending.pop(uid, None)
        waiting = self._waiting.pop(uid, None)
        if waiting is not None:
            waiting[1].close()
        held = self._held.pop(uid, None)
        if held is not None:
            if any(each.uid == held.uid for each in self._held.values() if held.uid):
                held.let_go()  # the same pod anew, under another uid: what is open may be its
            else:
                held.end("the pod was taken out of the mesh")
            if self._figures is not None:
                self._figures.stopped()
            self._log.info("pod taken away", pod=str(held.pod), uid=uid)

    async def _retry(self) -> None:
        """Between two pods others have the thread, and the agent may have taken one away."""
        for uid in tuple(self._waiting):
            await trio.lowlevel.checkpoint()
            if uid in self._waiting:
                with suppress(CannotEnroll, OSError):  # it stays pending
                    self._start(uid)

    async def _look(self) -> None:
        """As `_retry`."""
        for uid, held in tuple(self._held.items()):
            await trio.lowlevel.checkpoint()
            if self._held.get(uid) is not held or self._stopping:
                continue
            try:
                for what in held.look():
                    self._repairs.repaired(what, uid)
                self._pending.pop(uid, None)
            except (CannotEnroll, OSError) as error:
                self._pending[uid] = f"it cannot be repaired: {error}"

    # The world.

    def _changed(self, before: World, world: World, change: Change) -> None:
        if self._node in change.nodes:
            self._match()

    def _match(self) -> None:
        """Join pods with their workloads, by name, namespace and service account, as ztunnel does: the
        agent's uid is another one than the world's."""
        known: dict[Named, Workload] = {
            Named(each.name, each.namespace, each.service_account): each
            for each in self._ways.outbound.hold.world.on_node(self._node)
        }
        now = trio.current_time()
        for uid, held in self._held.items():
            workload = known.get(held.pod)
            try:
                if workload is not None:
                    held.attach(workload)
                elif now - self._since[uid] >= UNKNOWN_SECONDS:
                    held.accept()
            except OSError as error:
                self._pending[uid] = f"it cannot be served: {error}"

    # What is told of them.

    def _tell(self) -> None:
        if self._figures is not None:
            self._figures.show(len(self._held), len(self._waiting))
        for uid, why in self._told.fresh(self._pending, trio.current_time()):
            self._log.warn("pod pending", pod=uid, reason=why)
        self._readiness.detail(_PODS, summary(self._pending))

    def register(self, figures: Figures) -> None:
        """Bring the figures to the register."""
        self._figures = PodFigures(figures)
        figures.gauge(
            "ztunnel_pods_pending",
            "Pods that are wanted in the mesh and are not in it: nothing leaves or reaches them meanwhile",
            self.pending,
            ["namespace", "pod", "reason"],
        )
        figures.gauge(
            "ztunnel_zds_connected",
            "1 while the agent that names the pods is connected, 0 while they stay as they were",
            lambda: int(self.connected),
        )
        figures.counter(
            "ztunnel_zds_refused_total",
            "Requests of the agent that could not be carried out",
            lambda: self.refused_total,
        )
        names = self._inside.names
        if names is not None:
            figures.counter(
                "ztunnel_dns_answered_total",
                "Queries of pods for names that the mesh knows",
                lambda: names.answered_total,
            )
            figures.counter(
                "ztunnel_dns_relayed_total",
                "Queries of pods for names that a name server has answered",
                lambda: names.relayed_total,
            )
            figures.counter(
                "ztunnel_dns_failed_total",
                "Queries of pods for names that no name server has answered",
                lambda: names.failed_total,
            )

    def pending(self) -> list[Sample]:
        """Those that cannot be served, with the cause."""
        return [
            ((pod.namespace, pod.name, cause_of(self._pending.get(uid, ""))), 1.0)
            for uid, (pod, _) in self._waiting.items()
        ]

    def dump(self) -> dict[str, dict[str, object]]:
        """The pods by uid, for the configuration dump: `Up` or `Pending`."""
        shown: dict[str, dict[str, object]] = {
            uid: {"state": "Pending", "reason": self._pending.get(uid, ""), "netns": netns.path}
            for uid, (_, netns) in self._waiting.items()
        }
        shown.update({each.uid or uid: each.show() for uid, each in self._held.items()})
        return dict(sorted(shown.items()))
