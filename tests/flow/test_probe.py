"""Half-closed flows: whose other side is gone they end, whose other side lives they live on."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from tests.flow.driving import Clock, drive, read
from tests.kernel.test_sockets import keepalive_of
from ztunnel.errors import ConnectionFailed
from ztunnel.flow.engine import Engine
from ztunnel.flow.flow import Counts
from ztunnel.flow.probe import SWEEP_SECONDS, HalfClosed
from ztunnel.flow.splice import splice

Pair = Callable[[], tuple[socket.socket, socket.socket]]
pytestmark = pytest.mark.timeout(20)


@pytest.fixture(name="half_closed")
def half_closed_(engine: Engine) -> HalfClosed:
    engine.half_closed.seconds = 1
    return engine.half_closed


def sweep(engine: Engine, clock: Clock, count: int = 1) -> None:
    for _ in range(count):
        clock.move(SWEEP_SECONDS)
        drive(engine)


def test_only_what_stays_half_closed_is_probed(
    engine: Engine, half_closed: HalfClosed, clock: Clock, pair: Pair
) -> None:
    (brief, _), (lasting, _) = pair(), pair()
    half_closed.add(brief)
    half_closed.add(lasting)
    sweep(engine, clock)
    half_closed.discard(brief)
    assert keepalive_of(lasting)[0] == 0
    sweep(engine, clock)
    assert keepalive_of(brief)[0] == 0
    assert keepalive_of(lasting) == (1, 1, 10, 3)
    assert len(half_closed) == 0
    assert engine.next_timer == float("inf")


def test_what_is_added_while_others_wait_has_its_turn(
    engine: Engine, half_closed: HalfClosed, clock: Clock, pair: Pair
) -> None:
    (first, _), (second, _) = pair(), pair()
    half_closed.add(first)
    sweep(engine, clock)
    half_closed.add(second)
    sweep(engine, clock, 2)
    assert keepalive_of(first)[0] == keepalive_of(second)[0] == 1


def test_many_are_probed_in_parts(engine: Engine, half_closed: HalfClosed, clock: Clock) -> None:
    many = [socket.socket() for _ in range(450)]
    for each in many:
        half_closed.add(each)
    sweep(engine, clock, 2)
    assert [sum(keepalive_of(each)[0] for each in many), len(half_closed)] == [200, 250]
    for _ in range(3):
        clock.move(0.01)
        drive(engine)
    assert [sum(keepalive_of(each)[0] for each in many), len(half_closed)] == [450, 0]
    for each in many:
        each.close()


def test_a_socket_that_is_gone_is_nobodys(engine: Engine, half_closed: HalfClosed, clock: Clock) -> None:
    sock = socket.socket()
    half_closed.add(sock)
    half_closed.discard(None)
    sock.close()
    sweep(engine, clock, 2)
    assert len(half_closed) == 0


@pytest.mark.parametrize("first", ["client", "server"])
@pytest.mark.parametrize("gone", [False, True])
def test_a_flow_lives_as_long_as_who_has_closed_its_side_is_there(
    engine: Engine, half_closed: HalfClosed, clock: Clock, pair: Pair, first: str, gone: bool
) -> None:
    client, opener = pair()
    target, server = pair()
    ends: list[ConnectionFailed | None] = []
    splice(engine, opener, target, Counts(), ends.append)
    one, other, near = (client, server, opener) if first == "client" else (server, client, target)
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_LINGER2, 1)
    one.close() if gone else one.shutdown(socket.SHUT_WR)
    drive(engine)
    assert read(other) == b""
    sweep(engine, clock, 2)
    assert keepalive_of(near)[0] == 1
    if gone:
        drive(engine, until=lambda: ends)
        assert ends == [None]
        assert len(half_closed) == 0
        return

    def probed() -> bool:
        # The probe's answer is the last that was heard of it (struct tcp_info: tcpi_last_ack_recv).
        heard_ms = int.from_bytes(near.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 64)[56:60], "little")
        said.append(heard_ms)
        return len(said) > 1 and said[-2] > 900 > said[-1]

    said: list[int] = []
    drive(engine, until=probed)
    assert ends == []
    other.send(b"still")
    drive(engine, until=lambda: read(one) == b"still")
    other.close()
    drive(engine, until=lambda: ends)
