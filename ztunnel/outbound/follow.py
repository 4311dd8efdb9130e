"""Follows the flows that the kernel made by itself: accounts at both ends, bytes, policy, until they end.

The client's end reports the opening through a ring buffer, and each end its own end, with the bytes that it
sent. In between a flow's bytes are read from sock_diag every fifteen seconds, so that metrics move while it
lives; what is read later never counts less, so nothing counts twice. After a restart the kernel still knows
every flow: they are followed again.

    OPENED by the client ──> account at both ends, judged again if its verdict may have been void
    ENDED by both, or not found by sock_diag twice in a row (a record was lost) ──> accounts closed
    a change of policy ──> sockets destroyed ──> their ENDED records close the accounts, with the last byte
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

from ztunnel.authz.verdict import NO_POLICY, Trial, allowing_keys, denied_by, none_allowed, trials
from ztunnel.errors import Denied, HandedOver, Unreachable
from ztunnel.flow.timers import Timer
from ztunnel.kernel.sockets import LiveSocket, TcpState, destroy, list_some
from ztunnel.model.address import Endpoint
from ztunnel.model.connection import Connection
from ztunnel.model.workload import Workload
from ztunnel.outbound.gather import RECORDS, Gatherer, Namespaces
from ztunnel.outbound.kernel_flow import KernelFlow
from ztunnel.outbound.oversee import DirectFlows
from ztunnel.redirect.records import FlowRecord, LiveFlow, RecordEvent, RecordRole
from ztunnel.state.change import Change
from ztunnel.state.hold import Hold
from ztunnel.state.lookup import service_at
from ztunnel.telemetry.journey import Journey, direct_journey
from ztunnel.telemetry.labels import ENDS, Reporter

POLL_SECONDS = 15.0
_UNSEEN = 2
"""Polls without a flow's socket until it counts as gone: at the first, its last record may be under way."""

_DIVIDED_AT_ONCE = 500
"""Flows, of 1 us each: there may be ten thousand of them."""

_End = tuple[str, RecordRole]
"""A pod by its uid, and what it is of the flows."""

_WAYS = 1024
"""Remembered ways, and the accounts' journeys with each."""


class _Way(NamedTuple):
    """What all flows between two pods have in common that ask for the same: their ends, and what both
    report."""

    source: Workload | None
    destination: Workload | None
    at_source: Journey
    at_destination: Journey
    tried: tuple[Trial, ...]
    """What policies under trial make of them."""


