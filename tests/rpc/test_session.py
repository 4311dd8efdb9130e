"""Sessions against each other and against hostile bytes, without I/O."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from hypothesis import given, settings
from hypothesis import strategies as st

from ztunnel.errors import PeerError
from ztunnel.flow.rate import Bucket, Rate
from ztunnel.http2.frame import END_HEADERS, PREFACE, Code, Frame, push_frame, push_goaway, push_settings
from ztunnel.rpc import fields
from ztunnel.rpc.limits import CLIENT, SERVER, Limits
from ztunnel.rpc.message import push_header
from ztunnel.rpc.session import Session
from ztunnel.rpc.status import Code as Status
from ztunnel.rpc.status import RpcError
from ztunnel.rpc.stream import Stream

pytestmark = pytest.mark.timeout(30)

OPEN = fields.request("/t/M", "h:1", {}, "test", None)


def points() -> Bucket:
    return Bucket(Rate(1e6, 1000, 0), 0.0)


def server(limits: Limits = SERVER) -> Session:
    return Session(limits, server=True, now=0.0, peer=points())


def client(limits: Limits = CLIENT) -> Session:
    return Session(limits, server=False, now=0.0, peer=points())


def exchange(one: Session, other: Session) -> int:
    """Until neither has anything to say; how many bytes went."""
    total = 0
    while True:
        out, back = one.pull(1 << 16), other.pull(1 << 16)
        if not out and not back:
            return total
        if out:
            other.receive(out, 0.0)
        if back:
            one.receive(back, 0.0)
        total += len(out) + len(back)


def begun(one: Session, other: Session) -> tuple[Stream, Stream]:
    """A call from one to the other, both its ends."""
    mine = one.open(OPEN)
    exchange(one, other)
    return mine, other.opened.pop()


def test_a_call_goes_there_and_back() -> None:
    one, other = client(), server()
    mine, theirs = begun(one, other)
    mine.put(b"question")
    mine.finish = []
    other.want(theirs)
    exchange(one, other)
    assert list(theirs.messages) == [b"question"]
    assert theirs.ended
    other.begin(theirs)
    theirs.put(b"answer")
    theirs.finish = fields.trailers(None)
    exchange(one, other)
    assert list(mine.messages) == [b"answer"]
    assert mine.ended
    assert mine.trailers is not None
    assert fields.parse_trailers(mine.trailers) is None
    assert not one.streams
    assert not other.streams


def test_a_call_that_nobody_takes_stops_its_sender_at_the_window() -> None:
    one, other = client(), server()
    mine, theirs = begun(one, other)
    for _ in range(300):
        mine.put(bytes(1000))
    exchange(one, other)
    held = sum(map(len, theirs.messages))
    assert held <= SERVER.window_bytes
    assert sum(map(len, mine.outgoing)) >= 300_000 - SERVER.window_bytes
    for _ in range(300):
        theirs.messages.clear()
        other.want(theirs)
        exchange(one, other)
    assert not mine.outgoing


def test_another_call_is_not_stopped_with_it() -> None:
    """At a client, whose calls are its own; a server lets the calls of one connection stop each other."""
    one, other = client(replace(CLIENT, window_bytes=65_535, session_window_bytes=1 << 17)), server()
    ends = [begun(one, other) for _ in range(10)]
    for _, theirs in ends:
        other.begin(theirs)
        theirs.put(bytes(60_000))
        theirs.put(bytes(60_000))
    exchange(one, other)
    mine, theirs = begun(one, other)
    other.begin(theirs)
    theirs.put(b"through")
    exchange(one, other)
    assert list(mine.messages) == [b"through"]


def test_a_server_holds_no_more_of_a_connection_than_its_window() -> None:
    one, other = client(), server()
    ends = [begun(one, other) for _ in range(50)]
    for mine, _ in ends:
        for _ in range(60):
            mine.put(bytes(1000))
    exchange(one, other)
    held = sum(len(message) for _, theirs in ends for message in theirs.messages)
    assert held <= SERVER.session_window_bytes
    for _, theirs in ends[:25]:
        other.reset(theirs, Code.CANCEL)
    exchange(one, other)
    for _ in range(100):
        for _, theirs in ends[25:]:
            theirs.messages.clear()
            other.want(theirs)
        exchange(one, other)
    assert not any(mine.outgoing for mine, _ in ends[25:])


def test_a_message_larger_than_the_window_arrives_when_it_is_wanted() -> None:
    one, other = client(), server(replace(SERVER, message_bytes=1 << 20))
    mine, theirs = begun(one, other)
    mine.put(bytes(1 << 20))
    other.want(theirs)
    exchange(one, other)
    assert [len(each) for each in theirs.messages] == [1 << 20]


def test_a_message_that_is_too_large_fails_the_call_alone() -> None:
    one, other = client(replace(CLIENT, message_bytes=1000)), server()
    mine, theirs = begun(one, other)
    also, also_theirs = begun(one, other)
    other.begin(theirs)
    theirs.put(bytes(2000))
    other.begin(also_theirs)
    also_theirs.put(b"small")
    exchange(one, other)
    assert mine.error is not None
    assert mine.error.code is Status.RESOURCE_EXHAUSTED
    assert theirs.error is not None
    assert theirs.error.code is Status.CANCELLED
    assert list(also.messages) == [b"small"]


def test_a_client_that_ends_within_a_message_is_told() -> None:
    one, other = client(), server()
    mine, theirs = begun(one, other)
    mine.outgoing.append(memoryview(push_header(10) + b"half"))
    mine.finish = []
    other.want(theirs)
    exchange(one, other)
    assert theirs.error is not None
    assert theirs.error.code is Status.INTERNAL
    other.refuse(theirs, fields.trailers_only(theirs.error))
    exchange(one, other)
    assert mine.head_ended


def test_a_reset_reaches_the_other_end_once() -> None:
    one, other = client(), server()
    mine, theirs = begun(one, other)
    one.reset(mine, Code.CANCEL)
    one.reset(mine, Code.CANCEL)
    exchange(one, other)
    assert theirs.error is not None
    assert theirs.error.code is Status.CANCELLED
    assert not one.streams
    assert not other.streams


def test_an_answer_before_the_end_of_the_question_stops_the_client() -> None:
    one, other = client(), server()
    mine, theirs = begun(one, other)
    mine.put(bytes(1 << 20))
    exchange(one, other)
    other.refuse(theirs, fields.trailers_only(RpcError(Status.UNAUTHENTICATED, "who?")))
    exchange(one, other)
    assert mine.head_ended
    assert mine.finished
    assert mine.error is None
    assert not one.streams
    assert not other.streams


def test_goaway_lets_calls_end_and_takes_no_new_ones() -> None:
    one, other = client(), server()
    mine, theirs = begun(one, other)
    other.go_away(final=False)
    exchange(one, other)
    assert one.leaving is not None
    with pytest.raises(RpcError, match="leaving"):
        one.open(OPEN)
    other.go_away(final=True)
    other.begin(theirs)
    theirs.put(b"still")
    theirs.finish = fields.trailers(None)
    mine.finish = []
    exchange(one, other)
    assert list(mine.messages) == [b"still"]
    assert not one.streams


def test_goaway_says_which_calls_were_not_looked_at() -> None:
    one, other = client(), server()
    first, _ = begun(one, other)
    late = one.open(OPEN)
    other.go_away(final=True)
    one.receive(other.pull(1 << 16), 0.0)
    assert first.error is None
    assert late.error is not None
    assert late.error.code is Status.UNAVAILABLE
    exchange(one, other)
    assert not other.opened


def test_headers_and_control_frames_wait_for_nothing() -> None:
    one = server()
    one.receive(BEGIN + push_frame(Frame.PING, 0, 0, bytes(8)), 0.0)
    assert one.backlog > 0
    assert one.pull(1)


def test_the_hpack_bomb_is_refused() -> None:
    h2 = H2Connection(H2Configuration(client_side=True))
    h2.initiate_connection()
    one = server()
    one.receive(h2.data_to_send(), 0.0)
    # One field of 4,000 bytes in the table, then a reference to it for each byte.
    entry = b"\x40\x01a\x7f\xa1\x1e" + bytes(4000)
    with pytest.raises(PeerError):
        one.receive(push_frame(Frame.HEADERS, END_HEADERS, 1, entry + b"\xbe" * 5000), 0.0)
    assert one.pull(1 << 16)


HEAD = push_frame(Frame.HEADERS, END_HEADERS, 1, b"\x83\x87\x84\x01\x01h")
BEGIN = PREFACE + push_settings({})
HOSTILE = {
    "too many streams": BEGIN
    + b"".join(
        push_frame(Frame.HEADERS, END_HEADERS, number, b"\x83\x87\x84\x01\x01h")
        for number in range(1, 221, 2)
    ),
    "DATA on a stream that is idle": BEGIN + push_frame(Frame.DATA, 0, 1, b"x"),
    "a frame that is too large": BEGIN + push_frame(Frame.DATA, 0, 1, bytes(20_000)),
    "CONTINUATION of nothing": BEGIN + push_frame(Frame.CONTINUATION, 4, 1, b"x"),
    "WINDOW_UPDATE of zero": BEGIN + push_frame(Frame.WINDOW_UPDATE, 0, 0, bytes(4)),
    "window overflow": BEGIN + push_frame(Frame.WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff"),
    "SETTINGS with a bad value": PREFACE + push_frame(Frame.SETTINGS, 0, 0, b"\0\5\0\0\0\1"),
    "too much on the window": BEGIN + HEAD + push_frame(Frame.DATA, 0, 1, bytes(16384)) * 5,
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_bytes_end_the_connection_with_a_reason(hostile: bytes) -> None:
    one = server()
    with pytest.raises(PeerError):
        one.receive(hostile, 0.0)
    assert bytes([Frame.GOAWAY]) in one.pull(1 << 16)


def test_a_client_of_http1_ends_the_connection() -> None:
    with pytest.raises(PeerError, match="preamble"):
        server().receive(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", 0.0)


@given(st.binary(max_size=300), st.booleans())
def test_garbage_ends_the_connection_or_is_ignored(untrusted: bytes, server_side: bool) -> None:
    one = server() if server_side else client()
    begin = PREFACE + push_settings({}) if server_side else push_settings({})
    one.receive(begin, 0.0)
    with suppress(PeerError):
        one.receive(untrusted, 0.0)
    one.pull(1 << 16)


_KINDS = [
    Frame.DATA,
    Frame.HEADERS,
    Frame.RST_STREAM,
    Frame.WINDOW_UPDATE,
    Frame.PRIORITY,
    Frame.SETTINGS,
    Frame.PING,
]
_RANDOM_FRAMES = st.lists(
    st.builds(
        push_frame,
        st.sampled_from(_KINDS),
        st.sampled_from([0, 1, 4, 5, 8, 32]),
        st.sampled_from([0, 1, 2, 3, 5]),
        st.one_of(
            st.binary(max_size=12), st.just(b"\x83\x87\x84\x01\x01h"), st.just(bytes(4)), st.just(b"\0\0\0\2")
        ),
    ),
    max_size=12,
)


@given(_RANDOM_FRAMES, st.booleans())
def test_any_order_of_frames_ends_the_connection_or_goes_on(frames: list[bytes], server_side: bool) -> None:
    one = server() if server_side else client()
    if not server_side:
        one.open(OPEN)
        one.open(OPEN)
    with suppress(PeerError):
        one.receive(BEGIN if server_side else push_settings({}), 0.0)
        for frame in frames:
            one.receive(frame, 0.0)
            for stream in one.opened:
                one.want(stream)
                stream.put(b"x")
    one.fail(RpcError(Status.UNAVAILABLE, "over"))
    one.pull(1 << 16)


@settings(max_examples=15)
@given(st.data())
def test_any_pieces_of_input_give_the_same_calls(data: st.DataObject) -> None:
    one = client()
    streams = [one.open(OPEN) for _ in range(3)]
    for number, stream in enumerate(streams):
        stream.put(b"%d" % number * 100)
        stream.finish = []
    wire = one.pull(1 << 16)
    other, at = server(), 0
    got: list[Stream] = []
    while at < len(wire):
        step = data.draw(st.integers(1, len(wire) - at))
        other.receive(wire[at : at + step], 0.0)
        got += other.opened
        other.opened = []
        at += step
    assert [list(each.messages) for each in got] == [[b"%d" % number * 100] for number in range(3)]
    assert all(each.ended for each in got)


def test_a_goaway_of_a_client_is_noted_and_changes_nothing() -> None:
    one = server()
    one.receive(BEGIN + push_goaway(0, 0), 0.0)
    assert one.leaving is not None
