"""Pods in namespaces of their own with Istio's rules, and all that serves them, in this process."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from random import Random
from types import TracebackType

from prometheus_client import generate_latest

from tests.builders import BuiltWorkload, workload
from tests.flow.driving import Bugs
from tests.inbound.parts import Desk, Signer, now
from tests.mesh.cni import redirect
from tests.pods.parts import Lines, Scratch
from ztunnel.errors import Drained
from ztunnel.flow.engine import Engine
from ztunnel.hbone.ledger import Ledger
from ztunnel.identity.rotate import Certificates
from ztunnel.inbound.serve import Handshakes
from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.kernel.sockets import Listening
from ztunnel.model.workload import SameNode
from ztunnel.outbound.accept import Mesh, Outbound
from ztunnel.outbound.find import Patience, Tunnels
from ztunnel.pods.hold import Ways
from ztunnel.pods.repair import Reports
from ztunnel.telemetry.export import Log
from ztunnel.telemetry.figures import Figures
from ztunnel.telemetry.level import Levels
from ztunnel.telemetry.readiness import Readiness
from ztunnel.telemetry.repairs import Repairs
from ztunnel.xds.pb import zds_pb2
from ztunnel.zds.affinity import AffinityTable
from ztunnel.zds.connect import Packet
from ztunnel.zds.message import Named
from ztunnel.zds.serve import AgentPods, Inside

NODE, MARK = "n1", 1337
WEB = workload("web").on(NODE).hbone().at("10.78.0.2", "fd78::2")
NAMED = Named(WEB.name, WEB.namespace, WEB.service_account)
SHARED = Listening(shared=True, transparent=True)


class Pod(Scratch):
    """A namespace with both families; with `rules` Istio's."""

    def __init__(self, *addresses: str, rules: bool = True) -> None:
        super().__init__(*(addresses or ("10.78.0.2/24", "fd78::2/64")))
        self.rules = rules

    def add(self) -> None:
        super().add()
        # To addresses that nobody has: the calls of applications are redirected before they would leave.
        self.ip("route", "add", "default", "dev", "eth0")
        self.ip("-6", "route", "add", "default", "dev", "eth0")
        if self.rules:
            redirect(self.path)

    def marked(self) -> NetworkNamespace:
        return NetworkNamespace(os.open(self.path, os.O_RDONLY | os.O_CLOEXEC), self.path, MARK)


class Served:
    """All parts of a node proxy but the agent. Use as a context manager."""

    def __init__(self, *world: BuiltWorkload) -> None:
        self.bugs = Bugs()
        self.engine = Engine(self.bugs)
        self.desk = desk = Desk(self.engine, *world)
        ledger, report = Ledger(), desk.inbound.report
        mesh = Mesh(NODE, SameNode.AUTO, False, 5.0, Random(1))
        self.certificates = Certificates(Signer(), now, Random(1))
        self.asked: list[object] = []
        tunnels = Tunnels(self.engine, ledger, self.certificates, Patience(), self._ask)
        self.outbound = Outbound(
            self.engine, desk.hold, report, None, tunnels, None, mesh, memory=AffinityTable()
        )
        handshakes = Handshakes(desk.inbound, ledger, self.certificates, now)
        self.ways = Ways(self.outbound, desk.inbound, handshakes, self.certificates)
        self.log, self.readiness, self.figures = Lines(), Readiness(), Figures()
        log = Log(self.log, Levels(), time.time_ns)  # type: ignore[arg-type]
        repairs = Repairs(self.figures, log.warn, time.monotonic)
        self.pods = AgentPods(self.ways, NODE, Reports(log, self.readiness, repairs), Inside(SHARED, MARK))
        self.pods.register(self.figures)

    def _ask(self, key: object, network: object) -> bool:
        self.asked.append(key)
        return True

    def take(self, message: bytes, *descriptors: int) -> str:
        """What the agent is answered; descriptors stay the caller's."""
        with Packet(message, [os.dup(each) for each in descriptors]) as packet:
            answer = self.pods.take(packet)
        return str(zds_pb2.WorkloadResponse.FromString(answer).ack.error)

    def rounds(self, holds: Callable[[], object]) -> None:
        """Drive the engine until something is so."""
        for _ in range(500):
            if holds():
                return
            self.engine.round(0.01)
        raise AssertionError(f"never; the lines so far: {self.desk.lines}")

    def refused(self, text: str) -> None:
        """A line with this comes."""
        self.rounds(lambda: any(text in line for line in self.desk.lines))

    def figure(self, name: str) -> float:
        """A sample without labels."""
        text = generate_latest(self.figures).decode()
        [value] = [line.split()[1] for line in text.splitlines() if line.startswith(f"{name} ")]
        return float(value)

    def __enter__(self) -> Served:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.outbound.calls.abort(Drained("the test is over"))
        self.engine.close()
        assert not self.bugs


def caller(pod: Pod, address: str, port: int) -> socket.socket:
    """An application of the pod that calls somebody; the connection is made with our listener."""
    with pod.open() as there:
        sock = there.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    sock.settimeout(5)
    try:
        sock.connect((address, port))
    except OSError:
        sock.close()
        raise
    return sock
