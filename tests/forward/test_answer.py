"""What callers see of a pod that forwards: a reset, or a connection, both at once."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from tests.builders import policy, strict, workload
from tests.flow.driving import Bugs, drive
from tests.inbound.parts import Desk
from tests.kernel.behind import Behind
from tests.kernel.lab import Kernel, Lab
from ztunnel.flow.engine import Engine
from ztunnel.forward.answer import Forwarding
from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.kernel.wire import Wires
from ztunnel.redirect.enroll import PodNetwork
from ztunnel.telemetry.figures import Figures

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

A = workload("a").hbone().at("10.77.0.2", "fd77::2")
B = workload("b").hbone().at("10.77.0.3", "fd77::3")
OWN = ["10.77.0.3", "fd77::3"]
NOBODY, STRICT = policy("nobody"), strict()


@pytest.fixture(scope="module")
def behind(lab: Lab) -> Iterator[Behind]:
    with Behind(lab) as behind:
        yield behind


class Forwarder:
    """Pod `b`, enrolled, and who answers for it."""

    def __init__(self, kernel: Kernel, behind: Behind) -> None:
        self.kernel, self.behind = kernel, behind
        self.bugs = Bugs()
        self.engine = Engine(self.bugs)
        self.desk = Desk(self.engine, A, B)
        self.pod: PodNetwork = kernel.lab.pod("b")
        self.pods = {B.uid: self.pod}
        self.desk.hold.subscribe(lambda *_: self._void())
        report = self.desk.inbound.report
        self.forwarding = Forwarding(self.engine, kernel.redirection, self.desk.hold, report, self.pods)
        self.forwarding.wires = Wires(lambda: NetworkNamespace.open(f"/run/netns/{kernel.lab.names['n']}"))
        self.figures = Figures()
        self.forwarding.register(self.figures)
        self.forwarding.watch()
        kernel.redirection.enroll(self.pod)

    def _void(self) -> None:
        self.kernel.redirection.bump(self.pod.cookie)

    def call(self, netns: NetworkNamespace, host: str, port: int) -> socket.socket | OSError:
        """A connection, driven until it stands or has failed."""
        self.kernel.redirection.renew_lease(time.monotonic_ns())
        sock = self.kernel.keep(
            netns.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        )
        sock.setblocking(False)
        sock.connect_ex((host, port))
        outcome: list[int] = []

        def settled() -> bool:
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            try:
                sock.getpeername()
                outcome.append(0)
            except OSError:
                if error:
                    outcome.append(error)
            return bool(outcome)

        drive(self.engine, until=settled)
        return OSError(outcome[0], "") if outcome[0] else sock

    def counted(self) -> dict[tuple[str, ...], float]:
        return {
            labels[2:]: number
            for family in self.figures.families()
            if family.name == "ztunnel_forwarded_total"
            for labels, number in family.samples
        }


@pytest.fixture
def forwarder(kernel: Kernel, behind: Behind) -> Iterator[Forwarder]:
    forwarder = Forwarder(kernel, behind)
    yield forwarder
    forwarder.engine.close()
    forwarder.forwarding.wires.close()
    assert not forwarder.bugs


def carries(forwarder: Forwarder, app: socket.socket, client: socket.socket | OSError) -> bool:
    assert isinstance(client, socket.socket)
    server, _ = forwarder.kernel.accept(app)
    client.setblocking(True)
    client.sendall(b"up")
    return server.recv(9) == b"up"


@pytest.mark.parametrize("host", OWN)
def test_what_policy_allows_stands_at_once_the_first_time_too(forwarder: Forwarder, host) -> None:
    app = forwarder.kernel.listen(forwarder.behind.netns, 8080)
    begun = time.monotonic()
    clients = [forwarder.call(forwarder.kernel.lab.a, host, 9090) for _ in range(2)]
    assert time.monotonic() - begun < 0.8  # no SYN was sent again: that takes a second
    assert all(carries(forwarder, app, client) for client in clients)
    assert forwarder.counted() == {("inbound", "admitted"): 1}
    assert forwarder.desk.lines == []


@pytest.mark.parametrize("host", OWN)
def test_where_the_first_syn_cannot_be_sent_on_the_second_stands(forwarder: Forwarder, host) -> None:
    """The other end of the pod's interface is in another namespace, as with macvlan."""
    forwarder.forwarding.wires.close()
    forwarder.forwarding.wires = Wires()
    app = forwarder.kernel.listen(forwarder.behind.netns, 8080)
    begun = time.monotonic()
    assert carries(forwarder, app, forwarder.call(forwarder.kernel.lab.a, host, 9090))
    assert time.monotonic() - begun > 0.8
    assert forwarder.counted() == {("inbound", "admitted"): 1}


