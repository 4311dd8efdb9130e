"""Accepting within the engine."""

from __future__ import annotations

import resource
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from ipaddress import ip_address

import pytest

from tests.flow.driving import Bugs, Clock, drive
from ztunnel.flow.accept import PATIENT_MILLISECONDS, Acceptor
from ztunnel.flow.engine import Engine
from ztunnel.model.address import PeerAddress

Accepted = list[tuple[socket.socket, PeerAddress]]


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.setblocking(False)
        yield made


@pytest.fixture
def accepted() -> Iterator[Accepted]:
    found: Accepted = []
    yield found
    for sock, _ in found:
        sock.close()


def call(listener: socket.socket) -> socket.socket:
    return socket.create_connection(listener.getsockname())


def test_each_connection_is_handed_on_with_its_peer(
    engine: Engine, listener: socket.socket, accepted: Accepted
) -> None:
    acceptor = Acceptor(engine, listener, lambda sock, peer: accepted.append((sock, peer)))
    with call(listener) as one, call(listener) as two:
        drive(engine, until=lambda: len(accepted) == 2)
        assert [peer for _, peer in accepted] == [
            PeerAddress(ip_address("127.0.0.1"), caller.getsockname()[1]) for caller in (one, two)
        ]
        assert not accepted[0][0].getblocking()
    acceptor.close()


def test_a_closed_acceptor_accepts_no_more(
    engine: Engine, listener: socket.socket, accepted: Accepted
) -> None:
    acceptor = Acceptor(engine, listener, lambda sock, peer: accepted.append((sock, peer)))
    address = listener.getsockname()
    acceptor.close()
    acceptor.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
    drive(engine)
    assert accepted == []


def test_whoever_knows_that_they_are_there_need_not_wait_to_be_told(
    engine: Engine, listener: socket.socket, accepted: Accepted
) -> None:
    acceptor = Acceptor(engine, listener, lambda sock, peer: accepted.append((sock, peer)))
    acceptor.accept_now(3)
    assert accepted == [], "nobody is there"
    with ExitStack() as callers:
        for _ in range(4):
            callers.enter_context(call(listener))
        acceptor.accept_now(3)
        assert len(accepted) == 3, "no more than are asked for"
        drive(engine, until=lambda: len(accepted) == 4)
        assert len({peer for _, peer in accepted}) == 4
        callers.enter_context(call(listener))
        acceptor.hold_back()
        acceptor.accept_now(1)
        assert len(accepted) == 4, "they are whoever's has the listener then"
        acceptor.go_on()
        acceptor.accept_now(1)
        assert len(accepted) == 5
    acceptor.close()
    acceptor.accept_now(1)


def test_while_whoever_takes_them_is_full_new_ones_stay_in_the_backlog(
    engine: Engine, clock: Clock, listener: socket.socket, accepted: Accepted
) -> None:
    places = [2]
    acceptor = Acceptor(
        engine,
        listener,
        lambda sock, peer: accepted.append((sock, peer)),
        full=lambda: len(accepted) >= places[0],
    )
    callers = [call(listener) for _ in range(5)]
    drive(engine)
    assert len(accepted) == 2
    places[0] = 4
    drive(engine)
    assert len(accepted) == 2, "it does not spin"
    for count in (4, 5):
        clock.move(1)
        drive(engine)
        assert len(accepted) == count
        places[0] = 10
    for caller in callers:
        caller.close()
    acceptor.close()


def test_running_out_of_descriptors_is_survived_without_spinning(
    engine: Engine, clock: Clock, listener: socket.socket, accepted: Accepted
) -> None:
    acceptor = Acceptor(engine, listener, lambda sock, peer: accepted.append((sock, peer)))
    with call(listener):
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
        try:
            drive(engine)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        drive(engine)
        assert accepted == []
        clock.move(1)
        drive(engine, until=lambda: accepted)
    acceptor.close()


def test_a_listener_that_listens_no_more_does_not_make_the_engine_spin(
    engine: Engine, clock: Clock, listener: socket.socket, accepted: Accepted
) -> None:
    acceptor = Acceptor(engine, listener, lambda sock, peer: accepted.append((sock, peer)))
    listener.shutdown(socket.SHUT_RDWR)
    drive(engine)
    assert not engine.round(0)
    clock.move(1)
    drive(engine)
    assert not engine.round(0)
    acceptor.close()
    clock.move(1)
    drive(engine)


def test_a_storm_is_taken_in_portions_and_may_end_the_acceptor(
    engine: Engine, listener: socket.socket, accepted: Accepted
) -> None:
    def take(sock: socket.socket, peer: PeerAddress) -> None:
        accepted.append((sock, peer))
        if len(accepted) == 70:
            acceptor.close()

    acceptor = Acceptor(engine, listener, take)
    listener.listen(128)
    callers = [call(listener) for _ in range(80)]
    portions = []
    while len(accepted) < 70:
        before = len(accepted)
        engine.round()
        portions.append(len(accepted) - before)
    assert max(portions) <= 32
    drive(engine)
    assert len(accepted) == 70
    for caller in callers:
        caller.close()


def test_a_connection_that_cannot_be_taken_up_keeps_none_of_the_others(
    engine: Engine, bugs: Bugs, listener: socket.socket, accepted: Accepted
) -> None:
    def take(sock: socket.socket, peer: PeerAddress) -> None:
        accepted.append((sock, peer))
        if len(accepted) == 1:
            raise RuntimeError("bug")

    acceptor = Acceptor(engine, listener, take)
    with call(listener), call(listener):
        drive(engine, until=lambda: len(accepted) == 2)
    acceptor.close()
    assert len(bugs) == 1
    bugs.clear()


