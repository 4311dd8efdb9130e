"""Follows the flows that the kernel made by itself: accounts at both ends, bytes, policy, until they end.

Each end reports its opening and its end through a ring buffer, with the bytes that it sent. In between a flow's bytes
are read from sock_diag every fifteen seconds, so that metrics move while it lives; what is read later never counts
less, so nothing counts twice. After a restart the kernel still knows every flow: they are followed again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from select import EPOLLIN

from ztunnel.errors import ConnectionFailed, Denied
from ztunnel.flow.engine import Engine
from ztunnel.kernel.sockets import connections, destroy
from ztunnel.model.address import Endpoint
from ztunnel.model.connection import Connection
from ztunnel.model.workload import Workload
from ztunnel.outbound.oversee import DirectFlows
from ztunnel.redirect.layout import FlowRecord, LiveFlow, RecordEvent, RecordRole
from ztunnel.state.hold import Hold
from ztunnel.state.lookup import service_at
from ztunnel.telemetry.labels import Reporter
from ztunnel.telemetry.metrics import Measured
from ztunnel.telemetry.report import Account, Journey

POLL_SECONDS = 15.0

_Flow = tuple[Endpoint, Endpoint]


class KernelFlow:
    """One flow between two pods of this node. Live: a change of policy destroys its sockets."""

    __slots__ = (
        "_ended",
        "_follower",
        "_sides",
        "accounts",
        "connection",
        "counts",
        "source_uid",
        "workload_uid",
    )

    def __init__(self, follower: Follower, connection: Connection, ends: tuple[Workload, Workload]) -> None:
        self._follower = follower
        self._ended: set[RecordRole] = set()
        self.connection = connection
        self.counts = Measured()
        self.source_uid, self.workload_uid = ends[0].uid, ends[1].uid
        self.accounts: list[Account] = []

    def measure(self, role: RecordRole, sent_bytes: int) -> None:
        """What one end has sent since the flow's start."""
        if role is RecordRole.CLIENT:
            self.counts.measure(sent_bytes, 0)
        else:
            self.counts.measure(0, sent_bytes)

    def end(self, role: RecordRole) -> bool:
        """One end has ended; whether that was the second."""
        self._ended.add(role)
        return len(self._ended) == 2

    def abort(self, error: ConnectionFailed) -> None:
        """Destroy it: its sockets see ECONNABORTED and ECONNRESET."""
        self._follower.destroy(self, error)


