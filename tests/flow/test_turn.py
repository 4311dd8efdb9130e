"""Turns: a little in each round, fairly between pods and sources."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.flow.driving import Bugs, Clock, drive
from ztunnel.flow.engine import Engine
from ztunnel.flow.rate import Rate
from ztunnel.flow.turn import PER_ROUND, Turns

ANY_RATE = Rate(100_000, 100_000, 0)


class Crowd:
    """Who wants something done; `done` says who, in which order."""

    def __init__(self, engine: Engine, rate: Rate = ANY_RATE) -> None:
        self.engine = engine
        self.turns = Turns(engine, rate)
        self.done: list[tuple[str, str, int]] = []
        self._count = 0

    def come(self, pod: str, source: str, times: int = 1) -> None:
        for _ in range(times):
            self._count += 1
            self.turns.enter(pod, source, partial(self.done.append, (pod, source, self._count)))

    def who(self, first: int = 0) -> list[str]:
        return [f"{pod}{source}" for pod, source, _ in self.done[first:]]


@pytest.fixture
def crowd(engine: Engine) -> Crowd:
    return Crowd(engine)


def test_what_nothing_stands_before_is_done_at_once(crowd: Crowd) -> None:
    crowd.come("a", "x")
    assert crowd.who() == ["ax"]
    assert len(crowd.turns) == 0


def test_a_round_does_a_little_and_the_next_goes_on(crowd: Crowd) -> None:
    crowd.come("a", "x", 3 * PER_ROUND)
    for rounds in (1, 2, 3):
        assert len(crowd.done) == rounds * PER_ROUND
        crowd.engine.round()
    assert [number for _, _, number in crowd.done] == [*range(1, 3 * PER_ROUND + 1)]
    assert not crowd.engine.has_calls


def test_a_newcomer_waits_for_one_of_each_other_pod(crowd: Crowd) -> None:
    crowd.come("a", "x", 100)
    crowd.come("b", "y")
    before = len(crowd.done)
    drive(crowd.engine, until=lambda: "by" in crowd.who())
    assert crowd.who(before).index("by") <= 1


def test_a_newcomer_waits_for_one_of_each_other_source_of_its_pod(crowd: Crowd) -> None:
    crowd.come("a", "x", 50)
    crowd.come("a", "y", 50)
    crowd.come("a", "z")
    before = len(crowd.done)
    drive(crowd.engine, until=lambda: "az" in crowd.who())
    assert crowd.who(before).index("az") <= 2


def test_many_sources_of_one_pod_take_nothing_from_another_pod(crowd: Crowd) -> None:
    for source in range(50):
        crowd.come("a", f"x{source}", 4)
    crowd.come("b", "y", 10)
    before = len(crowd.done)
    drive(crowd.engine, until=lambda: crowd.who().count("by") == 10)
    assert len(crowd.done) - before <= 20 + PER_ROUND


def test_a_source_gets_no_more_than_its_rate_and_keeps_nobody_waiting(engine: Engine, clock: Clock) -> None:
    crowd = Crowd(engine, Rate(10, 100, 0))
    crowd.come("a", "x", 50)
    drive(engine)
    assert len(crowd.done) == 10
    crowd.come("a", "y")
    drive(engine)
    assert crowd.who()[10:] == ["ay"]
    for _ in range(20):
        clock.move(0.01)
        drive(engine)
    assert 10 + 15 <= crowd.who().count("ax") <= 10 + 20
    for _ in range(40):
        clock.move(0.01)
        drive(engine)
    assert [number for _, source, number in crowd.done if source == "x"] == [*range(1, 51)]
    assert len(crowd.turns) == 0


def test_a_bug_in_one_does_not_keep_the_others_from_their_turn(
    engine: Engine, crowd: Crowd, bugs: Bugs
) -> None:
    crowd.come("a", "x", PER_ROUND)
    crowd.turns.enter("a", "x", lambda: [][0])
    crowd.come("a", "x")
    drive(engine)
    assert len(crowd.done) == PER_ROUND + 1
    assert [type(bug) for bug in bugs] == [IndexError]
    bugs.clear()


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.integers(0, 3)), max_size=60))
def test_each_is_done_once_and_nothing_is_left(arrivals: list[tuple[str, str, int]]) -> None:
    bugs, clock = Bugs(), Clock()
    engine = Engine(bugs, clock)
    crowd = Crowd(engine, Rate(5, 10, 0))
    for pod, source, rounds in arrivals:
        crowd.come(pod, source)
        for _ in range(rounds):
            engine.round()
            clock.move(0.05)
    for _ in range(200):
        clock.move(0.5)
        engine.round()
    engine.close()
    assert bugs == []
    assert sorted(number for _, _, number in crowd.done) == [*range(1, len(arrivals) + 1)]
    assert len(crowd.turns) == 0
    assert crowd.turns._ready == crowd.turns._paused == {}
