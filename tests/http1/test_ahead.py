"""Bytes ahead of their turn: out in order, and back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ztunnel.http1.ahead import Ahead


@given(st.lists(st.one_of(st.binary(max_size=40_000), st.integers(0, 3)), max_size=12))
def test_it_is_a_queue_of_which_a_part_can_be_put_back(steps) -> None:
    ahead, model = Ahead(), b""
    for step in steps:
        if isinstance(step, bytes):
            ahead.append(memoryview(step))
            model += step
        else:
            piece = ahead.take()
            assert model.startswith(piece)
            back = len(piece) * step // 3
            ahead.put_back(back)
            model = model[len(piece) - back :]
        assert len(ahead) == len(model)
    assert ahead.clear() == len(model)
    assert len(ahead) == 0
    assert ahead.take() == b""


@given(st.binary(max_size=70_000), st.lists(st.integers(0, 20_000), max_size=12))
def test_a_reader_takes_what_it_takes_and_gets_the_rest_again(octets: bytes, steps: list[int]) -> None:
    ahead, got, left = Ahead(), bytearray(), list(steps)
    ahead.append(octets)

    def read(piece: memoryview) -> int:
        count = min(left.pop(), len(piece)) if left else len(piece)
        got.extend(piece[:count])
        return count

    for _ in range(len(steps) + 1):
        ahead.read(read)
    assert bytes(got) == octets
    assert not len(ahead)


def test_a_reader_that_wants_no_more_has_cleared_it() -> None:
    ahead = Ahead()
    ahead.append(bytes(40_000))

    def read(piece: memoryview) -> int:
        ahead.clear()
        return len(piece)

    ahead.read(read)
    assert len(ahead) == 0
    ahead.append(b"more")
    assert ahead.take() == b"more"
