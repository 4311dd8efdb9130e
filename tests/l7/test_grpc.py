"""Messages of gRPC, counted in any split of their body."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from ztunnel.l7.grpc import MessageCounter


@given(st.lists(st.binary(max_size=40)), st.lists(st.integers(0, 400)))
def test_every_message_counts_once_however_it_is_cut(messages: list[bytes], cuts: list[int]) -> None:
    octets = b"".join(b"\0" + len(each).to_bytes(4, "big") + each for each in messages)
    counter = MessageCounter()
    marks = sorted(min(cut, len(octets)) for cut in cuts)
    for start, stop in itertools.pairwise([0, *marks, len(octets)]):
        counter.feed(memoryview(octets)[start:stop])
    assert counter.count == len(messages)


def test_a_message_that_is_not_whole_has_begun() -> None:
    counter = MessageCounter()
    counter.feed(memoryview(b"\x01\xff\xff\xff"))
    assert counter.count == 0
    counter.feed(memoryview(b"\xff" + bytes(100_000)))
    assert counter.count == 1


@given(st.binary(max_size=200))
def test_anything_can_be_counted(garbage: bytes) -> None:
    MessageCounter().feed(memoryview(garbage))
