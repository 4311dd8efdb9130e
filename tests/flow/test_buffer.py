"""Blocks are reused; a backlog keeps bytes in order, in pieces of bounded number."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ztunnel.flow.buffer import Backlog, Blocks


def test_a_block_that_was_given_back_is_taken_again_empty() -> None:
    blocks = Blocks()
    block = blocks.take()
    block.at = 100
    blocks.give(block)
    assert blocks.take() is block
    assert block.at == 0


def test_blocks_beyond_those_to_keep_are_let_go() -> None:
    blocks = Blocks(keep=1)
    first, second = blocks.take(), blocks.take()
    blocks.give(first)
    blocks.give(second)
    assert blocks.take() is first
    assert blocks.take() is not second


def take(backlog: Backlog, count: int) -> bytes:
    with backlog.head() as head:
        taken = bytes(head[:count])
    backlog.drop(len(taken))
    return taken


@given(st.lists(st.binary(max_size=100_000), max_size=8), st.integers(1, 70_000))
def test_bytes_leave_in_the_order_in_which_they_came(parts: list[bytes], step: int) -> None:
    backlog = Backlog()
    for part in parts:
        backlog.append(part)
    whole = b"".join(parts)
    assert len(backlog) == backlog.held_bytes == len(whole)
    left = b""
    while backlog:
        left += take(backlog, step)
    assert left == whole
    assert len(backlog) == 0


def test_single_bytes_share_a_piece() -> None:
    backlog = Backlog()
    for _ in range(10_000):
        backlog.append(b"x")
    with backlog.head() as head:
        assert len(head) == 10_000


def test_bytes_can_come_while_others_leave() -> None:
    backlog = Backlog()
    backlog.append(b"abc")
    assert take(backlog, 2) == b"ab"
    backlog.append(b"def")
    assert take(backlog, 9) == b"cdef"


def test_clearing_says_how_much_was_lost() -> None:
    backlog = Backlog()
    backlog.append(b"abcdef")
    take(backlog, 2)
    assert backlog.clear() == 4
    assert not backlog
