"""Timers come due in order, and cancelled ones cost nothing for long."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from ztunnel.flow.timers import Deadlines, Timer, Timers


def test_what_is_due_comes_earliest_first() -> None:
    timers, called = Timers(), []
    timers.add(3.0, lambda: called.append("c"))
    timers.add(1.0, lambda: called.append("a"))
    timers.add(2.0, lambda: called.append("b"))
    for callback in timers.due(2.5):
        callback()
    assert called == ["a", "b"]
    assert timers.next_at == 3.0
    assert len(timers) == 1


def test_timers_of_one_moment_keep_their_order() -> None:
    timers, called = Timers(), []
    for number in range(5):
        timers.add(1.0, lambda number=number: called.append(number))
    for callback in timers.due(1.0):
        callback()
    assert called == [0, 1, 2, 3, 4]
    assert timers.next_at == math.inf


def test_a_cancelled_timer_does_not_come() -> None:
    timers = Timers()
    timer = timers.add(1.0, lambda: None)
    timer.cancel()
    timer.cancel()
    assert not timer.live
    assert timers.due(2.0) == []
    assert len(timers) == 0


def test_cancelling_after_it_came_means_nothing() -> None:
    timers = Timers()
    timer = timers.add(1.0, lambda: None)
    assert len(timers.due(1.0)) == 1
    timer.cancel()
    timers.add(2.0, lambda: None)
    assert len(timers) == 1


def test_cancelled_timers_are_swept_out() -> None:
    timers = Timers()
    kept = timers.add(5000.0, lambda: None)
    for number in range(1000):
        timers.add(float(number), lambda: None).cancel()
    assert len(timers._heap) < 600
    assert kept.live
    assert len(timers) == 1


class Thing:
    """Something that can be seen to go."""

    def call(self) -> None:
        """Nothing follows."""


def test_a_timer_that_is_over_holds_nothing() -> None:
    """The heap may keep a cancelled one for long, and whoever was called may keep one that came."""
    timers, cancelled, came = Timers(), Thing(), Thing()
    kept = timers.add(1.0, cancelled.call), timers.add(1.0, came.call)
    seen = weakref.ref(cancelled), weakref.ref(came)
    kept[0].cancel()
    timers.due(2.0).clear()
    del cancelled, came
    assert [each() for each in seen] == [None, None]


class Clock:
    """An engine whose time goes on when it is told so; as `flow.engine.Engine` it posts."""

    def __init__(self) -> None:
        self.now = 100.0
        self.clock = lambda: self.now
        self.timers = Timers()

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        return self.timers.add(self.now + seconds, callback)

    def post(self, callback: Callable[[], None]) -> None:
        callback()

    def go_on(self, seconds: float) -> None:
        self.now += seconds
        for callback in self.timers.due(self.now):
            callback()


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.sampled_from([0.0, 1.0, 2.5, 5.0]), st.booleans(), st.floats(0, 3)),
        max_size=40,
    )
)
def test_a_deadline_comes_when_it_is_due_unless_it_was_taken_back(
    steps: list[tuple[int, float, bool, float]],
) -> None:
    clock = Clock()
    deadlines = Deadlines(clock)
    due_at: dict[int, float] = {}
    called: list[int] = []

    def lapse(owner: int) -> None:
        assert due_at.pop(owner) <= clock.now
        called.append(owner)

    for owner, seconds, taken_back, pause in steps:
        if taken_back:
            deadlines.drop(owner)
            due_at.pop(owner, None)
        elif owner not in due_at:
            due_at[owner] = clock.now + seconds
            deadlines.set(owner, seconds, lambda owner=owner: lapse(owner))
        clock.go_on(pause)
        assert all(when > clock.now for when in due_at.values())
        assert len(deadlines) == len(due_at)
        assert len(clock.timers) <= 1
    clock.go_on(10)
    assert not due_at
    assert not len(deadlines)
    clock.go_on(10)
    assert not len(clock.timers)


def test_a_deadline_that_was_taken_back_holds_nobody() -> None:
    class Owner:
        def lapse(self) -> None:
            raise AssertionError

    clock, owner = Clock(), Owner()
    deadlines = Deadlines(clock)
    gone = weakref.ref(owner)
    deadlines.set(owner, 5.0, owner.lapse)
    deadlines.drop(owner)
    del owner
    assert gone() is None
