"""Plaintext that reached a pod: judged, joined with the application, ended when policy changes."""

from __future__ import annotations

import socket
from ipaddress import ip_address

import pytest

from tests.builders import policy, workload
from tests.flow.driving import Clock, drive, read
from tests.inbound.parts import Desk, Sockets, peer_of
from ztunnel.errors import Drained
from ztunnel.flow.engine import Engine
from ztunnel.flow.share import Shares
from ztunnel.flow.splice import close_with_reset
from ztunnel.inbound.accept import PLACES, PLAIN_RATE, PlainAcceptor
from ztunnel.state.lookup import INBOUND_PORT

pytestmark = [pytest.mark.root, pytest.mark.timeout(20)]

POD = workload("pod").at("127.0.0.1")
NOBODY = policy("nobody").deny().when(source_ips=["127.0.0.9/32"])


class Way:
    """A pod's way in. Its application listens where the client called."""

    def __init__(self, engine: Engine, sockets: Sockets, *world: object, host: str = "127.0.0.1") -> None:
        self.engine = engine
        self.sockets = sockets
        self.desk = Desk(engine, *world)  # type: ignore[arg-type]
        self.listener = sockets.listen(host)
        self.acceptor = PlainAcceptor(self.desk.inbound, sockets.pod(POD, host))
        sockets.stack.callback(self.desk.live.abort_all, Drained("the test is over"))

    def call(self, source: str = "127.0.0.9") -> socket.socket:
        client, accepted = self.sockets.call(self.listener, source)
        self.acceptor.accepted(accepted, peer_of(accepted))
        return client

    def reached(self) -> socket.socket:
        """The application's end."""
        drive(self.engine)
        app, _ = self.listener.accept()
        app.setblocking(False)
        return self.sockets.keep(app)

    def over(self, *errors: str) -> None:
        """Everything has ended, told once each."""
        assert len(self.desk.live) == 0
        assert self.desk.totals() == (len(errors), len(errors))
        assert len(self.desk.lines) == len(errors)
        for line, error in zip(self.desk.lines, errors, strict=True):
            assert error in line if error else "error=" not in line


def is_reset(engine: Engine, client: socket.socket) -> bool:
    drive(engine)
    try:
        return client.recv(1) is None
    except ConnectionResetError:
        return True


@pytest.fixture
def way(engine: Engine, sockets: Sockets) -> Way:
    return Way(engine, sockets, POD)


@pytest.mark.parametrize(("host", "source"), [("127.0.0.1", "127.0.0.9"), ("::1", "::1")])
def test_bytes_go_both_ways_and_are_reported(
    engine: Engine, sockets: Sockets, host: str, source: str
) -> None:
    way = Way(engine, sockets, POD, host=host)
    client = way.call(source)
    app = way.reached()
    assert str(peer_of(app).ip) == source
    assert len(way.desk.live) == 1
    client.send(b"hello")
    drive(engine)
    assert read(app) == b"hello"
    app.send(b"hello, too")
    app.close()
    drive(engine)
    assert read(client) == b"hello, too"
    client.close()
    drive(engine)
    way.over("")
    assert "bytes_sent=10 bytes_recv=5" in way.desk.lines[0]
    assert 'direction="inbound"' in way.desk.lines[0]


def test_what_policy_refuses_is_reset(engine: Engine, sockets: Sockets) -> None:
    way = Way(engine, sockets, POD, NOBODY)
    assert is_reset(engine, way.call())
    way.over("explicitly denied by: default/nobody")


def test_a_pod_that_has_left_the_world_is_not_served(engine: Engine, sockets: Sockets) -> None:
    way = Way(engine, sockets)
    assert is_reset(engine, way.call())
    way.over("the workload has left the mesh")


def test_our_own_ports_are_no_application(engine: Engine, sockets: Sockets) -> None:
    way = Way(engine, sockets, POD)
    way.listener = sockets.listen("127.0.77.6", INBOUND_PORT)
    assert is_reset(engine, way.call())
    assert "recursive" in way.desk.lines[0]
    assert way.desk.totals() == (0, 0)


def test_an_application_that_does_not_listen_is_reported(way: Way, engine: Engine) -> None:
    client, accepted = way.sockets.call(way.listener)
    way.listener.close()
    way.acceptor.accepted(accepted, peer_of(accepted))
    assert is_reset(engine, client)
    way.over("Connection refused")


def full(way: Way) -> socket.socket:
    """A client of an application that does not accept: it is being dialled."""
    way.listener.listen(0)
    client, accepted = way.sockets.call(way.listener)
    filler = way.sockets.keep(socket.socket())
    filler.connect(way.listener.getsockname())
    way.acceptor.accepted(accepted, peer_of(accepted))
    drive(way.engine)
    return client


def test_a_change_of_policy_ends_what_is_being_dialled(way: Way, engine: Engine) -> None:
    client = full(way)
    way.desk.publish(NOBODY)
    assert is_reset(engine, client)
    way.over("connection closed due to policy change")


