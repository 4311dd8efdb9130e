"""What goes out: in turns, as windows allow."""

from __future__ import annotations

from dataclasses import replace

from tests.rpc.test_session import begun, client, exchange, server
from ztunnel.http2.frame import Frame
from ztunnel.rpc.limits import CLIENT


def stream_ids(wire: bytes) -> list[int]:
    """Of the DATA frames, in order."""
    found, at = [], 0
    while at < len(wire):
        length, kind = int.from_bytes(wire[at : at + 3], "big"), wire[at + 3]
        if kind == Frame.DATA:
            found.append(int.from_bytes(wire[at + 5 : at + 9], "big"))
        at += 9 + length
    return found


def test_streams_have_turns() -> None:
    one, other = client(replace(CLIENT, frame_bytes=16_384)), server()
    ends = [begun(one, other)[1] for _ in range(3)]
    for stream in ends:
        other.begin(stream)
        stream.put(bytes(200_000))
    order = stream_ids(other.pull(1 << 22))
    firsts = [order.index(stream.id) for stream in ends]
    lasts = [len(order) - order[::-1].index(stream.id) for stream in ends]
    assert max(firsts) < min(lasts)
    assert len(order) == 3 * 13


def test_a_pull_is_bounded_and_nothing_is_made_before_it() -> None:
    one, other = client(), server()
    mine, theirs = begun(one, other)
    other.begin(theirs)
    theirs.put(bytes(3 << 20))
    wire = other.pull(100_000)
    assert len(wire) < 100_000 + (1 << 20) + 100
    assert other.backlog == 0
    one.receive(wire, 0.0)
    other.want(theirs)
    one.want(mine)
    exchange(one, other)
    assert len(mine.messages[0]) == 3 << 20


def test_frames_are_as_large_as_the_peer_takes() -> None:
    one, other = client(), server()
    _, theirs = begun(one, other)
    other.begin(theirs)
    theirs.put(bytes(1 << 20))
    assert len(stream_ids(other.pull(1 << 22))) == 2