class Follower:
    """All flows of this node's kernel."""

    def __init__(self, flows: DirectFlows, hold: Hold) -> None:
        self._flows = flows
        self._kernel = flows.kernel
        self._hold = hold
        self._live: dict[bytes, KernelFlow] = {}
        self._world = hold.world
        self._ways: dict[bytes, _Way] = {}
        self._suspects: set[str] = set()
        self._namespaces = Namespaces(flows.pods)
        self._lost = 0
        self._records: Gatherer | None = None
        self._next_poll: Timer | None = None

    def __len__(self) -> int:
        return len(self._live)

    def watch(self) -> None:
        """From now on the engine reads records as they come, and bytes every fifteen seconds."""
        self._records = Gatherer(self._flows.engine, self._kernel.records_fd, self.pull)
        self._records.watch()
        self._poll_again()

    def hand_over(self) -> None:
        """A successor follows the flows from now on, as after a restart; here their accounts are closed
        without a line."""
        records, self._records = self._records, None
        if records is not None:
            records.stop()
        timer, self._next_poll = self._next_poll, None
        if timer is not None:
            timer.cancel()
        for flow in tuple(self._live.values()):
            flow.condemned = HandedOver()
            self._close(flow)

    def resume(self) -> None:
        """After a restart: take up the flows that lived on without us, and judge them by the world as it is
        now."""
        while self._take_records():
            pass
        self._take_up()
        self._suspects.clear()
        self._flows.live.rejudge(self._hold.world, Change(everywhere=True))

    def pull(self) -> int:
        """Read what the kernel has reported, up to a limit. Returns how many records there were."""
        count = self._take_records()
        self._judge_suspects()
        return count

    def poll(self) -> None:
        """Have the bytes of the flows that live read, one pod at a time within the next fifteen seconds: each
        reading walks the machine's whole table of connections. Close the accounts of those that are gone
        without a record."""
        self.pull()
        self._recover()
        self._divide(list(self._live.values()), defaultdict(list))

    def destroy(self, flow: KernelFlow) -> None:
        """Destroy a flow's sockets from whichever end is still there; the other one is reset by the first.

        Where the kernel cannot, it is tried again at each poll and each change of the world.
        """
        source, destination = flow.ends
        ends = ((flow.source_uid, source, destination), (flow.workload_uid, destination, source))
        for uid, local, remote in ends:
            network = self._flows.pods.get(uid)
            try:
                if network is not None and destroy(network.netns, local, remote):
                    self._flows.live.unregister(flow, flow.source_uid)
                    return
            except OSError:
                continue

    # Records.

    def _take_records(self) -> int:
        records = self._kernel.records(RECORDS)
        for record in records:
            if record.event is RecordEvent.OPENED:
                self._opened(record)
            elif record.event is RecordEvent.DENIED:
                self._refused(record)
            elif record.established:
                self._ended(record)
            else:
                self._unanswered(record)
        return len(records)

    def _opened(self, record: FlowRecord) -> None:
        flow = self._live.get(record.flow)
        if flow is not None and not flow.belongs(record.role, record.socket):
            self._close(flow)  # its ports are used anew: the record of its end was lost
            flow = None
        flow = flow or self._open(record)
        flow.belongs(record.role, record.socket)
        if self._flows.may_be_void(record.time_ns - record.duration_ns):
            self._suspects.add(flow.workload_uid)

    def _ended(self, record: FlowRecord) -> None:
        flow = self._live.get(record.flow)
        if flow is None or not flow.belongs(record.role, record.socket):
            return
        flow.measure(record.role, record.sent_bytes)
        flow.ended.add(record.role)
        if len(flow.ended) == len(RecordRole):
            self._close(flow)

    def _unanswered(self, record: FlowRecord) -> None:
        """A direct SYN was refused, or has not arrived within a second: the next call comes to the proxy."""
        self._kernel.forget(record.cookie, record.destination)
        if record.event is RecordEvent.UNANSWERED:
            self._flows.detour(record.cookie, record.destination)
            return
        failed = Unreachable(f"connection failed: {record.destination}: refused, or not answered")
        self._flows.report.refuse(self._way(record).at_source, record.source, failed)

    def _refused(self, record: FlowRecord) -> None:
        """The kernel refused a call at connect, by a verdict of ours: reported as if we had refused it."""
        world = self._hold.world
        source = world.workload(self._namespaces.pod_of(record.cookie))
        if source is None or not source.addresses:
            return  # the pod has left: nobody knows any more who called
        called = world.by_ip(record.destination.ip)
        denied = self._why(self._flows.policy(record.policy), source, called)
        wanted = record.destination.ip.version
        own = next((ip for ip in source.addresses if ip.version == wanted), source.addresses[0])
        for reporter in ENDS:
            journey = self._journey(reporter, record, source, called)
            self._flows.report.refuse(journey, Endpoint(own, 0), denied)

    def _why(self, policy: str | None, source: Workload, called: Workload | None) -> Denied:
        """The refusal that a record names by its policy."""
        if policy is None:
            return Denied("connection closed due to policy rejection: by a policy of before the restart")
        if policy == NO_POLICY:
            keys = allowing_keys(self._hold.world, called) if called else []
            return none_allowed(keys, source.identity)
        return denied_by(policy, source.identity)

    # Flows.

    def _take_up(self) -> None:
        for found in self._kernel.direct_flows():
            if found.role is RecordRole.CLIENT and found.established:
                flow = self._live.get(found.flow) or self._open(found)
                flow.belongs(found.role, found.socket)
                if self._flows.may_be_void(found.since_ns):
                    self._suspects.add(flow.workload_uid)

    def _recover(self) -> None:
        """Where records were lost, the kernel's memory tells which flows we have not heard of."""
        lost = self._kernel.outcomes().get("record_lost", 0)
        if lost != self._lost:
            self._lost = lost
            self._take_up()
            self._judge_suspects()

    def _judge_suspects(self) -> None:
        """Judge again the flows of verdicts that were voided while they opened."""
        if self._suspects:
            suspects, self._suspects = frozenset(self._suspects), set()
            self._flows.live.rejudge(self._hold.world, Change(reclassified=suspects))

    def _open(self, seen: FlowRecord | LiveFlow) -> KernelFlow:
        """Account for a flow, also where an end has left the world meanwhile: then nothing judges it any
        more."""
        way = self._way(seen)
        source, destination = way.source, way.destination
        connection = Connection(seen.source, seen.destination, source.identity if source else None)
        uids = source.uid if source else "", destination.uid if destination else ""
        flow = KernelFlow(self.destroy, seen.flow, connection, uids)
        report = self._flows.report
        flow.accounts = [
            report.open(way.at_source, seen.source, flow.counts),
            report.open(way.at_destination, seen.source, flow.counts),
        ]
        if way.tried:
            report.try_out(way.tried, way.at_destination, seen.source)
        self._live[flow.key] = flow
        if source and destination:
            self._flows.live.register(flow, flow.source_uid)
        return flow

    def _way(self, seen: FlowRecord | LiveFlow) -> _Way:
        """The way of a flow, by the world as it is now."""
        world = self._hold.world
        if world is not self._world or len(self._ways) > _WAYS:
            self._world = world
            self._ways.clear()
        way = self._ways.get(seen.way)
        if way is None:
            source, destination = world.by_ip(seen.source.ip), world.by_ip(seen.destination.ip)
            journeys = (self._journey(reporter, seen, source, destination) for reporter in ENDS)
            tried: tuple[Trial, ...] = ()
            if source and destination:
                tried = trials(world, destination, Connection(seen.source, seen.destination, source.identity))
            way = self._ways[seen.way] = _Way(source, destination, next(journeys), next(journeys), tried)
        return way

    def _journey(
        self,
        reporter: Reporter,
        seen: FlowRecord | LiveFlow,
        source: Workload | None,
        destination: Workload | None,
    ) -> Journey:
        service = service_at(self._hold.world, seen.asked, source.namespace if source else "")
        return direct_journey(reporter, seen.destination, source, destination, service)

    def _close(self, flow: KernelFlow) -> None:
        if self._live.pop(flow.key, None) is None:
            return
        self._flows.live.unregister(flow, flow.source_uid)
        for account in flow.accounts:
            self._flows.report.close(account, flow.condemned)

    # Bytes.

    def _poll_again(self) -> None:
        self._next_poll = self._flows.engine.after(POLL_SECONDS, self._poll_again)
        self.poll()

    def _end_at_hand(self, flow: KernelFlow) -> tuple[str, RecordRole]:
        """One end tells what both have sent: preferably the client's, whose pod is shared by fewer flows or
        as many."""
        pods = self._flows.pods
        if flow.source_uid in pods and RecordRole.CLIENT not in flow.ended:
            return flow.source_uid, RecordRole.CLIENT
        return (
            (flow.workload_uid, RecordRole.SERVER) if flow.workload_uid in pods else ("", RecordRole.SERVER)
        )

    def _divide(self, flows: list[KernelFlow], ends: defaultdict[_End, list[KernelFlow]]) -> None:
        """Which pods are to be asked, and for which flows: some in each round of the engine."""
        for _ in range(min(len(flows), _DIVIDED_AT_ONCE)):
            flow = flows.pop()
            uid, role = self._end_at_hand(flow)
            if uid:
                ends[uid, role].append(flow)
            else:
                self._miss(flow)
        if flows:
            self._flows.engine.next_round(partial(self._divide, flows, ends))
            return
        for number, (end, group) in enumerate(ends.items()):
            self._flows.engine.after(POLL_SECONDS * number / len(ends), partial(self._read, end, group))

    def _read(self, end: _End, flows: list[KernelFlow]) -> None:
        uid, role = end
        network = self._flows.pods.get(uid)
        if network is not None:
            ways = [flow.ends if role is RecordRole.CLIENT else flow.ends[::-1] for flow in flows]
            self._compare(role, dict(zip(ways, flows, strict=True)), list_some(network.netns))

    def _compare(
        self,
        role: RecordRole,
        flows: dict[tuple[Endpoint, Endpoint], KernelFlow],
        sockets: Iterator[list[LiveSocket]],
    ) -> None:
        """What the kernel says of the pod's connections, some in each round of the engine. Flows by their
        ends, the pod's first; those of which nothing is said are missed."""
        try:
            some = next(sockets, None)
        except OSError:  # the pod is leaving: the next poll knows more
            return
        for seen in some or ():
            flow = flows.get((seen.local, seen.remote))
            if flow is not None and self._is_seen(flow, role, seen):
                del flows[seen.local, seen.remote]
        if some is not None:
            self._flows.engine.next_round(partial(self._compare, role, flows, sockets))
            return
        for flow in flows.values():
            if self._live.get(flow.key) is flow:
                self._miss(flow)

    def _is_seen(self, flow: KernelFlow, role: RecordRole, seen: LiveSocket) -> bool:
        if self._live.get(flow.key) is not flow or not flow.belongs(role, seen.cookie):
            return False
        flow.unseen = 0
        flow.measure(role, *payload(seen, role))
        if flow.condemned is not None:
            self.destroy(flow)
        return True

    def _miss(self, flow: KernelFlow) -> None:
        flow.unseen += 1
        if flow.unseen >= _UNSEEN:
            self._close(flow)


def payload(seen: LiveSocket, role: RecordRole) -> tuple[int, int]:
    """Bytes of payload sent and received: the kernel counts the opener's SYN, and each FIN, as one
    (net/ipv4/tcp.c)."""
    sent = seen.acked_bytes - (role is RecordRole.CLIENT) - (seen.state is TcpState.FIN_WAIT2)
    received = seen.received_bytes - (seen.state in (TcpState.CLOSE_WAIT, TcpState.CLOSING))
    return max(sent, 0), max(received, 0)
