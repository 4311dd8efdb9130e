"""The way into a pod on real sockets; what the kernel would be told is written down."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from tests.builders import world_of
from tests.identity.builders import PEM, Authority, Leaf
from ztunnel.authz.enforce import LiveConnections
from ztunnel.flow.engine import Engine
from ztunnel.flow.turn import Turns
from ztunnel.identity import csr
from ztunnel.inbound.accept import PLAIN_RATE, Inbound
from ztunnel.kernel.netns import NetworkNamespace, current
from ztunnel.model.address import Endpoint, PeerAddress
from ztunnel.model.identity import SpiffeId
from ztunnel.model.policy import Policy
from ztunnel.model.service import Service
from ztunnel.model.workload import Workload
from ztunnel.redirect.enroll import PodNetwork
from ztunnel.state.delta import apply
from ztunnel.state.hold import Hold
from ztunnel.telemetry.metrics import TcpMetrics
from ztunnel.telemetry.report import Report


def now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class _PublicOnly:
    half: object

    def public_key(self) -> object:
        return self.half


class Signer:
    """A certificate source with a root of its own; `error` is what it answers instead, if set."""

    def __init__(self) -> None:
        self.root = Authority.root("mesh")
        self.error: Exception | None = None

    def leaf(self, identity: SpiffeId) -> Leaf:
        return Leaf(begin=now() - timedelta(minutes=2), end=now() + timedelta(hours=1)).named(identity)

    async def create(self, csr_pem: str, identity: SpiffeId, ttl_seconds: float) -> Sequence[str]:
        if self.error is not None:
            raise self.error
        leaf = self.leaf(identity).but(key=_PublicOnly(csr.parse(csr_pem).public_key))
        return [leaf.signed_by(self.root).public_bytes(PEM).decode(), self.root.pem]


@dataclass
class Pod:
    """A pod of this machine's own namespace: its addresses are loopback addresses."""

    uid: str
    network: PodNetwork
    serving: bool = True


class Desk:
    """All that an acceptor works with; `lines` is its access log."""

    def __init__(self, engine: Engine, *items: Workload | Service | Policy) -> None:
        self.hold = Hold(world_of(*items))
        self.live = LiveConnections()
        self.hold.subscribe(lambda _, world, change: void(self.live.rejudge(world, change)))
        self.lines: list[str] = []
        self.metrics = TcpMetrics()
        report = Report(self.metrics, self._write, lambda: engine.now, time.time_ns)
        self.inbound = Inbound(engine, self.hold, self.live, report, Turns(engine, PLAIN_RATE))

    def _write(self, line: str) -> None:
        if "connection opened" not in line:
            self.lines.append(line)

    def publish(self, *upserts: Workload | Service | Policy, removed: Sequence[str] = ()) -> None:
        self.hold.publish(*apply(self.hold.world, upserts, removed))

    def totals(self) -> tuple[int, int]:
        """Connections opened, and closed."""
        rows = list(self.metrics.rows(0.0))
        return sum(row.opened for row in rows), sum(row.closed for row in rows)


def void(_: object) -> None:
    """For callbacks whose result nobody wants."""


@dataclass
class Sockets:
    """Sockets and namespaces that are closed at the end of a test."""

    stack: ExitStack = field(default_factory=ExitStack)

    def keep(self, sock: socket.socket) -> socket.socket:
        return self.stack.enter_context(sock)

    def listen(self, host: str = "127.0.0.1", port: int = 0, backlog: int = 64) -> socket.socket:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = self.keep(socket.socket(family))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(backlog)
        listener.setblocking(False)
        return listener

    def call(self, listener: socket.socket, source: str = "127.0.0.9") -> tuple[socket.socket, socket.socket]:
        """A client's socket, and what the listener accepted of it; both non-blocking."""
        client = self.keep(socket.socket(listener.family))
        client.bind((source, 0))
        client.connect(listener.getsockname())
        accepted, _ = listener.accept()
        for sock in (client, accepted):
            sock.setblocking(False)
        return client, self.keep(accepted)

    def full(self, host: str = "127.0.0.1") -> socket.socket:
        """A listener whose application never accepts: its backlog is full."""
        listener = self.listen(host, backlog=0)
        filler = self.keep(socket.socket(listener.family))
        filler.connect(listener.getsockname())
        return listener

    def pod(self, workload: Workload, *addresses: str) -> Pod:
        netns: NetworkNamespace = self.stack.enter_context(current())
        ips = tuple(map(ip_address, addresses or ("127.0.0.1",)))
        return Pod(workload.uid, PodNetwork(netns.cookie, netns, None, None, ips))


def end_of(sock: socket.socket) -> Endpoint:
    """Its local end."""
    host, port = sock.getsockname()[:2]
    return Endpoint(ip_address(host), port)


def peer_of(sock: socket.socket) -> PeerAddress:
    """Its remote end."""
    host, port = sock.getpeername()[:2]
    return PeerAddress(ip_address(host), port)
