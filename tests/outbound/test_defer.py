"""Connects that wait for the far end's answer: let in, refused, given up; each once."""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import dataclass, field

import pytest

from tests.builders import service, workload
from tests.flow.driving import Clock, drive
from tests.inbound.parts import Sockets
from tests.outbound.parts import Desk, Here, address_of, is_reset
from tests.redirect.test_syn import syn
from ztunnel.errors import ConnectionFailed, Drained, Unreachable
from ztunnel.flow.accept import Acceptor
from ztunnel.flow.engine import Engine
from ztunnel.kernel.sockets import keep_syns
from ztunnel.model.address import Endpoint, OriginalDestination, PeerAddress, parse_endpoint
from ztunnel.outbound.accept import OutboundAcceptor
from ztunnel.outbound.defer import WaitingCalls
from ztunnel.redirect.enroll import PodNetwork
from ztunnel.redirect.held import HeldCall
from ztunnel.redirect.layout import Recalled, push_caller
from ztunnel.redirect.syn import answer, whole

CLIENT = workload("client").at("127.0.0.9").on("n1").hbone()
WEB = service("web").at("10.96.0.1").port(80, 8080)
FAR = workload("far").at("127.0.1.1").on("n2").hbone().serves(WEB)
NEAR = workload("near").at("127.0.0.2").on("n1").hbone()
OUTSIDE = parse_endpoint("127.0.3.1:80")
SYN = syn((socket.inet_aton("127.0.0.9"), socket.inet_aton("127.0.0.9")))


@dataclass
class Raw:
    """What was sent in the pod. `broken`: nothing can be."""

    sent: list[bytes] = field(default_factory=list)
    broken: bool = False
    closed: bool = False

    def sendto(self, packet: bytes, address: tuple[str, int]) -> None:
        if self.broken:
            raise OSError(errno.ENETDOWN, "down")
        assert address == ("127.0.0.9", 0)
        self.sent.append(packet)

    def close(self) -> None:
        self.closed = True


class Pod(Here):
    def __init__(self, raw: Raw) -> None:
        super().__init__()
        self._raw = raw

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        if kind == socket.SOCK_RAW:
            return self._raw  # type: ignore[return-value]
        return super().socket(family, kind, protocol)


def of_pod(cookie: int, held: HeldCall) -> HeldCall:
    """The same of another pod."""
    return HeldCall(held.caller, cookie, held.peer, held.gave_up, held.destination, held.syn)


class Case:
    """A pod whose applications call; each connect waits."""

    def __init__(self, engine: Engine, sockets: Sockets) -> None:
        self.desk = Desk(engine, sockets, CLIENT, FAR, NEAR, WEB)
        self.engine, self.sockets = engine, sockets
        self.raw = Raw()
        network = PodNetwork(1, Pod(self.raw), CLIENT.addresses[0], None, CLIENT.addresses)
        self.desk.direct.pods[CLIENT.uid] = network
        self.desk.pod(NEAR, 2)
        self.acceptor = OutboundAcceptor(self.desk.outbound, CLIENT.uid, network)
        self.listener = sockets.listen("127.0.0.9")
        self.waiting = WaitingCalls(engine, self.desk.kernel.held, self.desk.outbound.takers)

    def held(self, asked: str | Endpoint, port: int = 40000) -> HeldCall:
        wanted = parse_endpoint(asked) if isinstance(asked, str) else asked
        peer = PeerAddress(CLIENT.addresses[0], port)
        packed = repr(wanted).encode()
        self.desk.kernel.held.destinations[packed] = Recalled(
            OriginalDestination(wanted.ip, wanted.port), None
        )
        at = self.listener.getsockname()[1]
        return HeldCall(push_caller(1, peer, at), 1, peer, False, packed, SYN)

    def call(self, asked: str | Endpoint, port: int = 40000) -> HeldCall:
        """An application calls from that port."""
        held = self.held(asked, port)
        self.acceptor.held(held)
        return held

    def give_up(self, held: HeldCall) -> None:
        gone = HeldCall(held.caller, held.cookie, held.peer, True, held.destination, b"")
        self.acceptor.held(gone)

    def arrive(self, port: int) -> socket.socket:
        """Its SYN was sent on, and the connection stands; the application's end of it."""
        client = self.sockets.keep(socket.socket())
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.bind(("127.0.0.9", port))
        client.connect(self.listener.getsockname())
        accepted, _ = self.listener.accept()
        accepted.setblocking(False)
        self.acceptor.accepted(accepted, PeerAddress(CLIENT.addresses[0], port))
        return client

    def free_port(self) -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.9", 0))
            return probe.getsockname()[1]

    @property
    def lines(self) -> list[str]:
        return self.desk.lines