def test_peers_are_remembered_up_to_a_limit_and_without_their_scope(
    engine: Engine, listener: socket.socket
) -> None:
    acceptor = Acceptor(engine, listener, lambda sock, peer: None)
    link_local = ip_address("fe80::1")
    assert acceptor._ip("fe80::1%eth0") == link_local
    for number in range(2000):
        acceptor._ip(f"10.0.{number // 250}.{number % 250}")
    assert len(acceptor._peers) <= 1024
    assert acceptor._ip("::ffff:10.0.0.1") == ip_address("10.0.0.1")
    acceptor.close()


def test_the_more_come_at_once_the_more_are_accepted_at_once(
    engine: Engine, listener: socket.socket, accepted: Accepted
) -> None:
    acceptor = Acceptor(engine, listener, lambda sock, peer: accepted.append((sock, peer)))
    counts = []
    with ExitStack() as stack:
        for _ in range(70):
            stack.enter_context(call(listener))
        while len(accepted) < 70:
            before = len(accepted)
            assert engine.round(1)
            counts.append(len(accepted) - before)
        assert counts in ([1, 1, 2, 4, 8, 16, 16, 16, 6], [1, 2, 4, 8, 16, 16, 16, 7])
        engine.round()
        for _ in range(3):
            engine.round()
            stack.enter_context(call(listener))
            engine.round(1)
    assert len(accepted) == 73
    acceptor.close()


def test_a_listener_that_somebody_destroys_is_told_of_once_and_not_watched_any_more(
    engine: Engine, clock: Clock, listener: socket.socket, accepted: Accepted
) -> None:
    lost: list[str] = []
    acceptor = Acceptor(engine, listener, lambda sock, peer: None, lambda: lost.append("lost"))
    listener.shutdown(socket.SHUT_RDWR)  # it listens no more, as after SOCK_DESTROY
    drive(engine, until=lambda: lost)
    clock.move(1)
    drive(engine)
    assert lost == ["lost"]
    acceptor.close()


def test_who_has_reset_is_not_handed_on(engine: Engine, listener: socket.socket, accepted: Accepted) -> None:
    with call(listener) as stays:
        gone = call(listener)
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        gone.close()
        acceptor = Acceptor(engine, listener, lambda sock, peer: accepted.append((sock, peer)))
        drive(engine, until=lambda: accepted and engine.given_up)
        assert [peer.port for _, peer in accepted] == [stays.getsockname()[1]]
        assert engine.given_up == 1
    acceptor.close()


@pytest.mark.parametrize("said", [b"", b"all"])
def test_who_closes_a_side_at_once_has_said_all_and_who_has_waited_before_has_gone(
    engine: Engine, listener: socket.socket, accepted: Accepted, said: bytes
) -> None:
    with call(listener) as waited:
        waited.sendall(said)
        begun = time.monotonic()
        while time.monotonic() - begun < (PATIENT_MILLISECONDS + 100) / 1000:
            engine.round(0.1)  # nobody watches the listener
        waited.shutdown(socket.SHUT_WR)
        with call(listener) as prompt, call(listener) as still:
            prompt.sendall(said)
            prompt.shutdown(socket.SHUT_WR)
            acceptor = Acceptor(engine, listener, lambda sock, peer: accepted.append((sock, peer)))
            drive(engine, until=lambda: len(accepted) == 2)
            wanted = {each.getsockname()[1] for each in (prompt, still)}
            assert {peer.port for _, peer in accepted} == wanted
            assert engine.given_up == 1
            with suppress(ConnectionResetError):  # where there is something that nobody has read
                assert waited.recv(9) == b""
        acceptor.close()


def test_who_waits_without_closing_is_handed_on_however_late(
    engine: Engine, listener: socket.socket, accepted: Accepted
) -> None:
    with call(listener) as waits:
        begun = time.monotonic()
        while time.monotonic() - begun < (PATIENT_MILLISECONDS + 100) / 1000:
            engine.round(0.1)
        acceptor = Acceptor(engine, listener, lambda sock, peer: accepted.append((sock, peer)))
        drive(engine, until=lambda: accepted)
        assert accepted[0][1].port == waits.getsockname()[1]
        assert engine.given_up == 0
        acceptor.close()


def test_what_is_held_back_waits_in_the_backlog(
    engine: Engine, listener: socket.socket, accepted: Accepted
) -> None:
    acceptor = Acceptor(engine, listener, lambda sock, peer: accepted.append((sock, peer)))
    acceptor.hold_back()
    acceptor.hold_back()
    with call(listener), call(listener):
        for _ in range(3):
            engine.round(0.01)
        acceptor.accept_waiting()  # nor by hand
        assert accepted == []
        acceptor.go_on()
        acceptor.go_on()
        drive(engine, until=lambda: len(accepted) == 2)
        acceptor.hold_back()
    acceptor.close()


def test_what_waits_is_taken_up_by_hand(engine: Engine, listener: socket.socket, accepted: Accepted) -> None:
    acceptor = Acceptor(engine, listener, lambda sock, peer: accepted.append((sock, peer)))
    with ExitStack() as callers:
        for _ in range(40):
            callers.enter_context(call(listener))
        acceptor.accept_waiting()
        assert len(accepted) >= 32
        acceptor.hold_back()
    acceptor.close()
