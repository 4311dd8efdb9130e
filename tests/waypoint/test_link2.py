"""HTTP/2 within a stream: what waits, what is bounded, how it ends."""

from __future__ import annotations

from tests.waypoint.rig import Rig, Wire
from tests.waypoint.test_downstream2 import GET, Client
from ztunnel.http2.frame import Code, Frame
from ztunnel.http2.limits import Role
from ztunnel.waypoint.link2 import LIMITS, Http2Link


def test_a_peer_that_reads_nothing_and_asks_for_much_is_let_go() -> None:
    rig = Rig()
    client = Client(rig)
    client.h2.send_headers(1, GET, end_stream=True)
    client.flush()
    rig.server.respond()
    client.wire.stuck = True
    client.wire.unsent_bytes = 2 << 20
    client.h2.ping(b"12345678")
    client.wire.send(client.h2.data_to_send())
    rig.clock.rounds()
    assert client.wire.aborted is not None
    assert rig.server.cancelled


def test_what_cannot_leave_waits_on_its_stream_in_order() -> None:
    rig = Rig()
    client = Client(rig)
    client.h2.send_headers(1, GET, end_stream=True)
    client.flush()
    rig.server.respond()
    client.wire.unsent_bytes = 128 * 1024
    for part in (b"a" * 100, b"b" * 100, b"c" * 100):
        rig.server.say(part)
    rig.server.end(((b"t", b"v"),))
    client.flush()
    assert client.body(1) == b""
    client.wire.unstick()
    client.flush()
    assert client.body(1) == b"a" * 100 + b"b" * 100 + b"c" * 100


def test_what_comes_after_the_end_is_passed_over() -> None:
    rig, wire = Rig(), Wire()
    link = Http2Link(rig.clock, wire, Role.SERVER)
    wire.receiver = link
    wire.send(b"no preface")
    assert link.over
    assert bytes((Frame.GOAWAY,)) in wire.said()
    wire.send(b"more")
    assert wire.took == wire.given
    link.lost(None)
    assert not link.admits()
    assert Code.PROTOCOL_ERROR == 1


def test_its_windows_are_small_beside_those_of_a_session() -> None:
    assert LIMITS.session_window_bytes <= 1 << 20
    assert LIMITS.accept_streams == 100
