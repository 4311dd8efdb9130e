"""A call from its acceptance to its end: out of the mesh as plain TCP, and on a tunnel."""

from __future__ import annotations

import errno
import os
import resource
import socket
from dataclasses import dataclass, field

import pytest

from tests.builders import workload
from tests.flow.driving import Clock, drive, read
from tests.hbone.peers import CONNECT_BLOCK, OK, Lab
from tests.inbound.parts import Sockets
from tests.outbound.parts import Desk, Here, address_of, is_reset, journey
from ztunnel.errors import Denied, Drained, HandshakeFailed, Unreachable
from ztunnel.flow.engine import Engine
from ztunnel.flow.flow import Counts
from ztunnel.hbone.pool import PoolKey
from ztunnel.model.address import Endpoint, parse_endpoint
from ztunnel.outbound.connect import Call, PlainCall, TunnelCall, unreachable
from ztunnel.redirect.enroll import PodNetwork

CLIENT = workload("client")
NETWORK = PodNetwork(1, Here(), None, None, ())
KEY = PoolKey(CLIENT.identity, frozenset(), CLIENT.addresses[0], parse_endpoint("127.0.0.1:15008"))
DRAINED = Drained("connection closed due to connection drain")


@pytest.fixture
def desk(engine: Engine, sockets: Sockets) -> Desk:
    return Desk(engine, sockets)


def opened(desk: Desk) -> tuple[Call, socket.socket]:
    call, client = desk.plain_call()
    call.open(journey())
    return call, client


# --- a call ------------------------------------------------------------------------------


def test_a_call_that_fails_resets_the_application_and_closes_its_account_once(desk: Desk) -> None:
    call, client = opened(desk)
    assert len(desk.calls) == 1
    call.fail(Unreachable("nobody there"))
    call.fail(Unreachable("again"))
    call.ended(None)
    assert is_reset(client)
    assert desk.totals() == (1, 1)
    assert len(desk.lines) == 1
    assert 'error="nobody there"' in desk.lines[0]
    assert len(desk.calls) == 0


def test_a_call_that_fails_before_it_is_opened_counts_as_refused(desk: Desk) -> None:
    call, client = desk.plain_call()
    call.journey = journey()
    call.fail(Unreachable("no way"))
    call.fail(Unreachable("no way"))
    assert is_reset(client)
    assert desk.totals() == (1, 1)
    assert len(desk.lines) == 1


def test_a_call_of_which_nothing_is_known_only_ends(desk: Desk) -> None:
    call, client = desk.plain_call()
    call.abort(DRAINED)
    assert is_reset(client)
    assert desk.totals() == (0, 0)
    assert len(desk.calls) == 0


def test_a_call_that_goes_another_way_is_one_line_and_one_connection(desk: Desk) -> None:
    call, _ = opened(desk)
    call.open(journey(destination="127.0.0.2:80"))
    assert desk.totals() == (1, 0)
    call.fail(Unreachable("gone"))
    assert len(desk.lines) == 1
    assert "dst.addr=127.0.0.2:80" in desk.lines[0]


def test_the_calls_of_a_node_are_counted_and_ended_together(desk: Desk) -> None:
    clients = [opened(desk)[1] for _ in range(3)]
    assert len(desk.calls) == 3
    desk.calls.abort(DRAINED)
    assert len(desk.calls) == 0
    assert all(is_reset(client) for client in clients)
    assert all('error="connection closed due to connection drain"' in line for line in desk.lines)


@dataclass
class Stubborn:
    """A carrier with a bug."""

    def abort(self, error: Exception) -> None:
        raise RuntimeError("cannot")


def test_one_call_that_cannot_be_ended_keeps_none_of_the_others(desk: Desk) -> None:
    calls = [opened(desk)[0] for _ in range(3)]
    calls[1].carrier = Stubborn()
    with pytest.raises(RuntimeError, match="cannot"):
        desk.calls.abort(DRAINED)
    assert len(desk.calls) == 1
    calls[1].carrier = None
    calls[1].fail(DRAINED)


