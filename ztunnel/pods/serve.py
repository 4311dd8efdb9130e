"""Keeps the pods of this node enrolled as the world says: at once when it changes, and by looking again every while.

A pod that cannot be taken in stays pending and is tried again; the node is not ready meanwhile. A pod that is given
back keeps its listeners for a moment, so that whoever has not heard of it yet is still served, and its namespace until
its last connection has ended.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import trio

from ztunnel.errors import Drained
from ztunnel.flow.accept import Acceptor
from ztunnel.identity.rotate import Certificates
from ztunnel.inbound.accept import Inbound, PlainAcceptor
from ztunnel.inbound.serve import Handshakes
from ztunnel.kernel.netlink import addresses
from ztunnel.model.identity import SpiffeId
from ztunnel.model.workload import Workload
from ztunnel.outbound.accept import Outbound, OutboundAcceptor
from ztunnel.pods.enroll import CannotEnroll, Enrolled, enroll, outside_of, pod_network, release, withdraw
from ztunnel.pods.find import NamedNamespaces, inode_at
from ztunnel.pods.lifecycle import plan
from ztunnel.state.delta import Change
from ztunnel.state.world import World
from ztunnel.telemetry.component import PodFigures
from ztunnel.telemetry.export import Log
from ztunnel.telemetry.figures import Figures, Sample
from ztunnel.telemetry.readiness import Readiness

LOOK_AGAIN_SECONDS = 2.0
GRACE_SECONDS = 2.0
"""How long a pod that was given back still answers on its three ports: the other nodes hear of it within a second."""

_READINESS = "pods"


@dataclass(slots=True)
class _Kept:
    enrolled: Enrolled
    path: str
    identity: SpiffeId
    acceptors: tuple[Acceptor, ...]


@dataclass(frozen=True, slots=True)
class Ways:
    """What an enrolled pod is served by."""

    outbound: Outbound
    inbound: Inbound
    handshakes: Handshakes
    certificates: Certificates


class Pods:
    """The enrolled pods of one node."""

    def __init__(
        self, ways: Ways, find: NamedNamespaces, log: Log, readiness: Readiness, ipv6: bool = True
    ) -> None:
        self._outbound = ways.outbound
        self._inbound = ways.inbound
        self._handshakes = ways.handshakes
        self._certificates = ways.certificates
        self._find = find
        self._log = log
        self._readiness = readiness
        self._ipv6 = ipv6
        self._kept: dict[str, _Kept] = {}
        self._leaving: list[Enrolled] = []
        self._refused: dict[str, str] = {}
        self._stirred = trio.Event()
        self._figures: PodFigures | None = None
        ways.outbound.hold.subscribe(self._changed)
        readiness.pend(_READINESS)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Enroll and withdraw until cancelled; then the pods stay as they are, captured and without a proxy.

        Started when every pod that could be enrolled is.
        """
        async with trio.open_nursery() as graces:
            self._reconcile(graces)
            self._withdraw_strangers()
            task_status.started()
            while True:
                stirred = self._stirred
                with trio.move_on_after(LOOK_AGAIN_SECONDS):
                    await stirred.wait()
                self._stirred = trio.Event()
                self._reconcile(graces)

    def stop_accepting(self) -> None:
        """The process ends: no new connections here. Those captured meanwhile are refused until a successor listens."""
        for uid, kept in self._kept.items():
            for acceptor in kept.acceptors:
                acceptor.close()
            self._handshakes.drain(uid)

    def outside(self) -> list[Sample]:
        """For each pod, how many of its connections were made before it was taken in and still live."""
        samples: list[Sample] = []
        for uid, kept in self._kept.items():
            workload = self._outbound.hold.world.workload(uid)
            if workload is not None:
                try:
                    count = len(outside_of(kept.enrolled))
                except OSError:
                    continue
                samples.append(((workload.namespace, workload.name), count))
        return samples

    def register(self, figures: Figures) -> None:
        """Bring the figures to the register."""
        self._figures = PodFigures(figures)
        figures.gauge(
            "ztunnel_connections_outside_mesh",
            "Connections of enrolled pods that were made before they were enrolled",
            self.outside,
            ["namespace", "pod"],
        )

    def dump(self) -> dict[str, object]:
        """The enrolled pods by uid, for the configuration dump."""
        return {
            uid: {
                "state": "Up",
                "netns": kept.path,
                "addresses": [str(ip) for ip in kept.enrolled.network.addresses],
                "connections": {"inbound": len(self._inbound.live.of(uid))},
            }
            for uid, kept in sorted(self._kept.items())
        }

    def _withdraw_strangers(self) -> None:
        """Pods that left the mesh, or vanished, while no proxy ran. A pod that is wanted and could not be enrolled may
        be among those that the kernel has: then nothing is withdrawn, because that would let it out in plaintext."""
        if self._refused:
            return
        known = {kept.enrolled.network.cookie for kept in self._kept.values()}
        for cookie in self._outbound.redirection.enrolled().keys() - known:
            self._outbound.redirection.withdraw_cookie(cookie)

    def _changed(self, before: World, world: World, change: Change) -> None:
        if self._outbound.mesh.node in change.nodes:
            self._stirred.set()

    def _reconcile(self, graces: trio.Nursery) -> None:
        wanted = {
            each.uid: each
            for each in self._outbound.hold.world.on_node(self._outbound.mesh.node)
            if each.enrolled
        }
        found = {uid: self._find.inode_of(workload) for uid, workload in wanted.items()}
        held = {uid: (kept.enrolled.network.netns.inode, _exists(kept)) for uid, kept in self._kept.items()}
        todo = plan(found, held)
        self._refused = {uid: "its network namespace is not there yet" for uid in todo.waiting}
        for uid in todo.drop:
            self._drop(uid)
        for uid in todo.withdraw:
            graces.start_soon(self._withdraw, self._kept.pop(uid))
        for uid in todo.enroll:
            self._enroll(wanted[uid])
        for uid, kept in self._kept.items():
            self._refresh(uid, kept, wanted.get(uid))
        self._release()
        self._tell()

    def _enroll(self, workload: Workload) -> None:
        outbound, inbound = self._outbound, self._inbound
        path = self._find.path_of(workload)
        try:
            enrolled = enroll(outbound.redirection, workload, path, self._ipv6)
        except CannotEnroll as error:
            self._refused[workload.uid] = str(error)
            return
        uid, network, listeners = workload.uid, enrolled.network, enrolled.listeners
        accepted: tuple[tuple[Any, Callable[..., None]], ...] = (
            (listeners.outbound, OutboundAcceptor(outbound, uid, network).accepted),
            (listeners.inbound, PlainAcceptor(inbound, uid, network).accepted),
            (listeners.hbone, partial(self._handshakes.accepted, uid, network)),
        )
        acceptors = tuple(Acceptor(outbound.engine, listener, take) for listener, take in accepted)
        self._kept[uid] = _Kept(enrolled, path, workload.identity, acceptors)
        outbound.direct.pods[uid] = network
        self._certificates.want(workload.identity)
        if self._figures is not None:
            self._figures.started()
        self._log.info("pod enrolled", pod=f"{workload.namespace}/{workload.name}", netns=path)

    def _refresh(self, uid: str, kept: _Kept, workload: Workload | None) -> None:
        """What may change while a pod stays: its account, and its addresses."""
        if workload is not None and workload.identity != kept.identity:
            self._certificates.want(workload.identity)
            self._certificates.forget(kept.identity)
            kept.identity = workload.identity
        network = kept.enrolled.network
        try:
            now = addresses(network.netns)
            if now == network.addresses or not now:
                return
            kept.enrolled.network = changed = pod_network(network.netns, now)
            for ip in now:
                self._outbound.redirection.listener(ip, kept.enrolled.listeners.inbound.fileno())
            self._outbound.redirection.enroll(changed)
        except OSError as error:
            self._refused[uid] = f"its addresses cannot be read: {error}"

    async def _withdraw(self, kept: _Kept) -> None:
        """Give a pod back. Its new connections are its own at once."""
        uid = kept.enrolled.uid
        withdraw(self._outbound.redirection, kept.enrolled)
        self._outbound.direct.pods.pop(uid, None)
        if self._figures is not None:
            self._figures.stopped()
        self._log.info("pod withdrawn", pod=uid)
        self._handshakes.drain(uid)
        try:
            await trio.sleep(GRACE_SECONDS)
        finally:
            for acceptor in kept.acceptors:
                acceptor.close()
            self._certificates.forget(kept.identity)
            self._leaving.append(kept.enrolled)
            self._stirred.set()

    def _drop(self, uid: str) -> None:
        """The pod is gone with its namespace: nothing of it can be served any more."""
        kept = self._kept.pop(uid)
        withdraw(self._outbound.redirection, kept.enrolled)
        self._outbound.direct.pods.pop(uid, None)
        for acceptor in kept.acceptors:
            acceptor.close()
        gone = Drained("the pod has gone")
        self._handshakes.abort(uid, gone)
        network = kept.enrolled.network
        self._outbound.tunnels.leave(lambda key: key.source_ip in network.addresses)
        self._certificates.forget(kept.identity)
        self._leaving.append(kept.enrolled)
        if self._figures is not None:
            self._figures.stopped()
        self._log.info("pod gone", pod=uid)

    def _release(self) -> None:
        """Let go of the namespaces whose last proxied connection has ended."""
        still: list[Enrolled] = []
        for enrolled in self._leaving:
            again = self._kept.get(enrolled.uid)
            if again is not None and again.enrolled.network.cookie == enrolled.network.cookie:
                enrolled.network.netns.close()  # taken in once more: rule and route are the new one's
            elif self._inbound.live.of(enrolled.uid):
                still.append(enrolled)
            else:
                release(enrolled)
        self._leaving = still

    def _tell(self) -> None:
        """Readiness: every pod that the world wants here is enrolled."""
        if self._figures is not None:
            self._figures.active, self._figures.pending = len(self._kept), len(self._refused)
        if self._refused:
            self._readiness.pend(_READINESS)
        else:
            self._readiness.done(_READINESS)
        self._readiness.detail(
            _READINESS, "; ".join(f"{uid}: {why}" for uid, why in sorted(self._refused.items()))
        )


def _exists(kept: _Kept) -> bool:
    return inode_at(kept.path) == kept.enrolled.network.netns.inode
