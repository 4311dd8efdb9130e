"""Connecting a pod's application: what it sees, and what is left when it does not answer."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from tests.builders import workload
from tests.flow.driving import Clock, drive
from tests.inbound.parts import Sockets, end_of, peer_of
from ztunnel.flow.engine import Engine
from ztunnel.inbound.connect import FIRST_SECONDS, SECOND_SECONDS, AppDial, Approach, unreachable
from ztunnel.inbound.port import SparePorts
from ztunnel.kernel.netns import current
from ztunnel.kernel.sockets import TcpState, connections
from ztunnel.model.address import Endpoint, parse_endpoint
from ztunnel.model.port import ports_instead

pytestmark = [pytest.mark.root, pytest.mark.timeout(20)]

POD = workload("pod")
CLIENT = parse_endpoint("127.0.0.9:41000")


class Dialled:
    """A dial, and what came of it."""

    def __init__(
        self,
        engine: Engine,
        sockets: Sockets,
        app: Endpoint,
        source: Endpoint = CLIENT,
        own: str = "127.0.0.1",
        spares: SparePorts | None = None,
    ) -> None:
        self.outcomes: list[tuple[socket.socket | None, OSError | None]] = []
        self.engine = engine
        self.sockets = sockets
        self.pod = sockets.pod(POD, own)
        self.port = source.port
        self.dial = AppDial(engine, spares or SparePorts(), Approach(self.pod.network, source.ip, app))

    def begin(self) -> Dialled:
        self.dial.start([self.port, *ports_instead(self.port)], self._reached)
        assert not self.outcomes
        return self

    def _reached(self, sock: socket.socket | None, error: OSError | None) -> None:
        if sock is not None:
            self.sockets.keep(sock)
        self.outcomes.append((sock, error))

    def end(self) -> tuple[socket.socket | None, OSError | None]:
        drive(self.engine, until=lambda: self.outcomes)
        (outcome,) = self.outcomes
        return outcome


def shown(
    engine: Engine,
    sockets: Sockets,
    listener: socket.socket,
    source: Endpoint = CLIENT,
    spares: SparePorts | None = None,
) -> Endpoint:
    """What an application sees of a client."""
    dialled = Dialled(engine, sockets, end_of(listener), source, spares=spares)
    assert dialled.begin().end()[1] is None
    peer = peer_of(sockets.keep(listener.accept()[0]))
    return Endpoint(peer.ip, peer.port)


@pytest.mark.parametrize(
    "source", ["127.0.0.9:41000", "127.0.0.9:700", "127.0.0.9:65535", "127.0.0.1:41000", "127.0.0.1:701"]
)
def test_the_application_sees_the_clients_address_and_port(
    engine: Engine, sockets: Sockets, source: str
) -> None:
    client = parse_endpoint(source)
    assert shown(engine, sockets, sockets.listen(), client) == client


def test_the_application_sees_the_port_of_an_ipv6_client(engine: Engine, sockets: Sockets) -> None:
    client = parse_endpoint("[::1]:41000")
    assert shown(engine, sockets, sockets.listen("::1"), client) == client


def test_little_is_held_for_an_application_that_does_not_read(engine: Engine, sockets: Sockets) -> None:
    dial = Dialled(engine, sockets, end_of(sockets.listen()), CLIENT)
    sock, _ = dial.begin().end()
    assert sock is not None
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 1 << 20


def test_a_client_whose_port_is_not_known_gets_one_after_the_other(engine: Engine, sockets: Sockets) -> None:
    listener = sockets.listen()
    dial = Dialled(engine, sockets, end_of(listener), Endpoint(CLIENT.ip, 0))
    seen = []
    for _ in range(3):
        dial.begin().end()
        seen.append(peer_of(sockets.keep(listener.accept()[0])))
        dial.outcomes.clear()
    assert {peer.ip for peer in seen} == {CLIENT.ip}
    assert len({peer.port for peer in seen}) == 3


def test_many_clients_behind_one_address_may_have_the_same_port(engine: Engine, sockets: Sockets) -> None:
    """A gateway's; or a peer that says the same of all its calls."""
    listener = sockets.listen()
    spares = SparePorts()
    seen = [shown(engine, sockets, listener, spares=spares) for _ in range(20)]
    assert seen[0] == CLIENT
    assert {peer.ip for peer in seen} == {CLIENT.ip}
    assert len({peer.port for peer in seen}) == 20


def test_in_the_place_of_a_privileged_port_another_one_is_shown(engine: Engine, sockets: Sockets) -> None:
    listener = sockets.listen()
    client = Endpoint(CLIENT.ip, 901)
    seen = [shown(engine, sockets, listener, client).port for _ in range(3)]
    assert seen[:2] == [901, 389]
    assert seen[2] > 1023


def test_a_port_that_an_application_of_the_pod_listens_on_can_be_shown(
    engine: Engine, sockets: Sockets
) -> None:
    listener, other = sockets.listen(), sockets.listen("0.0.0.0")
    client = Endpoint(CLIENT.ip, end_of(other).port)
    assert shown(engine, sockets, listener, client) == client


