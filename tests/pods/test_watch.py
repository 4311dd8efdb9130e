from __future__ import annotations

import subprocess

import pytest

from tests.flow.driving import Bugs, Clock, drive
from tests.kernel.lab import unique
from ztunnel.flow.engine import Engine
from ztunnel.pods.watch import (
    FIRST_AGAIN_SECONDS,
    LOOK_AGAIN_SECONDS,
    MOUNTS_SECONDS,
    TRY_AGAIN_SECONDS,
    Arrivals,
)

pytestmark = pytest.mark.root


def test_what_has_just_come_is_tried_again_soon_and_then_less_often() -> None:
    arrivals = Arrivals(Engine(Bugs()), lambda: None)
    assert arrivals.pause(False) == LOOK_AGAIN_SECONDS
    pauses = [arrivals.pause(True) for _ in range(20)]
    assert pauses[0] == FIRST_AGAIN_SECONDS
    assert sorted(pauses) == pauses
    assert pauses[-1] == TRY_AGAIN_SECONDS
    assert arrivals.pause(False) == LOOK_AGAIN_SECONDS
    assert arrivals.pause(True) == FIRST_AGAIN_SECONDS


def test_a_namespace_that_comes_is_looked_for_at_once_while_one_is_waited_for() -> None:
    engine, name, stirred = Engine(Bugs()), unique(), []
    arrivals = Arrivals(engine, lambda: stirred.append(1))
    arrivals.open()
    try:
        arrivals.pause(False)
        subprocess.run(["ip", "netns", "add", name], check=True)
        drive(engine)
        assert stirred == []
        for _ in range(9):
            arrivals.pause(True)
        subprocess.run(["ip", "netns", "del", name], check=True)
        drive(engine, until=lambda: stirred)
        assert arrivals.pause(True) == FIRST_AGAIN_SECONDS
    finally:
        arrivals.close()
        arrivals.close()
        engine.close()


def test_others_that_come_and_go_are_looked_at_a_moment_later_all_at_once() -> None:
    clock, name, stirred = Clock(), unique(), []
    engine = Engine(Bugs(), clock)
    arrivals = Arrivals(engine, lambda: stirred.append(1))
    arrivals.open()
    try:
        arrivals.pause(False)
        for what in ("add", "del", "add", "del"):
            subprocess.run(["ip", "netns", what, name], check=True)
            drive(engine)
        assert stirred == []
        clock.move(MOUNTS_SECONDS)
        drive(engine, until=lambda: stirred)
        assert stirred == [1]
        subprocess.run(["ip", "netns", "add", name], check=True)
        drive(engine, until=lambda: engine.next_timer < float("inf"))
        arrivals.close()
        clock.move(MOUNTS_SECONDS)
        drive(engine)
        assert stirred == [1]
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False, stderr=subprocess.DEVNULL)
        arrivals.close()
        engine.close()
