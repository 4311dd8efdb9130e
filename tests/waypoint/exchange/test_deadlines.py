"""Timers of an exchange."""

from __future__ import annotations

from tests.waypoint.rig import Clock
from ztunnel.waypoint.exchange.deadlines import Deadlines


def test_each_timer_is_called_once_unless_it_is_not_needed_any_more() -> None:
    clock, called = Clock(), list[str]()
    timers = Deadlines(clock.after)
    timers.wait(1, lambda: called.append("wait"))
    timers.begin(3, lambda: called.append("all"))
    timers.begin(1, lambda: called.append("never: there is one"))
    timers.begin_try(2, lambda: called.append("try"))
    clock.sleep(2.5)
    assert called == ["wait", "try"]
    timers.end_try()
    timers.begin_try(1, lambda: called.append("another try"))
    timers.end_try()
    clock.sleep(1)
    assert called == ["wait", "try", "all"]


def test_no_time_is_no_timer_and_the_end_is_that_of_all() -> None:
    clock = Clock()
    timers = Deadlines(clock.after)
    timers.begin(0, lambda: None)
    timers.begin_try(0, lambda: None)
    assert len(clock.timers) == 0
    timers.begin(5, lambda: None)
    timers.begin_try(5, lambda: None)
    timers.wait(5, lambda: None)
    timers.end()
    timers.end()
    assert len(clock.timers) == 0