def test_a_peer_that_gives_up_while_the_application_is_dialled_is_over_within_the_deadline(
    way: Way, engine: Engine, clock: Clock
) -> None:
    full(way).close()
    for seconds in (1.5, 8.5):
        drive(engine)
        clock.move(seconds)
    drive(engine)
    way.over("connection timed out")


def test_a_change_of_policy_ends_what_is_open(way: Way, engine: Engine) -> None:
    client, app = way.call(), way.reached()
    (live,) = way.desk.live.of(POD.uid)
    way.desk.publish(NOBODY)
    assert is_reset(engine, client)
    assert is_reset(engine, app)
    live.abort(Drained("again"))
    way.over("connection closed due to policy change")


def test_a_change_of_policy_leaves_others_alone(way: Way, engine: Engine) -> None:
    client = way.call("127.0.0.8")
    app = way.reached()
    way.desk.publish(NOBODY)
    client.send(b"still here")
    drive(engine)
    assert read(app) == b"still here"
    client.close()
    app.close()
    drive(engine)
    way.over("")


def test_the_deadline_of_a_drain_ends_all(way: Way, engine: Engine) -> None:
    clients = []
    for _ in range(3):
        clients.append(way.call())
        way.reached()
    clients.append(full(way))
    assert len(way.desk.live) == 4
    way.desk.live.abort_all(Drained("connection closed due to connection drain"))
    assert all(is_reset(engine, client) for client in clients)
    way.over(*["connection closed due to connection drain"] * 4)


def test_a_socket_that_is_gone_is_nobodys(way: Way) -> None:
    _, accepted = way.sockets.call(way.listener)
    peer = peer_of(accepted)
    accepted.close()
    way.acceptor.accepted(accepted, peer)
    way.over()


def test_many_addresses_of_a_loopback_are_not_all_remembered(way: Way) -> None:
    for number in range(70):
        way.listener = way.sockets.listen(f"127.0.9.{number + 1}")
        way.call()
        drive(way.engine)
    assert len(way.desk.live) == 70
    assert 0 < len(way.acceptor._addresses) <= 64


def test_a_source_that_opens_very_many_waits_for_itself_and_the_next_one_is_served_at_once(
    way: Way, sockets: Sockets, engine: Engine
) -> None:
    way.listener.listen(1000)
    turns = way.desk.inbound.turns
    for _ in range(int(PLAIN_RATE.capacity)):
        turns.enter("another pod", ip_address("127.0.0.9"), lambda: None)
        engine.round()
    for _ in range(3):
        way.call("127.0.0.9")
    drive(engine)
    assert len(turns) == 3
    modest = way.call("127.0.0.8")
    app = way.reached()
    modest.send(b"hello")
    drive(engine)
    assert read(app) == b"hello"
    assert len(way.desk.live) == 1


def test_who_has_reset_its_connection_while_it_waited_costs_the_application_none(
    way: Way, engine: Engine, clock: Clock
) -> None:
    turns = way.desk.inbound.turns
    for _ in range(int(PLAIN_RATE.capacity)):
        turns.enter("another pod", ip_address("127.0.0.9"), lambda: None)
        engine.round()
    close_with_reset(way.call("127.0.0.9"))
    stays = way.call("127.0.0.9")
    drive(engine)
    assert len(turns) == 2
    clock.move(1)
    app = way.reached()
    assert engine.given_up == 1
    app.send(b"hello")
    drive(engine)
    assert read(stays) == b"hello"
    assert len(way.desk.live) == 1


def test_while_many_wait_at_a_listener_it_is_left_alone_and_the_pods_others_are_not(
    way: Way, engine: Engine
) -> None:
    way.listener.listen(PLACES)
    another = PlainAcceptor(way.desk.inbound, way.sockets.pod(POD))
    turns = way.desk.inbound.turns
    for _ in range(int(PLAIN_RATE.capacity)):
        turns.enter("another pod", ip_address("127.0.0.9"), lambda: None)
        engine.round()
    for number in range(PLACES):
        assert not way.acceptor.full()
        way.call("127.0.0.9")
        assert len(turns) == number + 1
    assert way.acceptor.full()
    assert not another.full()


def test_when_no_more_can_be_held_the_newest_of_the_greediest_gives_way(way: Way) -> None:
    object.__setattr__(way.desk.inbound, "room", Shares(4))
    pairs = [(way.call("127.0.0.9"), way.reached()) for _ in range(4)]
    greedy, apps = [client for client, _ in pairs], [app for _, app in pairs]
    modest = way.call("127.0.0.8")
    way.reached().send(b"hello")
    assert is_reset(way.engine, greedy[-1])
    drive(way.engine)
    assert read(modest) == b"hello"
    assert is_reset(way.engine, way.call("127.0.0.9"))  # it is the greediest itself
    assert "no room for more connections" in way.desk.lines[0]
    assert [len(way.desk.live), len(way.desk.inbound.room), len(way.desk.lines)] == [4, 4, 2]
    for app in apps[:3]:
        app.send(b"still here")
    drive(way.engine)
    assert [read(client) for client in greedy[:3]] == [b"still here"] * 3
    for client in (*greedy, modest):
        client.close()
    for app in apps:
        app.close()
    drive(way.engine)
    assert len(way.desk.inbound.room) == len(way.desk.live)
