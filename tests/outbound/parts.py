"""The way out of a pod on this machine's own loopback; what the kernel would be told is written down."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Collection, Iterable, Sequence
from ipaddress import IPv4Address, ip_address
from random import Random
from typing import cast

from tests.builders import world_of
from tests.inbound.parts import Sockets
from ztunnel.authz.direct import judge_live_direct
from ztunnel.authz.enforce import LiveConnections
from ztunnel.flow.engine import Engine
from ztunnel.model.address import Endpoint, IPAddress, OriginalDestination, PeerAddress, parse_endpoint
from ztunnel.model.identity import SpiffeId
from ztunnel.model.policy import Policy
from ztunnel.model.service import Service
from ztunnel.model.workload import SameNode, Workload
from ztunnel.outbound.accept import Mesh, Outbound, OutboundAcceptor
from ztunnel.outbound.connect import Call, Calls, TunnelCall
from ztunnel.outbound.oversee import DirectFlows
from ztunnel.redirect.enroll import PodNetwork
from ztunnel.redirect.held import HeldCall
from ztunnel.redirect.layout import Deny, Direct, Recalled, push_tuple
from ztunnel.redirect.outside import OutsideCall
from ztunnel.redirect.records import FlowRecord, LiveFlow, RecordEvent, RecordRole, push_way
from ztunnel.state.delta import apply
from ztunnel.state.hold import Hold
from ztunnel.telemetry.journey import Journey
from ztunnel.telemetry.labels import Reporter
from ztunnel.telemetry.level import Level, Levels
from ztunnel.telemetry.metrics import TcpMetrics
from ztunnel.telemetry.report import Report

PEER = PeerAddress(IPv4Address("127.0.0.9"), 4000)


class Here:
    """This process's own namespace, as a pod's; `gone` once the pod has left."""

    def __init__(self) -> None:
        self.gone = False

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        if self.gone:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)

    def tcp_socket(self, family: int) -> socket.socket:
        return self.socket(family, socket.SOCK_STREAM)

    def ephemeral_ports(self) -> tuple[int, int]:
        return 32768, 60999


class HeldCalls:
    """Calls that wait, as the kernel tells of them: `told` next."""

    def __init__(self) -> None:
        self.destinations: dict[bytes, Recalled] = {}
        self.told: list[HeldCall] = []
        self.since = 0
        self.fd = -1

    def destination(self, held: HeldCall) -> Recalled:
        return self.destinations[held.destination]

    def pull(self, limit: int) -> list[HeldCall]:
        taken, self.told = self.told[:limit], self.told[limit:]
        return taken

    def hold(self, since_ns: int) -> None:
        self.since = since_ns


class Affinities:
    """Which endpoints clients keep."""

    def __init__(self) -> None:
        self.known: dict[tuple[int, Endpoint], tuple[Endpoint, int]] = {}

    def kept(self, cookie: int, vip: Endpoint, seconds: int, now_ns: int) -> Endpoint | None:
        endpoint, used = self.known.get((cookie, Endpoint(vip.ip, vip.port)), (None, 0))
        return endpoint if now_ns - used < seconds * 1_000_000_000 else None

    def keep(self, cookie: int, vip: Endpoint, endpoint: Endpoint, now_ns: int) -> None:
        self.known[cookie, Endpoint(vip.ip, vip.port)] = endpoint, now_ns


class Addresses:
    """Those that concern the mesh, as the kernel would know them. `full`: it takes none more."""

    def __init__(self) -> None:
        self.mesh: set[IPAddress] = set()
        self.is_known = True
        """Whether those are all; of an earlier process, maybe."""

        self.full = False
        self.told = 0
        self.limit = 1000

    def tell(self, concerned: Collection[IPAddress], others: Iterable[IPAddress] = ()) -> None:
        if self.full and concerned:
            raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
        self.told += len(concerned)
        self.mesh.update(concerned)
        self.mesh.difference_update(others)

    def forget(self) -> None:
        self.is_known = False
        self.mesh.clear()

    def known(self, known: bool) -> None:
        self.is_known = known


class Kernel:
    """What the maps would hold. `full`: they take nothing more. `reached`: where SYNs arrive."""

    def __init__(self) -> None:
        self.full = False
        self.reached: set[Endpoint] = set()
        self.generations: dict[int, int] = {}
        self.verdicts: dict[tuple[int, Endpoint], Direct | Deny] = {}
        self.vips: dict[Endpoint, tuple[tuple[Endpoint, int], ...]] = {}
        self.admitted: set[tuple[Endpoint, Endpoint]] = set()
        self.held = HeldCalls()
        self.recalled: dict[tuple[int, Endpoint], Recalled] = {}
        self.reported: list[FlowRecord] = []
        self.flows: list[LiveFlow] = []
        self.counted: dict[str, int] = {"record_lost": 0}
        self.dropped_all = 0
        self.broken: OSError | None = None
        self.records_fd = self.outside_fd = -1
        self.addresses = Addresses()
        self.affinities = Affinities()
        self.left: list[OutsideCall] = []
        self.outside: list[OutsideCall] = []

    def outside_records(self, limit: int = 1024) -> list[OutsideCall]:
        taken, self.left = self.left[:limit], self.left[limit:]
        return taken

    def outside_calls(self) -> list[OutsideCall]:
        return self.outside

    def is_outside(self, socket: int) -> bool:
        return any(each.socket == socket for each in self.outside)

    def original_destination(self, cookie: int, peer: Endpoint, capture_port: int) -> Recalled | None:
        if self.broken is not None:
            raise self.broken
        return self.recalled.pop((cookie, Endpoint(peer.ip, peer.port)), None)

    def generation(self, cookie: int) -> int:
        return self.generations.get(cookie, 1)

    def bump(self, cookie: int) -> int:
        self.generations[cookie] = self.generation(cookie) + 1
        return self.generations[cookie]

    def bump_all(self) -> None:
        for cookie in {1, 2, *self.generations}:
            self.bump(cookie)

    def teach(self, source_cookie: int, destination: Endpoint, verdict: Direct | Deny) -> None:
        if self.full:
            raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
        self.verdicts[source_cookie, destination] = verdict

    def forget(self, source_cookie: int, destination: Endpoint) -> None:
        self.verdicts.pop((source_cookie, Endpoint(destination.ip, destination.port)), None)

    def serve_vip(
        self, vip: Endpoint, endpoints: Sequence[tuple[Endpoint, int]], affinity_seconds: int = 0
    ) -> None:
        self.vips[Endpoint(vip.ip, vip.port)] = tuple(endpoints)

    def drop_vip(self, vip: Endpoint) -> None:
        self.vips.pop(Endpoint(vip.ip, vip.port), None)

    def drop_vips(self) -> None:
        self.dropped_all += 1
        self.vips.clear()

    def admit(self, source: Endpoint, destination: Endpoint) -> None:
        self.admitted.add((source, destination))

    def dismiss(self, source: Endpoint, destination: Endpoint) -> None:
        self.admitted.discard((source, destination))

    def has_arrived(self, source: Endpoint, destination: Endpoint) -> bool:
        return destination in self.reached

    def records(self, limit: int = 1024) -> list[FlowRecord]:
        taken, self.reported = self.reported[:limit], self.reported[limit:]
        return taken

    def direct_flows(self) -> list[LiveFlow]:
        return self.flows

    def outcomes(self) -> dict[str, int]:
        return self.counted


class Tunnels:
    """Calls that asked for a tunnel; `unproved` are the identities without a certificate."""

    def __init__(self) -> None:
        self.calls: list[TunnelCall] = []
        self.unproved: set[SpiffeId] = set()
        self.error: Exception | None = None
        self.retried = 0

    def count_retry(self) -> None:
        self.retried += 1

    def open(self, call: TunnelCall) -> None:
        if self.error is not None:
            raise self.error
        self.calls.append(call)

    def proves(self, *identities: SpiffeId) -> bool:
        return self.unproved.isdisjoint(identities)


class Desk:
    """All that an acceptor works with; `lines` is its access log. Pods are `pod(workload, cookie)`."""

    def __init__(self, engine: Engine, sockets: Sockets, *items: Workload | Service | Policy) -> None:
        self.engine = engine
        self.sockets = sockets
        self.hold = Hold(world_of(*items))
        self.live = LiveConnections(judge_live_direct(SameNode.AUTO))
        self.lines: list[str] = []
        self.levels = Levels("info")
        self.metrics = TcpMetrics()
        self.kernel = Kernel()
        self.tunnels = Tunnels()
        self.calls = Calls()
        self.report = Report(
            self.metrics,
            self.lines.append,
            lambda: engine.now,
            time.time_ns,
            wants=lambda level: self.wants(level),
        )
        self.direct = DirectFlows(engine, self.kernel, self.hold, self.report, self.live)
        mesh = Mesh("n1", SameNode.AUTO, True, 5.0, Random(1))
        self.outbound = Outbound(
            engine, self.hold, self.report, self.kernel, self.tunnels, self.direct, mesh, self.calls
        )

    def wants(self, level: Level) -> bool:
        return self.levels.enabled("access", level)

    def pod(self, workload: Workload, cookie: int) -> PodNetwork:
        """Enrolled from now on."""
        network = PodNetwork(cookie, Here(), workload.addresses[0], None, workload.addresses)
        self.direct.pods[workload.uid] = network
        return network

    def publish(self, *upserts: Workload | Service | Policy, removed: Sequence[str] = ()) -> None:
        self.hold.publish(*apply(self.hold.world, upserts, removed, removed))

    def call(self, source: Workload, cookie: int, asked: str | Endpoint) -> socket.socket:
        """An application of that pod calls, and the kernel redirects it to the proxy."""
        listener = self.sockets.listen(str(source.addresses[0]))
        client, accepted = self.sockets.call(listener, str(source.addresses[0]))
        peer = PeerAddress(source.addresses[0], client.getsockname()[1])
        if asked:
            wanted = parse_endpoint(asked) if isinstance(asked, str) else asked
            destination = OriginalDestination(wanted.ip, wanted.port)
            self.kernel.recalled[cookie, Endpoint(peer.ip, peer.port)] = Recalled(destination, None)
        network = self.direct.pods.get(source.uid) or PodNetwork(cookie, Here(), None, None, source.addresses)
        OutboundAcceptor(self.outbound, source.uid, network).accepted(accepted, peer)
        return client

    def plain_call(self, peer: PeerAddress = PEER) -> tuple[Call, socket.socket]:
        """A call that nobody has decided about, and the application's end of it."""
        client, accepted = self.sockets.call(self.sockets.listen())
        return Call(accepted, peer, self.report, self.calls), client

    def totals(self) -> tuple[int, int]:
        """Connections opened, and closed."""
        rows = list(self.metrics.rows(0.0))
        return sum(row.opened for row in rows), sum(row.closed for row in rows)

    def bytes_of(self, reporter: str) -> tuple[int, int]:
        """Received and sent, as that end reports."""
        rows = [row for row in self.metrics.rows(0.0) if row.labels.reporter == reporter]
        return sum(row.received_bytes for row in rows), sum(row.sent_bytes for row in rows)