def test_a_client_that_calls_the_application_itself_from_that_port_is_shown_with_another(
    engine: Engine, sockets: Sockets
) -> None:
    listener = sockets.listen()
    itself = sockets.keep(socket.socket())
    itself.bind((str(CLIENT.ip), 0))
    itself.connect(listener.getsockname())
    client = Endpoint(CLIENT.ip, itself.getsockname()[1])
    sockets.keep(listener.accept()[0])
    seen = shown(engine, sockets, listener, client)
    assert (seen.ip, seen.port == client.port) == (client.ip, False)


def test_an_application_of_the_other_family_sees_an_address_of_its_pod(
    engine: Engine, sockets: Sockets
) -> None:
    seen = shown(engine, sockets, sockets.listen(), parse_endpoint("[fd00::9]:41000"))
    assert str(seen.ip) == "127.0.0.1"


def test_a_refusal_is_reported(engine: Engine, sockets: Sockets) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        sock, error = Dialled(engine, sockets, end_of(taken)).begin().end()
    assert sock is None
    assert error is not None
    assert error.errno == errno.ECONNREFUSED


def dialling(listener: socket.socket) -> list[Endpoint]:
    """Who calls an application and has no answer yet."""
    with current() as here:
        found = connections(here, [TcpState.SYN_SENT])
    return [each.local for each in found if each.remote == end_of(listener)]


def test_an_application_that_never_accepts_is_tried_on_two_ports_for_ten_seconds(
    engine: Engine, sockets: Sockets, clock: Clock
) -> None:
    listener = sockets.full()
    dialled = Dialled(engine, sockets, end_of(listener)).begin()
    tried = dialling(listener)
    for seconds in (FIRST_SECONDS, SECOND_SECONDS - 0.5):
        clock.move(seconds)
        drive(engine)
        assert not dialled.outcomes
        tried += dialling(listener)
    clock.move(0.5)
    sock, error = dialled.end()
    assert sock is None
    assert isinstance(error, TimeoutError)
    assert dialling(listener) == []
    first, second, same = tried
    assert (first, first.ip, same) == (CLIENT, second.ip, second)
    assert first.port != second.port
    assert FIRST_SECONDS + SECOND_SECONDS == 10.0
    assert str(unreachable(end_of(listener), error)) == f"connection timed out: {end_of(listener)}"


@pytest.mark.parametrize("moved", [0.0, FIRST_SECONDS], ids=["first attempt", "second attempt"])
def test_nothing_is_left_of_a_dial_that_is_cancelled(
    engine: Engine, sockets: Sockets, clock: Clock, moved: float
) -> None:
    listener = sockets.full()
    dialled = Dialled(engine, sockets, end_of(listener))
    before = len(os.listdir("/proc/self/fd"))
    dialled.begin()
    clock.move(moved)
    drive(engine)
    dialled.dial.cancel()
    dialled.dial.cancel()
    assert len(os.listdir("/proc/self/fd")) == before + dialled.pod.network.netns.spares
    assert dialling(listener) == []
    clock.move(100.0)
    drive(engine)
    assert not dialled.outcomes


def test_a_dial_that_stands_already_can_be_cancelled_before_it_is_told(
    engine: Engine, sockets: Sockets
) -> None:
    listener = sockets.listen()
    dialled = Dialled(engine, sockets, end_of(listener)).begin()
    dialled.dial.cancel()
    drive(engine)
    assert not dialled.outcomes
    accepted = sockets.keep(listener.accept()[0])
    assert accepted.recv(1) == b""


def test_a_namespace_that_was_let_go_is_an_error_and_no_bug(engine: Engine, sockets: Sockets) -> None:
    dialled = Dialled(engine, sockets, CLIENT)
    dialled.pod.network.netns.close()
    sock, error = dialled.begin().end()
    assert sock is None
    assert error is not None
    assert error.errno == errno.EBADF


def test_a_client_that_cannot_be_shown_is_an_error_and_no_bug(engine: Engine, sockets: Sockets) -> None:
    app = parse_endpoint("[::1]:80")
    dialled = Dialled(engine, sockets, app, parse_endpoint("[fe80::9]:41000"))
    before = len(os.listdir("/proc/self/fd"))
    sock, error = dialled.begin().end()
    assert sock is None
    assert error is not None
    assert len(os.listdir("/proc/self/fd")) == before
    assert str(unreachable(app, error)) == f"connection failed: [::1]:80: {error.strerror}"


def test_a_failed_dial_can_be_cancelled_before_it_is_told(engine: Engine, sockets: Sockets) -> None:
    dialled = Dialled(engine, sockets, parse_endpoint("[::1]:80"), parse_endpoint("[fe80::9]:41000")).begin()
    dialled.dial.cancel()
    drive(engine)
    assert not dialled.outcomes
