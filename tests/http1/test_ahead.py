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
