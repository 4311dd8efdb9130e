"""CONNECT requests of an independent peer: judged, answered, joined, and ended."""

from __future__ import annotations

import gc
import socket
from typing import Any

import h2.errors
import h2.events
import pytest

from tests.builders import identity, policy, service, workload
from tests.flow.driving import read
from tests.hbone.peers import H2Peer, Lab
from tests.inbound.parts import Desk, Sockets, end_of
from ztunnel.errors import Drained
from ztunnel.flow.share import Shares
from ztunnel.hbone.answer import IncomingTunnel
from ztunnel.hbone.carry import Session
from ztunnel.inbound.answer import TunnelAcceptor, TunnelConnection
from ztunnel.inbound.connect import AppDial
from ztunnel.model.address import Endpoint, PeerAddress, parse_endpoint

pytestmark = [pytest.mark.root, pytest.mark.timeout(20)]

POD = workload("pod").at("127.0.0.1").in_cluster("c1")
CALLER = workload("caller").at("127.0.0.9")
NOBODY = policy("nobody").deny().when(principals=["*/sa/caller"])


class Way:
    """A session into a pod, its application, and the peer."""

    def __init__(self, lab: Lab, sockets: Sockets, *world: Any, principal: str = "default/caller") -> None:
        self.lab = lab
        self.sockets = sockets
        self.desk = Desk(lab.engine, *world)
        self.listener = sockets.listen()
        near, far = lab._links()
        self.peer = H2Peer(near, client=True)
        lab.peers.append(self.peer)
        ends = parse_endpoint("127.0.0.1:15008"), PeerAddress(CALLER.addresses[0], 40000)
        self.pod = sockets.pod(POD)
        acceptor = TunnelAcceptor(self.desk.inbound, self.pod, ends, identity(principal))
        self.session = Session(lab.engine, far, lab.ledger, lambda *_: None, acceptor.requested)
        self.streams = 0
        sockets.stack.callback(self.session.abort, Drained("the test is over"))
        lab.go()

    @property
    def app(self) -> Endpoint:
        return end_of(self.listener)

    def ask(self, authority: str = "", *headers: tuple[bytes, bytes]) -> int:
        """Send a CONNECT; its stream."""
        stream = 2 * self.streams + 1
        self.streams += 1
        fields = [(b":method", b"CONNECT"), (b":authority", (authority or str(self.app)).encode()), *headers]
        self.peer.conn.send_headers(stream, fields)
        self.lab.go()
        return stream

    def answer(self, stream: int = 1) -> dict[bytes, bytes]:
        """What was answered; nothing if nothing was."""
        found = [each for each in self.peer.of(h2.events.ResponseReceived) if each.stream_id == stream]
        return dict(found[0].headers) if found else {}

    def status(self, stream: int = 1) -> bytes:
        return self.answer(stream).get(b":status", b"")

    def resets(self) -> list[int]:
        return [each.stream_id for each in self.peer.of(h2.events.StreamReset)]

    def reached(self) -> socket.socket:
        app, _ = self.listener.accept()
        app.setblocking(False)
        return self.sockets.keep(app)

    def fill(self) -> None:
        """From now on the application does not accept."""
        self.listener.listen(0)
        for _ in range(2):
            filler = self.sockets.keep(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(self.listener.getsockname())

    def over(self, *errors: str) -> None:
        """Every tunnel has ended, told once each."""
        assert len(self.desk.live) == 0
        assert self.lab.ledger.streams == 0
        assert self.desk.totals() == (len(errors), len(errors))
        assert len(self.desk.lines) == len(errors)
        for line, error in zip(self.desk.lines, errors, strict=True):
            assert error in line if error else "error=" not in line


@pytest.fixture
def way(lab: Lab, sockets: Sockets) -> Way:
    return Way(lab, sockets, POD, CALLER)


def test_a_tunnel_is_joined_with_the_application(way: Way) -> None:
    stream = way.ask()
    assert way.status() == b"200"
    assert b"k8s.cluster.name=c1" in way.answer()[b"baggage"]
    app = way.reached()
    assert str(app.getpeername()[0]) == "127.0.0.9"
    way.peer.conn.send_data(stream, b"hello", end_stream=True)
    way.lab.go()
    assert read(app) == b"hello"
    app.send(b"hello, too")
    app.close()
    way.lab.go()
    assert way.peer.data[stream] == b"hello, too"
    way.over("")
    (line,) = way.desk.lines
    for text in (
        "bytes_sent=10 bytes_recv=5",
        f"dst.hbone_addr={way.app}",
        'src.identity="spiffe://cluster.local/ns/default/sa/caller"',
    ):
        assert text in line


@pytest.mark.parametrize("end", ["by the application", "by the peer", "refused"])
def test_a_tunnel_that_has_ended_leaves_nothing_for_the_garbage_collector(way: Way, end: str) -> None:
    """A cycle for each connection would have the collector look through all that live, again and again."""
    gc.collect()
    gc.disable()
    try:
        if end == "refused":
            way.listener.close()
            way.ask("127.0.0.1:1")
            assert way.status() == b"503"
        else:
            stream = way.ask()
            app = way.reached()
            if end == "by the peer":
                way.peer.conn.reset_stream(stream)
                way.lab.go()
            app.close()
            way.peer.conn.end_stream(stream) if end == "by the application" else None
            way.lab.go()
        left = [
            each for each in gc.get_objects() if isinstance(each, TunnelConnection | IncomingTunnel | AppDial)
        ]
        assert left == []
    finally:
        gc.enable()


def test_baggage_follows_the_workload(way: Way) -> None:
    way.ask()
    way.ask()
    way.desk.publish(POD.in_cluster("c1").located("r1"))
    way.ask()
    before, same, after = (way.answer(stream)[b"baggage"] for stream in (1, 3, 5))
    assert before == same != after
    assert b"cloud.region=r1" in after


@pytest.mark.parametrize(
    ("world", "authority", "status", "error"),
    [
        ((POD, NOBODY), "", b"401", "explicitly denied by: default/nobody"),
        ((POD,), "10.0.0.9:80", b"400", "ip mismatch"),
        ((POD,), "nonsense", b"400", "invalid authority"),
        ((POD,), "127.0.0.1:15008", b"503", "recursive"),
        ((POD,), "web.default.svc:80", b"503", "no service"),
        ((), "", b"503", "the workload has left the mesh"),
    ],
    ids=["policy", "another pod", "no address", "ourselves", "no service of ours", "gone"],
)
def test_what_is_refused_has_istios_status(
    lab: Lab, sockets: Sockets, world: Any, authority: str, status: bytes, error: str
) -> None:
    way = Way(lab, sockets, *world)
    way.ask(authority)
    assert way.status() == status
    assert len(way.desk.live) == way.lab.ledger.streams == 0
    (line,) = way.desk.lines
    assert error in line
    assert way.session.alive


def test_a_request_that_is_no_connect_is_a_bad_one(way: Way) -> None:
    fields = [(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/"), (b":authority", b"127.0.0.1")]
    way.peer.conn.send_headers(1, fields)
    way.lab.go()
    assert way.status() == b"400" or way.resets()
    assert len(way.desk.live) == 0


def test_a_service_may_be_called_by_name(lab: Lab, sockets: Sockets) -> None:
    web = service("web").port(80)
    way = Way(lab, sockets, POD, CALLER, web)
    way.desk.publish(POD.serves(web, (80, way.app.port)))
    way.ask("web.default.svc.cluster.local:80")
    assert way.status() == b"200"
    way.reached().close()
    way.lab.go()
    way.peer.conn.reset_stream(1)
    way.lab.go()
    assert 'dst.service="web.default.svc.cluster.local"' in way.desk.lines[0]


def test_a_stolen_address_is_nobodys_workload(lab: Lab, sockets: Sockets) -> None:
    way = Way(lab, sockets, POD, CALLER, NOBODY, principal="default/thief")
    way.ask()
    way.session.abort(Drained("enough"))
    way.lab.go()
    (line,) = way.desk.lines
    assert "src.workload" not in line
    assert "sa/thief" in line


def test_an_application_that_does_not_listen_is_unavailable(way: Way) -> None:
    app = str(way.app)
    way.listener.close()
    way.ask(app)
    assert way.status() == b"503"
    way.over(f"connection failed: {app}: Connection refused")


def test_an_application_that_never_accepts_is_unavailable_after_ten_seconds(way: Way) -> None:
    way.fill()
    way.ask()
    for seconds in (1.5, 8.0):
        way.lab.clock.move(seconds)
        way.lab.go()
        assert way.status() == b""
    way.lab.clock.move(0.5)
    way.lab.go()
    assert way.status() == b"503"
    way.over("connection timed out")


def test_a_change_of_policy_answers_what_is_being_dialled(way: Way) -> None:
    way.fill()
    way.ask()
    way.desk.publish(NOBODY)
    way.lab.go()
    assert way.status() == b"401"
    way.over("connection closed due to policy change")
    way.lab.clock.move(20.0)
    assert way.session.alive


def test_an_answer_counts_for_requests_like_it_until_the_world_changes(way: Way) -> None:
    way.ask()
    way.ask()
    way.desk.publish(NOBODY)
    way.ask()
    assert [way.status(stream) for stream in (1, 3, 5)] == [b"200", b"200", b"401"]


def test_a_drains_deadline_answers_what_is_being_dialled(way: Way) -> None:
    way.fill()
    way.ask()
    way.desk.live.abort_all(Drained("connection closed due to connection drain"))
    way.lab.go()
    assert way.status() == b"503"
    way.over("connection closed due to connection drain")


def test_a_change_of_policy_resets_what_is_joined(way: Way) -> None:
    way.ask()
    app = way.reached()
    (live,) = way.desk.live.of(POD.uid)
    way.desk.publish(NOBODY)
    way.lab.go()
    assert way.resets() == [1]
    with pytest.raises(ConnectionResetError):
        app.recv(1)
    live.abort(Drained("again"))
    way.over("connection closed due to policy change")


def test_a_peer_that_gives_up_while_the_application_is_dialled_ends_it(way: Way) -> None:
    way.fill()
    way.ask()
    (live,) = way.desk.live.of(POD.uid)
    way.peer.conn.reset_stream(1, h2.errors.ErrorCodes.CANCEL)
    way.lab.go()
    way.over("")
    live.abort(Drained("too late"))
    way.over("")


def test_a_session_that_breaks_while_the_application_is_dialled_ends_it(way: Way) -> None:
    way.fill()
    way.ask()
    way.peer.close()
    way.lab.peers.clear()
    way.lab.go()
    way.over("")


def test_a_namespace_that_was_let_go_is_unavailable(way: Way) -> None:
    way.pod.network.netns.close()
    way.ask()
    assert way.status() == b"503"
    way.over("Bad file descriptor")


def test_a_hundred_tunnels_of_one_session_leave_nothing(way: Way) -> None:
    streams, apps = [], []
    for _ in range(100):
        streams.append(way.ask())
        apps.append(way.reached())
    assert len(way.desk.live) == 100
    for app in apps:
        app.close()
    way.lab.go()
    for stream in streams:
        way.peer.conn.end_stream(stream)
    way.lab.go()
    way.over(*[""] * 100)


def test_a_tunnel_for_which_there_is_no_room_is_unavailable(way: Way) -> None:
    room = Shares(1)
    object.__setattr__(way.desk.inbound, "room", room)
    way.ask()
    way.ask()
    assert [way.status(1), way.status(3)] == [b"200", b"503"]
    assert "no room for more connections" in way.desk.lines[0]
    assert len(room) == 1
    place = next(iter(next(iter(room._pods[POD.uid].values()))))
    room.leave(place)
    place.give_way()
    way.lab.go()
    assert way.resets() == [3, 1]
    assert len(way.desk.live) == 0