def journey(destination: str = "127.0.0.1:80") -> Journey:
    """Of connections of strangers."""
    return Journey(Reporter.SOURCE, parse_endpoint(destination))


def record(event: RecordEvent, flow: tuple[Endpoint, Endpoint], **changes: object) -> FlowRecord:
    """The client's record of a flow that asked for its destination and began now."""
    source, destination = cast("Endpoint", changes.pop("source", flow[0])), flow[1]
    asked = cast("Endpoint", changes.pop("asked", destination))
    fields = {
        "flow": push_tuple(source, destination),
        "way": push_way(source, destination, asked),
        "event": event,
        "role": RecordRole.CLIENT,
        "established": True,
        "time_ns": time.monotonic_ns() + 1_000_000_000,
        "duration_ns": 0,
        "cookie": 1,
        "socket": 11,
        "sent_bytes": 0,
        "srtt_us": 0,
        "retransmits": 0,
        "policy": 0,
    }
    return FlowRecord(**{**fields, **changes})


def address_of(sock: socket.socket) -> Endpoint:
    host, port = sock.getsockname()[:2]
    return Endpoint(ip_address(host), port)


def is_reset(sock: socket.socket) -> bool:
    """Whether the far end reset it; an error if it is still open."""
    try:
        return sock.recv(1) != b"" and False
    except ConnectionResetError:
        return True
