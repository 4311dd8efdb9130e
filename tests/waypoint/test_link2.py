"""HTTP/2 within a stream: what waits, what is bounded, how it ends."""

from __future__ import annotations

import pytest

from tests.http2.recording import pull_frames
from tests.waypoint.rig import Rig, Wire, echoes
from tests.waypoint.test_downstream2 import GET, Client
from ztunnel.http2.frame import END_HEADERS, END_STREAM, Code, Frame
from ztunnel.http2.limits import Role
from ztunnel.waypoint.link2 import GATHER_BYTES, LIMITS, Http2Link


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


def asked(rig: Rig, *streams: int) -> Client:
    """A client that has asked on these streams, in one round of the engine whose end is to come."""
    client = Client(rig)
    client.flush()
    rig.clock.posts = True
    for stream in streams:
        client.h2.send_headers(stream, GET, end_stream=True)
    client.wire.writes = 0
    client.wire.send(client.h2.data_to_send())
    return client


HEAD = Frame.HEADERS, END_HEADERS


def said(client: Client) -> list[tuple[int, int, int]]:
    """Frames that left: kind, flags, stream."""
    return [(each.kind, each.flags, each.stream_id) for each in pull_frames(client.wire.said())]


def test_frames_of_a_round_leave_as_one_piece_and_the_last_data_ends_its_stream() -> None:
    rig = Rig(echoes)
    client = asked(rig, 1, 3)
    assert client.wire.writes == 0
    rig.clock.rounds()
    assert client.wire.writes == 1
    assert said(client) == [
        (*HEAD, 1), (Frame.DATA, END_STREAM, 1), (*HEAD, 3), (Frame.DATA, END_STREAM, 3)
    ]  # fmt: skip
    assert not client.server.h2.streams


@pytest.mark.parametrize("between", ["nothing", "a round", "another stream", "trailers"])
def test_only_a_frame_that_is_still_there_and_the_last_ends_its_stream(between: str) -> None:
    rig = Rig()
    client = asked(rig, 1, 3)
    one, other = rig.servers
    one.respond()
    one.say(b"ab")
    frames = [(*HEAD, 1), (Frame.DATA, 0, 1)]
    if between == "a round":
        rig.clock.rounds()
    elif between == "another stream":
        other.respond()
        frames.append((*HEAD, 3))
    one.end(((b"grpc-status", b"0"),) if between == "trailers" else ())
    rig.clock.rounds()
    if between == "nothing":
        frames[1] = (Frame.DATA, END_STREAM, 1)
    elif between == "trailers":
        frames.append((Frame.HEADERS, END_HEADERS | END_STREAM, 1))
    else:
        frames.append((Frame.DATA, END_STREAM, 1))
    octets = bytes(client.wire.written)
    assert said(client) == frames
    client.h2.receive_data(octets)
    assert list(client.server.h2.streams) == [3]


def test_bulk_does_not_wait_for_the_rounds_end() -> None:
    rig = Rig()
    client = asked(rig, 1)
    rig.server.respond()
    rig.server.say(bytes(GATHER_BYTES - 1))
    assert client.wire.writes == 1
    rig.server.say(b"more")
    assert client.wire.writes == 1
    rig.server.end()
    rig.clock.rounds()
    assert [kind for kind, _, _ in said(client)] == [Frame.HEADERS, Frame.DATA, Frame.DATA]


def test_what_was_to_be_written_leaves_before_the_goodbye() -> None:
    rig = Rig(echoes)
    client = asked(rig, 1)
    client.wire.send(b"\0\0\1\4\0\0\0\0\0x")  # no settings
    assert client.wire.finished
    assert [kind for kind, _, _ in said(client)] == [Frame.HEADERS, Frame.DATA, Frame.GOAWAY]
    rig.clock.rounds()
    assert client.wire.said() == b""


def test_what_was_to_be_written_to_a_peer_that_is_gone_is_let_go() -> None:
    rig = Rig(echoes)
    client = asked(rig, 1)
    client.server.lost(None)
    rig.clock.rounds()
    assert client.wire.said() == b""
