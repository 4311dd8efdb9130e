"""Pieces of work: a few in each round, in order, whatever becomes of one."""

from __future__ import annotations

from functools import partial

from tests.flow.driving import Bugs
from ztunnel.flow.engine import Engine
from ztunnel.flow.pieces import AT_ONCE


def test_a_few_are_done_in_each_round_in_the_order_in_which_they_came(engine: Engine) -> None:
    done: list[int] = []
    for number in range(3 * AT_ONCE):
        engine.pieces.put(partial(done.append, number))
    assert done == []
    for number in (1, 2, 3):
        engine.round()
        assert done == list(range(number * AT_ONCE))
    assert not engine.pieces
    assert not engine.has_calls


def test_what_a_piece_puts_comes_behind_the_others(engine: Engine) -> None:
    done: list[str] = []

    def first() -> None:
        done.append("first")
        engine.pieces.put(partial(done.append, "third"))

    engine.pieces.put(first)
    engine.pieces.put(partial(done.append, "second"))
    engine.round()
    assert done == ["first", "second"]
    engine.round()
    assert done == ["first", "second", "third"]


def test_one_that_raises_keeps_none_of_the_others_from_being_done(engine: Engine, bugs: Bugs) -> None:
    done: list[int] = []

    def broken() -> None:
        raise RuntimeError("broken")

    for number in range(AT_ONCE + 2):
        engine.pieces.put(broken if number == 1 else partial(done.append, number))
    for _ in range(3):
        engine.round()
    assert done == [number for number in range(AT_ONCE + 2) if number != 1]
    assert [str(bug) for bug in bugs] == ["broken"]
    bugs.clear()
