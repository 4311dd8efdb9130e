"""Counts what tasks do between two checkpoints, in calls of functions: these are the same on every machine,
and time is not."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType

import trio


class Turns(trio.abc.Instrument):
    """The longest turn of each task, by its name, while it is entered.

    Attributes:
        longest: calls of functions, Python's and C's.
    """

    def __init__(self) -> None:
        self.longest: Counter[str] = Counter()
        self._calls = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._calls = 0

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.longest[task.name] = max(self.longest[task.name], self._calls)

    def __enter__(self) -> Turns:
        trio.lowlevel.add_instrument(self)
        sys.setprofile(self._count)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        trio.lowlevel.remove_instrument(self)

    def _count(self, frame: FrameType, event: str, of: object) -> None:
        if event in ("call", "c_call"):
            self._calls += 1


def calls_of(act: Callable[[], object]) -> int:
    """How many functions it calls."""
    counted = Counter[str]()

    def count(frame: FrameType, event: str, of: object) -> None:
        counted[event] += 1

    sys.setprofile(count)
    try:
        act()
    finally:
        sys.setprofile(None)
    return counted["call"] + counted["c_call"]