def test_sockets_that_cannot_be_watched_are_closed_and_the_end_is_told(desk: Desk, engine: Engine) -> None:
    call, client = opened(desk)
    target, far = desk.sockets.call(desk.sockets.listen())
    full = Engine(lambda bug: None)
    full.close()
    broken = Refusing(full)
    try:
        call.join(broken, target, call.ended).abort(DRAINED)  # type: ignore[arg-type]
    finally:
        full.close()
    assert is_reset(client)
    assert is_reset(far)
    assert "the connection cannot be carried" in desk.lines[0]


class Refusing:
    """An engine whose epoll set is full (epoll_ctl(2), ENOSPC)."""

    def __init__(self, engine: Engine) -> None:
        self.inbox = engine.inbox
        self.now = engine.now

    def watch(self, *_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# --- plain TCP ---------------------------------------------------------------------------


def start(desk: Desk, endpoint: Endpoint, network: PodNetwork = NETWORK) -> tuple[PlainCall, socket.socket]:
    call, client = opened(desk)
    plain = PlainCall(desk.engine, call, endpoint)
    plain.start(network, 5.0)
    return plain, client


def test_bytes_go_both_ways_until_both_ends_have_closed(desk: Desk, engine: Engine) -> None:
    listener = desk.sockets.listen()
    _, client = start(desk, address_of(listener))
    drive(engine)
    server = desk.sockets.keep(listener.accept()[0])
    client.sendall(b"question")
    client.shutdown(socket.SHUT_WR)
    drive(engine)
    assert server.recv(100) == b"question"
    server.sendall(b"answer!")
    server.close()
    drive(engine, until=lambda: not len(desk.calls))
    assert read(client) == b"answer!"
    assert "bytes_sent=8 bytes_recv=7" in desk.lines[0]
    assert "error" not in desk.lines[0]


def test_a_refused_connection_fails_the_call(desk: Desk, engine: Engine) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        _, client = start(desk, address_of(nobody))
        drive(engine)
    assert is_reset(client)
    assert "connection failed: 127.0.0.1:" in desk.lines[0]
    assert "Connection refused" in desk.lines[0]


def test_nobody_answering_fails_the_call_in_time(desk: Desk, engine: Engine, clock: Clock) -> None:
    listener = desk.sockets.listen(backlog=0)
    for _ in range(3):  # the backlog is full then, and the kernel does not answer
        caller = desk.sockets.keep(socket.socket())
        caller.setblocking(False)
        caller.connect_ex(listener.getsockname())
    _, client = start(desk, address_of(listener))
    drive(engine)
    clock.move(5.1)
    drive(engine)
    assert is_reset(client)
    assert "connection timed out: 127.0.0.1:" in desk.lines[0]


def test_a_pod_that_is_gone_fails_its_calls(desk: Desk) -> None:
    gone = Here()
    gone.gone = True
    _, client = start(desk, parse_endpoint("127.0.0.1:1"), PodNetwork(1, gone, None, None, ()))
    assert is_reset(client)
    assert desk.totals() == (1, 1)


def test_without_descriptors_the_call_fails(desk: Desk) -> None:
    call, client = opened(desk)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        PlainCall(desk.engine, call, parse_endpoint("127.0.0.1:1")).start(NETWORK, 1.0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert is_reset(client)
    assert "Too many open files" in desk.lines[0]


def test_a_call_can_be_ended_while_it_connects_and_while_it_is_carried(desk: Desk, engine: Engine) -> None:
    listener = desk.sockets.listen()
    connecting, one = start(desk, address_of(listener))
    connecting.abort(DRAINED)
    connecting.abort(DRAINED)
    assert is_reset(one)
    carried, two = start(desk, address_of(listener))
    drive(engine)
    carried.abort(DRAINED)
    carried.abort(DRAINED)
    drive(engine)
    assert is_reset(two)
    assert len(desk.lines) == 2
    assert len(desk.calls) == 0


def test_a_connection_that_could_not_be_made_is_told_in_words() -> None:
    endpoint = parse_endpoint("10.0.0.1:80")
    assert (
        str(unreachable(endpoint, TimeoutError(errno.ETIMEDOUT, "x"))) == "connection timed out: 10.0.0.1:80"
    )
    assert str(unreachable(endpoint, OSError(5, "I/O"))) == "connection failed: 10.0.0.1:80: I/O"
    assert str(unreachable(endpoint, OSError("odd"))) == "connection failed: 10.0.0.1:80: odd"


# --- tunnels -----------------------------------------------------------------------------


@dataclass
class Sessions:
    """Whoever finds sessions: those of the laboratory, one after the other."""

    ready: list[object] = field(default_factory=list)
    asked: int = 0

    def open(self, call: TunnelCall) -> None:
        self.asked += 1
        session = self.ready.pop(0)
        call.begin(session, 15.0)


@dataclass
class Decision:
    """Whether what was decided still stands."""

    stands: bool = True
    asked: int = 0

    def __call__(self) -> bool:
        self.asked += 1
        return self.stands


def tunnel(
    desk: Desk, sessions: Sessions, decision: Decision | None = None
) -> tuple[TunnelCall, socket.socket]:
    call, client = opened(desk)
    made = TunnelCall(sessions, call, (KEY, NETWORK, CONNECT_BLOCK), decision or Decision())
    return made, client


def test_a_tunnel_carries_the_call_to_its_end(desk: Desk, lab: Lab) -> None:
    client_session, _ = lab.sessions()
    call, client = tunnel(desk, Sessions([client_session]))
    call._tunnels.open(call)
    lab.go(until=lambda: lab.callees)
    own = lab.callees[0].accept()
    client.sendall(b"hello")
    lab.go(until=lambda: read(own) == b"hello")
    own.close()
    client.close()
    lab.go(until=lambda: not len(desk.calls))
    assert "bytes_sent=5" in desk.lines[0]


@pytest.mark.parametrize(("status", "kind"), [(401, Denied), (403, Denied), (503, HandshakeFailed)])
def test_another_status_refuses_the_call(desk: Desk, status: int, kind: type[Exception]) -> None:
    call, client = tunnel(desk, Sessions())
    call.refused(status, OK, call.call.hand_over())
    assert is_reset(client)
    assert f'error="http status: {status}"' in desk.lines[0]
    flags = {row.labels.response_flags for row in desk.metrics.rows(0.0) if row.failed}
    assert flags == {kind.flag.value}  # type: ignore[attr-defined]


def test_a_session_that_died_unseen_is_replaced_once(desk: Desk, lab: Lab) -> None:
    sessions = Sessions([lab.sessions()[0] for _ in range(3)])
    held = list(sessions.ready)
    call, client = tunnel(desk, sessions)
    sessions.open(call)
    held[0].abort(Unreachable("gone"))
    assert sessions.asked == 2
    held[1].abort(Unreachable("gone too"))
    assert sessions.asked == 2
    assert is_reset(client)
    assert len(desk.lines) == 1
    assert 'error="gone too"' in desk.lines[0]


def test_a_failure_that_another_session_would_repeat_is_final(desk: Desk) -> None:
    sessions = Sessions()
    call, client = tunnel(desk, sessions)
    call.lost(call.call.hand_over(), HandshakeFailed("no"))
    assert sessions.asked == 0
    assert is_reset(client)


def test_a_lost_call_whose_decision_is_stale_is_left_to_who_decided_again(desk: Desk) -> None:
    sessions, decision = Sessions(), Decision(stands=False)
    call, _ = tunnel(desk, sessions, decision)
    call.lost(call.call.hand_over(), Unreachable("gone"))
    assert (decision.asked, sessions.asked) == (1, 0)
    assert call.call.opener is not None
    call.call.fail(DRAINED)


def test_a_call_that_ended_while_it_waited_is_wanted_no_more(desk: Desk) -> None:
    decision = Decision()
    call, client = tunnel(desk, Sessions(), decision)
    assert call.still_wants()
    call.abort(DRAINED)
    assert is_reset(client)
    assert not call.still_wants()
    assert decision.asked == 1


def test_a_call_can_be_ended_before_and_after_the_answer(desk: Desk, lab: Lab) -> None:
    client_session, _ = lab.sessions()
    sessions = Sessions([client_session, client_session])
    for answered in (False, True):
        call, client = tunnel(desk, sessions)
        sessions.open(call)
        if answered:
            lab.go(until=lambda: len(lab.callees) == 2)
            lab.callees[1].accept()
            lab.go()
        call.abort(DRAINED)
        call.abort(DRAINED)
        lab.go()
        assert is_reset(client)
    assert len(desk.lines) == 2
    assert len(desk.calls) == 0
    assert call.call.counts.up == Counts().up