@pytest.fixture
def case(engine: Engine, sockets: Sockets) -> Case:
    return Case(engine, sockets)


def test_a_plain_call_is_let_in_when_the_far_end_stands(case: Case) -> None:
    server = case.sockets.listen("127.0.3.1")
    port = case.free_port()
    held = case.call(address_of(server), port)
    assert case.raw.sent == []
    drive(case.engine, until=lambda: case.raw.sent)
    assert case.raw.sent == [whole(held.syn)]
    far = case.sockets.keep(server.accept()[0])
    far.sendall(b"a server speaks first")
    client = case.arrive(port)
    drive(case.engine)
    assert client.recv(99) == b"a server speaks first"
    client.sendall(b"up")
    drive(case.engine)
    assert far.recv(9) == b"up"
    assert not case.acceptor.expects
    for sock in (client, far):
        sock.close()
    drive(case.engine, until=lambda: not len(case.desk.calls))
    assert len(case.lines) == 1
    assert "error" not in case.lines[0]
    assert case.desk.totals() == (1, 1)


def test_who_is_let_in_is_taken_up_in_the_same_round(case: Case) -> None:
    """By then the handshake is over: to be told of it would take another round."""
    servers = [case.sockets.listen("127.0.3.1") for _ in range(3)]
    ports = [case.free_port() for _ in servers]
    clients: list[socket.socket] = []

    def connects(packet: bytes, address: tuple[str, int]) -> None:
        client = case.sockets.keep(socket.socket())
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.bind(("127.0.0.9", ports[len(clients)]))
        client.connect(case.listener.getsockname())
        clients.append(client)

    case.raw.sendto = connects  # type: ignore[method-assign] (the moment in which it is sent)
    acceptor = Acceptor(case.engine, case.listener, case.acceptor.accepted)
    case.acceptor.take_from(acceptor.accept_now)
    for server, port in zip(servers, ports, strict=True):
        case.call(address_of(server), port)
    while not clients:
        case.engine.round()
    assert not case.acceptor.expects
    for server, client in zip(servers, clients, strict=True):
        far = case.sockets.keep(server.accept()[0])
        far.sendall(b"hello")
        drive(case.engine)
        assert client.recv(9) == b"hello"
        far.close()
        client.close()
    drive(case.engine, until=lambda: not len(case.desk.calls))
    acceptor.close()


@pytest.mark.parametrize("kept", [True, False])
def test_whose_connection_it_is_is_known_by_its_syn_and_without(case: Case, kept: bool) -> None:
    """Of two calls from one port, to two destinations, one comes."""
    servers = [case.sockets.listen("127.0.3.1") for _ in range(2)]
    port, at = case.free_port(), case.listener.getsockname()[1]
    if kept:
        keep_syns(case.listener)
    helds = [case.held(address_of(server), port) for server in servers]
    for held, capture in zip(helds, (at + 1, at), strict=True):
        held.caller = push_caller(1, held.peer, capture)
        ports = port.to_bytes(2, "big") + capture.to_bytes(2, "big")
        held.syn = held.syn[:20] + ports + held.syn[24:]
        case.acceptor.held(held)
    drive(case.engine, until=lambda: len(case.raw.sent) == 2)
    client = case.arrive(port)
    client.sendall(b"to the second")
    far = case.sockets.keep(servers[1].accept()[0])
    drive(case.engine)
    assert far.recv(99) == b"to the second"
    case.acceptor.hand_over()
    client.close()
    far.close()
    drive(case.engine, until=lambda: not len(case.desk.calls))


