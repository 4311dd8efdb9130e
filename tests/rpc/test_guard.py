"""What a peer's frames cost before h2 sees them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.errors import PeerError
from ztunnel.flow.rate import Bucket, Rate
from ztunnel.http2.frame import ACK, END_HEADERS, END_STREAM, PREFACE, Code, Frame, push_frame, push_goaway
from ztunnel.rpc.guard import GoAway, Guard

pytestmark = pytest.mark.timeout(30)


def feed_often(one: Guard, frame: bytes) -> None:
    for _ in range(5000):
        one.feed(frame, 0.0)


def guard(server: bool = True, header_bytes: int = 1000) -> Guard:
    return Guard(server=server, header_bytes=header_bytes, now=0.0, peer=Bucket(Rate(1e6, 1, 0), 0.0))


FLOODS = {
    "PING": push_frame(Frame.PING, 0, 0, bytes(8)),
    "answers to PING": push_frame(Frame.PING, ACK, 0, bytes(8)),
    "SETTINGS": push_frame(Frame.SETTINGS, 0, 0),
    "PRIORITY": push_frame(Frame.PRIORITY, 0, 1, bytes(5)),
    "empty DATA": push_frame(Frame.DATA, 0, 1),
    "DATA of a byte": push_frame(Frame.DATA, 0, 1, b"x"),
    "WINDOW_UPDATE": push_frame(Frame.WINDOW_UPDATE, 0, 0, b"\0\0\0\1"),
    "rapid reset": push_frame(Frame.HEADERS, END_HEADERS | END_STREAM, 1, b"x")
    + push_frame(Frame.RST_STREAM, 0, 1, bytes(4)),
    "HEADERS": push_frame(Frame.HEADERS, END_HEADERS, 1, b"x"),
    "CONTINUATION": push_frame(Frame.CONTINUATION, 0, 1),
    "GOAWAY": push_goaway(0, 0),
    "unknown frames": b"\0\0\0\x77\0\0\0\0\0",
    "PUSH_PROMISE": push_frame(Frame.PUSH_PROMISE, 0, 1, bytes(4)),
}


@pytest.mark.parametrize("frame", FLOODS.values(), ids=FLOODS.keys())
def test_no_frame_can_be_sent_without_end(frame: bytes) -> None:
    one = guard()
    one.feed(PREFACE, 0.0)
    with pytest.raises(PeerError) as closed:
        feed_often(one, frame)
    assert closed.value.reply == Code.ENHANCE_YOUR_CALM
    assert one.budget.spent <= 1401


def test_what_carries_something_is_free() -> None:
    one = guard(server=False)
    data = push_frame(Frame.DATA, 0, 1, bytes(100)) + push_frame(Frame.DATA, END_STREAM, 1)
    for _ in range(5000):
        one.feed(data, 0.0)


def test_time_gives_points_back() -> None:
    one = guard(server=False)
    for second in range(1000):
        one.feed(FLOODS["SETTINGS"] * 5, float(second))


def test_a_block_of_many_frames_is_bounded() -> None:
    one = guard(server=False, header_bytes=1000)
    one.feed(push_frame(Frame.HEADERS, 0, 1, bytes(600)), 0.0)
    with pytest.raises(PeerError, match="more than 1000 bytes"):
        one.feed(push_frame(Frame.CONTINUATION, 0, 1, bytes(600)), 0.0)


def test_blocks_are_bounded_one_by_one() -> None:
    one = guard(server=False, header_bytes=1000)
    for _ in range(10):
        one.feed(push_frame(Frame.HEADERS, END_HEADERS, 1, bytes(600)), 0.0)


@pytest.mark.parametrize("frame", [push_frame(Frame.GOAWAY, 0, 0, bytes(7)), push_goaway(0, 0, bytes(5000))])
def test_a_goaway_that_is_none_ends_the_connection(frame: bytes) -> None:
    with pytest.raises(PeerError):
        guard(server=False).feed(frame, 0.0)


FRAMES = st.sampled_from(
    [
        push_frame(Frame.DATA, 0, 1, bytes(30)),
        push_frame(Frame.DATA, END_STREAM, 1),
        push_frame(Frame.PING, 0, 0, bytes(8)),
        push_goaway(5, 2, b"bye"),
        push_frame(Frame.SETTINGS, 0, 0),
        push_frame(Frame.HEADERS, END_HEADERS, 1, bytes(20)),
    ]
)


@given(st.booleans(), st.lists(FRAMES, max_size=12), st.data())
def test_any_pieces_give_the_same(server: bool, frames: list[bytes], data: st.DataObject) -> None:
    """Whatever the pieces: h2 sees all but GOAWAY."""
    stream = (PREFACE if server else b"") + b"".join(frames)
    one, passed, gone, at = guard(server), b"", list[GoAway](), 0
    while at < len(stream):
        step = data.draw(st.integers(1, len(stream) - at))
        more, left = one.feed(stream[at : at + step], 0.0)
        passed, gone = passed + more, gone + left
        at += step
    leaving = [each for each in frames if each[3] == Frame.GOAWAY]
    assert passed == (PREFACE if server else b"") + b"".join(each for each in frames if each not in leaving)
    assert gone == [GoAway(5, 2, "bye")] * len(leaving)


@given(st.binary(max_size=200))
def test_garbage_passes_or_ends(untrusted: bytes) -> None:
    try:
        passed, _ = guard(server=False).feed(untrusted, 0.0)
    except PeerError:
        return
    assert len(passed) <= len(untrusted)
