"""Steps that are computed in threads: called back in the engine, in turns, each by itself."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Iterator

import pytest

from tests.flow.driving import Bugs, drive
from ztunnel.flow.compute import Computers
from ztunnel.flow.engine import Engine


@pytest.fixture
def computers(engine: Engine) -> Iterator[Computers]:
    made = Computers(engine, 2)
    yield made
    made.close()


def test_a_step_runs_in_a_thread_and_its_end_in_the_engine(engine: Engine, computers: Computers) -> None:
    ran: list[int] = []
    told: list[tuple[int, BaseException | None]] = []
    computers.submit(
        "pod",
        "source",
        lambda: ran.append(threading.get_ident()),
        lambda error: told.append((threading.get_ident(), error)),
    )
    drive(engine, until=lambda: told)
    assert ran != [threading.get_ident()]
    assert told == [(threading.get_ident(), None)]


def test_what_a_step_raises_is_told(engine: Engine, computers: Computers) -> None:
    told: list[BaseException | None] = []
    error = ValueError("not so")

    def step() -> None:
        raise error

    computers.submit("pod", "source", step, told.append)
    drive(engine, until=lambda: told)
    assert told == [error]


def test_steps_wait_in_turns_when_all_threads_are_busy(engine: Engine, computers: Computers) -> None:
    go, ran, told = threading.Event(), [], []

    def wait() -> None:
        go.wait(10)

    def submit(source: str) -> None:
        computers.submit("pod", source, lambda: ran.append(source), told.append)

    for _ in range(2):
        computers.submit("pod", "first", wait, told.append)
    for _ in range(5):
        submit("greedy")
    submit("honest")
    assert ran == []
    go.set()
    drive(engine, until=lambda: len(told) == 8)
    # Two threads: of neighbours in the queue either may be noted first.
    assert ran.index("honest") <= 2
    assert len(ran) == 6


def test_a_bug_in_what_is_called_back_is_told_and_the_others_are_called(bugs: Bugs) -> None:
    engine = Engine(bugs)
    computers = Computers(engine, 2)
    told: list[BaseException | None] = []

    def bug(error: BaseException | None) -> None:
        raise RuntimeError("a bug")

    for done in (bug, told.append, bug, told.append):
        computers.submit("pod", "source", lambda: None, done)
    drive(engine, until=lambda: len(told) == 2 and len(bugs) == 2)
    assert [str(each) for each in bugs] == ["a bug"] * 2
    bugs.clear()
    computers.close()
    engine.close()


def test_without_descriptors_the_first_step_is_refused_and_a_later_one_computed(engine: Engine) -> None:
    computers, told = Computers(engine, 2), []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            computers.submit("pod", "source", lambda: None, told.append)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    computers.submit("pod", "source", lambda: None, told.append)
    drive(engine, until=lambda: told)
    assert told == [None]
    computers.close()


def test_after_the_end_nothing_is_computed_and_nothing_left(engine: Engine) -> None:
    before = len(os.listdir("/proc/self/fd"))
    computers = Computers(engine, 2)
    go, told = threading.Event(), []

    def wait() -> None:
        go.wait(10)

    for _ in range(4):
        computers.submit("pod", "source", wait, told.append)
    go.set()
    computers.close()
    computers.close()
    computers.submit("pod", "source", wait, told.append)
    drive(engine)
    assert told == []
    assert len(os.listdir("/proc/self/fd")) == before
