"""Pods in the laboratory of tests/kernel: real namespaces, real redirection, nobody at the other end."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from random import Random

import trio

from tests.builders import BuiltWorkload, connection, workload
from tests.flow.driving import Bugs
from tests.inbound.parts import Desk, Signer, now
from tests.kernel.lab import Kernel, Lab, unique
from ztunnel.authz.enforce import LiveConnections
from ztunnel.errors import ConnectionFailed
from ztunnel.flow.engine import Engine
from ztunnel.hbone.ledger import Ledger
from ztunnel.identity.rotate import Certificates
from ztunnel.inbound.accept import Inbound
from ztunnel.inbound.serve import Handshakes
from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.model.connection import Connection
from ztunnel.model.workload import SameNode
from ztunnel.outbound.accept import Mesh, Outbound
from ztunnel.outbound.dial import Patience, Tunnels
from ztunnel.outbound.oversee import DirectFlows
from ztunnel.pods.find import Finder, NamedNamespaces, inode_at
from ztunnel.pods.hold import Ways
from ztunnel.pods.kubelet import Place, PodName
from ztunnel.pods.repair import Reports
from ztunnel.pods.serve import Pods
from ztunnel.redirect.attach import Redirection
from ztunnel.telemetry.export import Log
from ztunnel.telemetry.figures import Figures
from ztunnel.telemetry.level import Levels
from ztunnel.telemetry.readiness import Readiness
from ztunnel.telemetry.repairs import Repairs

FWMARK = "net.ipv4.tcp_fwmark_accept"
NODE = "n1"
A = workload("a").on(NODE).hbone().at("10.77.0.2", "fd77::2")
B = workload("b").on(NODE).hbone().at("10.77.0.3", "fd77::3")


NAMED = NamedNamespaces("/run/netns/{name}")


def place_of(lab: Lab, which: str) -> Place:
    """Where the namespace of pod `a` or `b` is."""
    return place_at(f"/run/netns/{lab.names[which]}")


def place_at(path: str) -> Place:
    """The namespace there; 0 where none is."""
    return Place(path, inode_at(path) or 0)


class Scratch:
    """A namespace that comes and goes, with an address or more. Use as a context manager."""

    def __init__(self, *addresses: str) -> None:
        self.name = unique()
        self.addresses = addresses
        self.path = f"/run/netns/{self.name}"

    def add(self) -> None:
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        self.ip("link", "set", "lo", "up")
        self.ip("link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
        self.ip("link", "set", "eth0", "up")
        for address in self.addresses:
            self.address("add", address)

    def address(self, what: str, address: str) -> None:
        self.ip(
            "addr", what, address, "dev", "eth0", *(["nodad"] if what == "add" and ":" in address else [])
        )

    def ip(self, *words: str) -> None:
        subprocess.run(["ip", "-n", self.name, *words], check=True)

    def delete(self) -> None:
        subprocess.run(["ip", "netns", "del", self.name], check=False, stderr=subprocess.DEVNULL)

    @property
    def place(self) -> Place:
        return place_at(self.path)

    def open(self) -> NetworkNamespace:
        return NetworkNamespace.open(self.path)

    def __enter__(self) -> Scratch:
        self.add()
        return self

    def __exit__(self, *_: object) -> None:
        self.delete()


@contextmanager
def port_taken(name: str) -> Iterator[int]:
    """A process of this namespace listens on 15008; its id."""
    code = "import socket,sys; s=socket.create_server(('',15008)); print(flush=True); sys.stdin.read()"
    words = ["ip", "netns", "exec", name, sys.executable, "-c", code]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdin
        process.stdout.readline()
        yield process.pid
        process.stdin.close()


class Lines:
    """Takes the lines of a log."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def put(self, line: str, urgent: bool = False) -> bool:
        self.lines.append(line)
        return True

    def about(self, text: str) -> list[str]:
        return [line for line in self.lines if text in line]


class Looks:
    """Counts how often it is said which pods have to wait."""

    misses = 0
    trouble = ""

    def __init__(self) -> None:
        self.count = 0

    def look(self, *given: object) -> None:
        self.count += 1

    def enrolled(self, pod: str) -> bool:
        return False

    def ended(self) -> list[PodName]:
        return []