@pytest.mark.parametrize("host", OWN)
@pytest.mark.parametrize("rule", [STRICT, NOBODY], ids=["strict", "nobody"])
def test_what_policy_refuses_is_reset_at_once_and_logged(forwarder: Forwarder, host, rule) -> None:
    forwarder.kernel.listen(forwarder.behind.netns, 8080)
    forwarder.desk.publish(rule, B.selected_by(*([rule] if rule is STRICT else [])))
    begun = time.monotonic()
    refused = forwarder.call(forwarder.kernel.lab.a, host, 9090)
    assert isinstance(refused, OSError)
    assert isinstance(OSError(refused.errno, ""), ConnectionRefusedError)
    assert time.monotonic() - begun < 0.5
    assert forwarder.counted() == {("inbound", "refused"): 1}
    (line,) = forwarder.desk.lines
    called = f"[{host}]:9090" if ":" in host else f"{host}:9090"
    assert f"dst.addr={called}" in line
    assert 'direction="inbound"' in line
    assert "policy" in line


@pytest.mark.parametrize("host", ["10.77.0.2", "fd77::2"])
def test_outwards_a_call_is_refused_at_once_and_logged(forwarder: Forwarder, host) -> None:
    there = forwarder.kernel.listen(forwarder.kernel.lab.a, 0)
    port = there.getsockname()[1]
    begun = time.monotonic()
    refused = forwarder.call(forwarder.behind.netns, host, port)
    assert isinstance(refused, OSError)
    assert isinstance(OSError(refused.errno, ""), ConnectionRefusedError)
    assert time.monotonic() - begun < 0.5
    assert forwarder.counted() == {("outbound", "refused"): 1}
    (line,) = forwarder.desk.lines
    assert 'direction="outbound"' in line
    assert 'src.workload="b"' in line
    assert 'dst.workload="a"' in line
    assert "ztunnel.io/forwarding" in line


@pytest.mark.parametrize("host", OWN)
@pytest.mark.parametrize("speaks", ["opener", "other"])
def test_a_change_of_policy_resets_what_it_refuses_at_both_ends(forwarder: Forwarder, host, speaks) -> None:
    app = forwarder.kernel.listen(forwarder.behind.netns, 8080)
    client = forwarder.call(forwarder.kernel.lab.a, host, 9090)
    assert isinstance(client, socket.socket)
    server, _ = forwarder.kernel.accept(app)
    client.setblocking(True)
    server.sendall(b"down")
    assert client.recv(9) == b"down"
    forwarder.desk.publish(NOBODY)
    server.setblocking(False)
    client.setblocking(False)
    (client if speaks == "opener" else server).sendall(b"late")

    def is_reset(sock: socket.socket) -> bool:
        try:
            assert sock.recv(9) not in (b"late", b"")
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True
        return False

    ended: set[int] = set()

    def both() -> bool:
        ended.update(
            each.fileno() for each in (client, server) if each.fileno() not in ended and is_reset(each)
        )
        return len(ended) == 2

    drive(forwarder.engine, until=both)
    forwarder.desk.publish(removed=[])
    assert forwarder.counted()["inbound", "refused"] >= 1


def test_a_change_that_refuses_nothing_costs_nothing_but_a_question(forwarder: Forwarder) -> None:
    app = forwarder.kernel.listen(forwarder.behind.netns, 8080)
    client = forwarder.call(forwarder.kernel.lab.a, "10.77.0.3", 9090)
    assert isinstance(client, socket.socket)
    server, _ = forwarder.kernel.accept(app)
    forwarder.desk.publish(policy("p").when(destination_ports=[9090]))
    client.sendall(b"on")
    server.setblocking(False)
    got: list[bytes] = []

    def arrived() -> bool:
        try:
            got.append(server.recv(9))
        except BlockingIOError:
            return False
        return True

    drive(forwarder.engine, until=arrived)
    assert got == [b"on"]
    assert forwarder.counted() == {("inbound", "admitted"): 2}


def test_a_pod_that_has_left_the_world_forwards_nothing(forwarder: Forwarder) -> None:
    forwarder.kernel.listen(forwarder.behind.netns, 8080)
    forwarder.desk.publish(removed=[B.uid])
    assert isinstance(forwarder.call(forwarder.kernel.lab.a, "10.77.0.3", 9090), OSError)
    assert "left the mesh" in forwarder.desk.lines[-1]


def test_what_is_told_of_a_pod_that_is_no_longer_enrolled_is_let_be(forwarder: Forwarder) -> None:
    forwarder.pods.clear()
    with forwarder.behind.netns.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.connect_ex((str(ip_address("10.77.0.2")), 9))
        drive(forwarder.engine, until=lambda: not forwarder.kernel.redirection.forwards.records())
    assert forwarder.counted() == {}
