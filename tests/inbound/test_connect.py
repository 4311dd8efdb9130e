"""Connecting a pod's application: what it sees, and what is left when it does not answer."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from tests.builders import workload
from tests.flow.driving import Clock, drive
from tests.inbound.parts import Admitted, Sockets, end_of, peer_of
from ztunnel.flow.engine import Engine
from ztunnel.inbound.connect import FIRST_SECONDS, SECOND_SECONDS, AppDial, Approach, unreachable
from ztunnel.model.address import Endpoint, parse_endpoint

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
    ) -> None:
        self.admitted = Admitted()
        self.outcomes: list[tuple[socket.socket | None, OSError | None]] = []
        self.engine = engine
        self.sockets = sockets
        self.pod = sockets.pod(POD, own)
        self.dial = AppDial(engine, self.admitted, Approach(self.pod.network, source.ip, app))

    def begin(self) -> Dialled:
        self.dial.start(self._reached)
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


def test_the_application_sees_the_clients_address(engine: Engine, sockets: Sockets) -> None:
    listener = sockets.listen()
    dialled = Dialled(engine, sockets, end_of(listener)).begin()
    sock, error = dialled.end()
    assert error is None
    assert sock is not None
    accepted = sockets.keep(listener.accept()[0])
    shown = peer_of(accepted)
    assert shown.ip == CLIENT.ip
    assert dialled.admitted.now == {(Endpoint(shown.ip, shown.port), end_of(listener))}


@pytest.mark.parametrize(
    ("source", "own"),
    [("127.0.0.1:41000", "127.0.0.1"), ("[fd00::9]:41000", "127.0.0.1")],
    ids=["the pod itself", "the other family"],
)
def test_what_cannot_be_shown_is_the_pods_own_address(
    engine: Engine, sockets: Sockets, source: str, own: str
) -> None:
    listener = sockets.listen()
    dialled = Dialled(engine, sockets, end_of(listener), parse_endpoint(source), own).begin()
    assert dialled.end()[1] is None
    accepted = sockets.keep(listener.accept()[0])
    assert str(peer_of(accepted).ip) == "127.0.0.1"
    assert dialled.admitted.ever == []


def test_an_ipv6_application_sees_an_ipv6_client(engine: Engine, sockets: Sockets) -> None:
    listener = sockets.listen("::1")
    dialled = Dialled(engine, sockets, end_of(listener), parse_endpoint("[fd00::9]:41000")).begin()
    # On this loopback no reply finds its way to fd00::9, so only the beginning can be seen.
    ((shown, app),) = dialled.admitted.ever
    assert (str(shown.ip), app) == ("fd00::9", end_of(listener))
    dialled.dial.cancel()


def test_a_refusal_is_reported_and_its_admission_dismissed(engine: Engine, sockets: Sockets) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        dialled = Dialled(engine, sockets, end_of(taken)).begin()
        sock, error = dialled.end()
    assert sock is None
    assert error is not None
    assert error.errno == errno.ECONNREFUSED
    assert dialled.admitted.now == set()
    assert len(dialled.admitted.ever) == 1


def test_an_application_that_never_accepts_is_tried_on_two_ports_for_ten_seconds(
    engine: Engine, sockets: Sockets, clock: Clock
) -> None:
    listener = sockets.full()
    dialled = Dialled(engine, sockets, end_of(listener)).begin()
    for seconds, attempts in ((FIRST_SECONDS, 2), (SECOND_SECONDS - 0.5, 2)):
        clock.move(seconds)
        drive(engine)
        assert not dialled.outcomes
        assert len(dialled.admitted.ever) == attempts
        assert dialled.admitted.now == {dialled.admitted.ever[-1]}
    clock.move(0.5)
    sock, error = dialled.end()
    assert sock is None
    assert isinstance(error, TimeoutError)
    assert dialled.admitted.now == set()
    first, second = dialled.admitted.ever
    assert first[0].port != second[0].port
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
    assert dialled.admitted.now == set()
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
