"""Timers come due in order, and cancelled ones cost nothing for long."""

from __future__ import annotations

import math
import weakref

from ztunnel.flow.timers import Timers


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