def test_who_is_not_there_yet_is_told_of(case: Case) -> None:
    server = case.sockets.listen("127.0.3.1")
    port = case.free_port()
    acceptor = Acceptor(case.engine, case.listener, case.acceptor.accepted)
    case.acceptor.take_from(acceptor.accept_now)
    case.call(address_of(server), port)
    drive(case.engine, until=lambda: case.raw.sent)
    assert case.acceptor.expects
    client = case.sockets.keep(socket.socket())
    client.bind(("127.0.0.9", port))
    client.connect(case.listener.getsockname())
    drive(case.engine, until=lambda: not case.acceptor.expects)
    server.accept()[0].close()
    client.close()
    drive(case.engine, until=lambda: not len(case.desk.calls))
    acceptor.close()


def test_a_plain_call_that_is_refused_is_refused(case: Case) -> None:
    server = case.sockets.listen("127.0.3.1")
    nobody = address_of(server)
    server.close()
    held = case.call(nobody)
    drive(case.engine, until=lambda: case.raw.sent)
    assert case.raw.sent == [answer(held.syn, errno.ECONNREFUSED)]
    assert "Connection refused" in case.lines[0]
    assert case.desk.totals() == (1, 1)
    case.give_up(held)  # the kernel tells of the end as well
    assert len(case.lines) == len(case.raw.sent) == 1


def test_a_call_that_has_nowhere_to_go_is_refused(case: Case) -> None:
    case.desk.publish(FAR.unhealthy())
    held = case.call("10.96.0.1:80")
    assert case.raw.sent == [answer(held.syn, errno.ECONNREFUSED)]
    assert "no healthy upstream" in case.lines[0]
    assert len(case.desk.calls) == 0


def test_a_pod_that_has_left_the_mesh_is_refused(case: Case) -> None:
    case.desk.publish(removed=[CLIENT.uid])
    held = case.call("10.96.0.1:80")
    assert case.raw.sent == [answer(held.syn, errno.ECONNREFUSED)]
    assert "it has left the mesh" in case.lines[0]


def test_a_failure_tells_its_errno(case: Case) -> None:
    held = case.call("10.96.0.1:80")
    (call,) = case.desk.tunnels.calls
    failed = Unreachable("no route")
    failed.errno = errno.EHOSTUNREACH
    call.abort(failed)
    assert case.raw.sent == [answer(held.syn, errno.EHOSTUNREACH)]


def test_an_application_that_gives_up_ends_its_call(case: Case) -> None:
    held = case.call("10.96.0.1:80")
    (call,) = case.desk.tunnels.calls
    assert call.still_wants()
    case.give_up(held)
    case.give_up(held)
    assert not call.still_wants()
    assert case.raw.sent == []
    assert "the application closed before" in case.lines[0]
    assert len(case.lines) == 1
    assert len(case.desk.calls) == 0


def test_a_port_that_calls_anew_ends_the_call_before(case: Case) -> None:
    case.call("10.96.0.1:80")
    case.call("10.96.0.1:80")
    first, second = case.desk.tunnels.calls
    assert (first.still_wants(), second.still_wants()) == (False, True)
    assert len(case.lines) == 1
    second.abort(Drained("over"))


def test_a_connection_that_comes_before_the_answer_is_kept_for_it(case: Case) -> None:
    """Somebody of the pod has sent the packet on: as good as a call that did not wait."""
    port = case.free_port()
    case.call("10.96.0.1:80", port)
    client = case.arrive(port)
    (call,) = case.desk.tunnels.calls
    assert call.call.opener is not None
    call.abort(Drained("over"))
    assert is_reset(client)