class Node:
    """All parts of a node proxy that pods are served by, on the redirection of a laboratory."""

    def __init__(
        self, redirection: Redirection, template: str, *world: BuiltWorkload, find: Finder | None = None
    ) -> None:
        self.bugs = Bugs()
        self.engine = Engine(self.bugs)
        self.desk = Desk(self.engine, *world)
        self.redirection = redirection
        desk, ledger, mesh = self.desk, Ledger(), Mesh(NODE, SameNode.AUTO, True, 5.0, Random(1))
        self.certificates = Certificates(Signer(), now, Random(1))
        tunnels = Tunnels(self.engine, ledger, self.certificates, now, Patience())
        report = desk.inbound.report
        self.direct = DirectFlows(self.engine, redirection, desk.hold, report, LiveConnections())
        self.outbound = Outbound(self.engine, desk.hold, report, redirection, tunnels, self.direct, mesh)
        self.inbound = Inbound(self.engine, desk.hold, desk.live, report, desk.inbound.turns)
        self.handshakes = Handshakes(self.inbound, ledger, self.certificates, now)
        self.ways = Ways(self.outbound, self.inbound, self.handshakes, self.certificates)
        self.log = Lines()
        self.readiness = Readiness()
        log = Log(self.log, Levels(), time.time_ns)  # type: ignore[arg-type]
        self.figures = Figures()
        self.repairs = Repairs(self.figures, log.warn, trio.current_time)
        reports = Reports(log, self.readiness, self.repairs)
        self.starting = Looks()
        self.pods = Pods(
            self.ways,
            find or NamedNamespaces(template),
            reports,
            starting=self.starting,  # type: ignore[arg-type]
        )
        self.pods.register(self.figures)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.pods.run)
            yield
            nursery.cancel_scope.cancel()
        assert not self.bugs

    @property
    def state(self) -> dict[str, str]:
        """Each pod's state by its name."""
        return {uid.rpartition("/")[2]: str(shown["state"]) for uid, shown in self.pods.dump().items()}

    @property
    def wanted(self) -> list[str]:
        """The accounts whose certificates are wanted, in order of name."""
        return sorted(each.identity.service_account for each in self.certificates.expiring())

    def close(self) -> None:
        self.engine.close()


def node_of(kernel: Kernel, *world: BuiltWorkload) -> Node:
    """Pods `a` and `b` of the laboratory."""
    return Node(kernel.redirection, f"/run/netns/{kernel.lab.name}-{{name}}", *world)


def made(nodes: ExitStack, kernel: Kernel, *world: BuiltWorkload) -> Node:
    node = node_of(kernel, *world)
    nodes.callback(node.close)
    return node


def is_served(kernel: Kernel, node: Node, which: str = "a") -> bool:
    """Whether a call from the pod is captured and taken up: we, who are exempt, find nobody at its port."""
    client = kernel.socket(getattr(kernel.lab, which), "10.77.0.3")
    try:
        client.connect(("10.77.0.3", 9))
    except ConnectionRefusedError:
        return False
    lines = len(node.desk.lines)
    with client, kernel.lab.in_cgroup("proxy"):
        for _ in range(100):
            node.engine.round(0.01)
            if len(node.desk.lines) > lines:
                return True
    return False


@dataclass(eq=False)
class Open:
    """A live connection to a pod."""

    node: Node
    workload_uid: str
    connection: Connection = field(default_factory=lambda: connection("10.0.0.1", "10.77.0.2:80"))
    ended: list[ConnectionFailed] = field(default_factory=list)

    def abort(self, error: ConnectionFailed) -> None:
        self.ended.append(error)
        self.node.desk.live.unregister(self)


def served(nodes: ExitStack, kernel: Kernel, scratch: Scratch) -> tuple[BuiltWorkload, Node]:
    """The pod of a namespace of its own, and a node that serves it; closed with `nodes`."""
    addresses = (each.partition("/")[0] for each in scratch.addresses)
    pod = A.identified_by("Kubernetes//Pod/default/s").at(*addresses)
    node = Node(kernel.redirection, scratch.path, pod)
    nodes.callback(node.close)
    return pod, node
