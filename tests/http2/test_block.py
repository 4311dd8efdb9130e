"""Header blocks are put together within limits."""

from __future__ import annotations

import pytest

from ztunnel.errors import PeerError
from ztunnel.http2.block import begin_block
from ztunnel.http2.frame import END_STREAM, PADDED, PRIORITY_FLAG, Code


@pytest.mark.parametrize(
    ("flags", "payload"),
    [
        (0, b"fields"),
        (PADDED, b"\x03fields\0\0\0"),
        (PRIORITY_FLAG, b"\0\0\0\0\x10fields"),
        (PADDED | PRIORITY_FLAG, b"\x02\0\0\0\0\x10fields\0\0"),
    ],
)
def test_padding_and_priority_are_taken_off(flags: int, payload: bytes) -> None:
    block = begin_block(flags, 3, payload)
    assert (bytes(block.octets), block.stream_id, block.end_stream) == (b"fields", 3, False)
    assert begin_block(flags | END_STREAM, 3, payload).end_stream


@pytest.mark.parametrize(
    ("flags", "payload"),
    [(PADDED, b""), (PADDED, b"\x04abc"), (PRIORITY_FLAG, bytes(4)), (PADDED, b"\x01")],
)
def test_padding_and_priority_have_to_fit(flags: int, payload: bytes) -> None:
    with pytest.raises(PeerError):
        begin_block(flags, 3, payload)


@pytest.mark.parametrize("exclusive", [0, 0x80])
def test_a_stream_cannot_depend_on_itself(exclusive: int) -> None:
    itself, another = bytes((exclusive, 0, 0, 3, 16)), bytes((exclusive, 0, 0, 5, 16))
    with pytest.raises(PeerError, match="depends on itself") as error:
        begin_block(PRIORITY_FLAG, 3, itself + b"fields")
    assert error.value.reply == Code.PROTOCOL_ERROR
    with pytest.raises(PeerError, match="depends on itself"):
        begin_block(PADDED | PRIORITY_FLAG, 3, b"\0" + itself + b"fields")
    assert bytes(begin_block(PRIORITY_FLAG, 3, another + b"fields").octets) == b"fields"


def test_continuations_are_added() -> None:
    block = begin_block(0, 3, b"ab")
    block.add(b"cd", 64, 100)
    assert bytes(block.octets) == b"abcd"


def test_too_many_continuations_are_refused_even_empty_ones() -> None:
    block = begin_block(0, 3, b"")
    for _ in range(64):
        block.add(b"", 64, 100)
    with pytest.raises(PeerError) as error:
        block.add(b"", 64, 100)
    assert error.value.reply == Code.ENHANCE_YOUR_CALM


def test_too_many_bytes_are_refused() -> None:
    block = begin_block(0, 3, b"x" * 60)
    with pytest.raises(PeerError):
        block.add(b"x" * 60, 64, 100)