class Follower:
    """All flows of this node's kernel."""

    def __init__(self, flows: DirectFlows, hold: Hold) -> None:
        self._flows = flows
        self._hold = hold
        self._live: dict[_Flow, KernelFlow] = {}

    def __len__(self) -> int:
        return len(self._live)

    def watch(self, engine: Engine, on_bug: Callable[[BaseException], None]) -> None:
        """From now on the engine reads records as they come, and bytes every fifteen seconds."""

        def poll() -> None:
            engine.after(POLL_SECONDS, poll)
            self.poll()

        engine.watch(self._flows.redirection.records_fd, EPOLLIN, lambda mask: self.pull(), on_bug)
        engine.after(POLL_SECONDS, poll)

    def resume(self) -> None:
        """After a restart: take up the flows that lived on without us, and judge them by the world as it is now."""
        for flow in self._flows.redirection.direct_flows():
            if flow.role is RecordRole.CLIENT and flow.established:
                self._open(flow)

    def pull(self) -> None:
        """Read what the kernel has reported."""
        for record in self._flows.redirection.records():
            key = (record.source, record.destination)
            if record.event is RecordEvent.OPENED:
                if key not in self._live:
                    self._open(record)
            elif record.event is RecordEvent.DENIED:
                self._refused(record)
            elif not record.established:
                self._flows.redirection.forget(record.cookie, record.destination)
            else:
                self._end(key, record)

    def poll(self) -> None:
        """Read the bytes of the flows that live, and close the accounts of those that are gone without a record."""
        if not self._live:
            return
        cookies = {self._flows.pods[uid].netns for flow in self._live.values() for uid in self._uids(flow)}
        seen: set[_Flow] = set()
        for netns in cookies:
            for each in connections(netns):
                for key, role in (
                    ((each.local, each.remote), RecordRole.CLIENT),
                    ((each.remote, each.local), RecordRole.SERVER),
                ):
                    flow = self._live.get(key)
                    if flow is not None:
                        seen.add(key)
                        flow.measure(role, max(each.acked_bytes - (role is RecordRole.CLIENT), 0))
        for key in [key for key in self._live if key not in seen]:
            self._close(key, None)

    def _uids(self, flow: KernelFlow) -> Iterable[str]:
        return [uid for uid in (flow.source_uid, flow.workload_uid) if uid in self._flows.pods]

    def destroy(self, flow: KernelFlow, error: ConnectionFailed) -> None:
        """Destroy a flow's sockets from whichever end is still there."""
        source, destination = flow.connection.source, flow.connection.destination
        for uid, local, remote in (
            (flow.source_uid, source, destination),
            (flow.workload_uid, destination, source),
        ):
            network = self._flows.pods.get(uid)
            if network is not None:
                destroy(network.netns, local, remote)
        self._close((source, destination), error)

    def _open(self, seen: FlowRecord | LiveFlow) -> None:
        world = self._hold.world
        source, destination = world.by_ip(seen.source.ip), world.by_ip(seen.destination.ip)
        if source is None or destination is None:
            return
        flow = KernelFlow(
            self, Connection(seen.source, seen.destination, source.identity), (source, destination)
        )
        journeys = [self._journey(reporter, seen, (source, destination)) for reporter in Reporter]
        flow.accounts = [self._flows.report.open(journey, flow.counts) for journey in journeys]
        self._live[(seen.source, seen.destination)] = flow
        self._flows.live.register(flow, flow.source_uid)

    def _journey(
        self, reporter: Reporter, seen: FlowRecord | LiveFlow, ends: tuple[Workload, Workload]
    ) -> Journey:
        source, destination = ends
        service = service_at(self._hold.world, seen.asked.ip, source.namespace)
        return Journey(
            reporter,
            seen.source,
            seen.destination,
            source,
            destination,
            service,
            source.identity,
            destination.identity,
        )

    def _end(self, key: _Flow, record: FlowRecord) -> None:
        flow = self._live.get(key)
        if flow is None:
            return
        flow.measure(record.role, record.sent_bytes)
        if flow.end(record.role):
            self._close(key, None)

    def _close(self, key: _Flow, error: ConnectionFailed | None) -> None:
        flow = self._live.pop(key, None)
        if flow is None:
            return
        self._flows.live.unregister(flow, flow.source_uid)
        for account in flow.accounts:
            self._flows.report.close(account, error)

    def _refused(self, record: FlowRecord) -> None:
        """The kernel refused a call at connect, by a verdict of ours: reported as if we had refused it."""
        world = self._hold.world
        destination = world.by_ip(record.destination.ip)
        source = next(
            (world.workload(uid) for uid, pod in self._flows.pods.items() if pod.cookie == record.cookie),
            None,
        )
        if source is None or destination is None or not source.addresses:
            return
        policy = self._flows.policy(record.policy)
        reason = f"explicitly denied by: {policy}" if policy else "allow policies exist, but none allowed"
        denied = Denied(f"connection closed due to policy rejection: {reason}", policy)
        own = next(
            (ip for ip in source.addresses if ip.version == record.destination.ip.version),
            source.addresses[0],
        )
        for reporter in Reporter:
            journey = Journey(
                reporter,
                Endpoint(own, 0),
                record.destination,
                source,
                destination,
                service_at(world, record.asked.ip, source.namespace),
                source.identity,
                destination.identity,
            )
            self._flows.report.refuse(journey, denied)