def test_what_is_not_accepted_is_sent_again_and_given_up_in_the_end(case: Case, clock: Clock) -> None:
    server = case.sockets.listen("127.0.3.1")
    held = case.call(address_of(server))
    drive(case.engine, until=lambda: case.raw.sent)
    far = case.sockets.keep(server.accept()[0])
    for count in range(2, 6):
        clock.move(1.1)
        drive(case.engine)
        assert case.raw.sent == [whole(held.syn)] * count
    clock.move(1.1)
    drive(case.engine)
    assert len(case.raw.sent) == 5
    assert is_reset(far)
    assert len(case.desk.calls) == 0
    clock.move(5)
    drive(case.engine)
    assert len(case.raw.sent) == 5


def test_a_call_that_ends_after_its_syn_was_sent_on_is_reset_when_it_comes(case: Case) -> None:
    server = case.sockets.listen("127.0.3.1")
    port = case.free_port()
    case.call(address_of(server), port)
    drive(case.engine, until=lambda: case.raw.sent)
    far = case.sockets.keep(server.accept()[0])
    case.desk.calls.abort(Drained("over"))
    assert is_reset(far)
    assert is_reset(case.arrive(port))
    assert len(case.raw.sent) == 1
    assert len(case.lines) == 1


def test_who_waits_when_the_pod_leaves_the_mesh_is_let_in_at_once(case: Case) -> None:
    port = case.free_port()
    held = case.call("10.96.0.1:80", port)
    case.acceptor.let_in()
    case.acceptor.let_in()
    assert case.raw.sent == [whole(held.syn)]
    client = case.arrive(port)
    (call,) = case.desk.tunnels.calls
    assert call.still_wants()
    joined: list[socket.socket] = []
    call.call.when_open(joined.append)
    assert case.raw.sent == [whole(held.syn)]
    client.sendall(b"up")
    assert joined[0].recv(9) == b"up"
    joined[0].close()
    call.abort(Drained("over"))


def test_one_that_is_answered_before_it_came_is_not_sent_twice(case: Case) -> None:
    port = case.free_port()
    held = case.call("10.96.0.1:80", port)
    case.acceptor.let_in()
    (call,) = case.desk.tunnels.calls
    joined: list[socket.socket] = []
    call.call.when_open(joined.append)
    client = case.arrive(port)
    assert case.raw.sent == [whole(held.syn)]
    assert len(joined) == 1
    joined[0].close()
    client.close()
    call.abort(Drained("over"))


def test_who_waits_in_a_pod_that_goes_is_refused(case: Case) -> None:
    held = case.call("10.96.0.1:80")
    case.acceptor.close()
    assert case.raw.sent == [answer(held.syn, errno.ECONNREFUSED)]
    assert case.raw.closed
    assert case.desk.outbound.takers == {}
    case.acceptor.close()
    assert "served no more" in case.lines[0]


def test_what_cannot_be_sent_now_is_sent_later(case: Case, clock: Clock) -> None:
    case.raw.broken = True
    case.desk.publish(FAR.unhealthy())
    held = case.call("10.96.0.1:80")
    assert len(case.desk.calls) == 0
    assert len(case.lines) == 1
    case.raw.broken = False
    for _ in range(3):
        clock.move(1.1)
        drive(case.engine)
    assert case.raw.sent == [answer(held.syn, errno.ECONNREFUSED)]


