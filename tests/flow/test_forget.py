"""Connections to applications that have ended, and those that are to be left alone."""

from __future__ import annotations

import socket
from collections.abc import Callable
from ipaddress import ip_address

import pytest

from tests.flow.driving import Clock, drive
from ztunnel.errors import ConnectionFailed, Denied
from ztunnel.flow.engine import Engine
from ztunnel.flow.flow import Counts
from ztunnel.flow.forget import GATHER_SECONDS
from ztunnel.flow.linger import close_with_reset
from ztunnel.flow.splice import splice
from ztunnel.kernel.forget import Forgettable
from ztunnel.kernel.netns import current
from ztunnel.kernel.sockets import TcpState, connections
from ztunnel.model.address import parse_endpoint

Pair = Callable[[], tuple[socket.socket, socket.socket]]
pytestmark = pytest.mark.root


def ends_of(sock: socket.socket) -> tuple[str, str]:
    return tuple(f"{host}:{port}" for host, port in (sock.getsockname(), sock.getpeername()))  # type: ignore[return-value]


def in_time_wait(ends: tuple[str, str]) -> bool:
    with current() as here:
        found = connections(here, [TcpState.TIME_WAIT])
    return ends in {(str(each.local), str(each.remote)) for each in found}


@pytest.mark.parametrize("how", ["client first", "server first", "reset", "aborted"])
def test_a_connection_to_an_application_leaves_no_time_wait(
    engine: Engine, clock: Clock, pair: Pair, how: str
) -> None:
    (client, opener), (target, server) = pair(), pair()
    ends = ends_of(target)
    own, app = map(parse_endpoint, ends)
    over: list[ConnectionFailed | None] = []
    with current() as here:
        engine.time_wait.know(target, here, Forgettable(own.ip, app), own.port)
        flow = splice(engine, opener, target, Counts(), over.append)
        if how == "aborted":
            flow.abort(Denied("no"))
        elif how == "reset":
            close_with_reset(client)
        else:
            first, second = (client, server) if how == "client first" else (server, client)
            first.close()
            drive(engine)
            second.close()
        drive(engine, until=lambda: over)
        assert in_time_wait(ends) is (how == "client first")
        assert len(engine.time_wait) == (how == "client first")
        clock.move(GATHER_SECONDS)
        drive(engine)
    assert not in_time_wait(ends)
    assert len(engine.time_wait) == 0


def test_many_are_forgotten_in_parts_and_a_pod_that_is_gone_stops_nothing(
    engine: Engine, clock: Clock
) -> None:
    with current() as here:
        pass
    traces = Forgettable(ip_address("127.0.0.1"), parse_endpoint("127.0.0.1:80"))
    socks = [socket.socket() for _ in range(450)]
    for sock in socks:
        engine.time_wait.know(sock, here, traces, 1)
        engine.time_wait.shuts(sock)
        engine.time_wait.ended(sock)
    clock.move(GATHER_SECONDS)
    drive(engine)
    assert len(engine.time_wait) == 250
    for _ in range(2):
        clock.move(0.01)
        drive(engine)
    assert len(engine.time_wait) == 0
    for sock in socks:
        engine.time_wait.ended(sock)
        sock.close()
    gone = socket.socket()
    engine.time_wait.know(gone, here, traces, 1)
    gone.close()
    engine.time_wait.shuts(gone)
    engine.time_wait.shuts(None)
    engine.time_wait.drop(None)
    engine.time_wait.ended(None)
    assert len(engine.time_wait) == 0