def test_a_pod_may_have_so_many_that_wait(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(case.acceptor._connects, "_limit", 3)
    helds = [case.call("10.96.0.1:80", 40000 + number) for number in range(4)]
    assert len(case.desk.tunnels.calls) == 2
    assert case.raw.sent == [answer(each.syn, errno.ECONNREFUSED) for each in helds[2:]]
    assert all("too many" in line for line in case.lines)
    case.desk.calls.abort(Drained("over"))


def test_a_bug_ends_the_call_that_met_it(case: Case) -> None:
    case.desk.tunnels.error = RuntimeError("bug")
    held = case.held("10.96.0.1:80")
    with pytest.raises(RuntimeError, match="bug"):
        case.acceptor.held(held)
    assert case.raw.sent == [answer(held.syn, errno.ECONNREFUSED)]
    assert len(case.desk.calls) == 0


def test_what_the_kernel_tells_goes_to_the_pod_that_it_is_about(case: Case) -> None:
    with socket.socket(socket.AF_UNIX) as fd, fd:
        near, far = socket.socketpair()
        case.desk.kernel.held.fd = near.fileno()
        case.waiting.watch(77)
        assert case.desk.kernel.held.since == 77
        strangers = of_pod(99, case.held("10.96.0.1:80"))
        case.desk.kernel.held.told = [strangers, case.held("10.96.0.1:80")]
        far.send(b"x")
        drive(case.engine, until=lambda: case.desk.tunnels.calls)
        assert len(case.desk.tunnels.calls) == 1
        case.engine.unwatch(near.fileno())
        near.close()
        far.close()
    case.desk.calls.abort(Drained("over"))


def test_of_many_that_call_at_once_some_are_taken_up_in_each_round(case: Case) -> None:
    """Between them others have their turn."""
    near, far = socket.socketpair()
    kernel = case.desk.kernel.held
    kernel.fd = near.fileno()
    case.waiting.watch(5)
    kernel.told = [case.held("10.96.0.1:80", 40000 + number) for number in range(50)]
    far.send(b"x")
    left = []
    while kernel.told:
        case.engine.round()
        left.append(len(kernel.told))
    assert left == [42, 34, 26, 18, 10, 2, 0]
    case.waiting.stop()
    near.close()
    far.close()
    case.desk.calls.abort(Drained("over"))


def test_a_direct_call_waits_for_the_pod_that_it_goes_to(case: Case) -> None:
    server = case.sockets.listen("127.0.0.2")
    port = case.free_port()
    case.call(address_of(server), port)
    drive(case.engine, until=lambda: case.raw.sent)
    far = case.sockets.keep(server.accept()[0])
    client = case.arrive(port)
    client.sendall(b"near")
    drive(case.engine)
    assert far.recv(9) == b"near"
    for sock in (client, far):
        sock.close()
    drive(case.engine, until=lambda: not len(case.desk.calls))
    assert len(case.lines) == 2  # both ends


def test_an_error_is_a_refusal_unless_it_says_otherwise() -> None:
    assert ConnectionFailed("no").errno == errno.ECONNREFUSED


def test_calls_that_wait_go_to_a_successor_and_end_here_without_a_word(case: Case) -> None:
    asked = parse_endpoint("127.0.1.1:8080")
    first, second = case.call(asked), case.call("10.96.0.1:80", 40001)
    assert case.acceptor.expects is False
    assert case.acceptor.hand_over() == [first, second]
    drive(case.engine)
    assert case.raw.sent == []
    assert case.desk.lines == []
    assert len(case.desk.outbound.calls) == 0
    assert case.acceptor.hand_over() == []
    case.give_up(first)  # it is the successor's
    assert case.desk.lines == []


def test_reports_that_are_not_taken_keep(case: Case) -> None:
    waiting = case.waiting
    waiting.stop()
    held = case.held(OUTSIDE)
    case.desk.kernel.held.fd = os.eventfd(1, os.EFD_NONBLOCK)
    waiting.watch(17)
    assert (waiting.since_ns, case.desk.kernel.held.since) == (17, 17)
    waiting.stop()
    case.desk.kernel.held.told.append(held)
    drive(case.engine)
    assert case.desk.kernel.held.told == [held]
    assert waiting.since_ns == 0
    waiting.take([held, of_pod(99, held)])
    assert len(case.desk.outbound.calls) == 1
    os.close(case.desk.kernel.held.fd)
    case.acceptor.hand_over()
