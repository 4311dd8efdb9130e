"""The engine where many descriptors are ready at once: who has its turn, and when."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from select import EPOLLIN

import pytest

from tests.flow.driving import Clock
from ztunnel.flow.engine import ROUND_SECONDS, UNORDERED_SECONDS, Engine
from ztunnel.flow.held import HeldBytes, Share
from ztunnel.flow.poll import FEW_EVENTS

MANY = 40 * FEW_EVENTS

Make = Callable[[Callable[[int], None], Share | None], int]


@pytest.fixture
def ready(engine: Engine) -> Iterator[Make]:
    """Watches a new descriptor that is ready until it is read: `handled(descriptor)` is called then."""
    made: list[int] = []

    def make(handled: Callable[[int], None], share: Share | None) -> int:
        fd = os.eventfd(1, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        made.append(fd)
        engine.watch(fd, EPOLLIN, lambda mask: handled(fd), no_bug, share)
        return fd

    yield make
    for fd in made:
        engine.unwatch(fd)
        os.close(fd)


def no_bug(bug: BaseException) -> None:
    raise AssertionError(bug)


def shares(count: int) -> list[Share]:
    held = HeldBytes()
    return [held.share("pod", f"source-{number}") for number in range(count)]


def test_many_of_one_source_stand_before_nobody_elses(engine: Engine, clock: Clock, ready: Make) -> None:
    greedy, modest = shares(2)
    handled: list[str] = []

    def handle(name: str) -> Callable[[int], None]:
        def read(fd: int) -> None:
            os.eventfd_read(fd)
            handled.append(name)
            clock.move(ROUND_SECONDS / 10)

        return read

    for _ in range(MANY):
        ready(handle("greedy"), greedy)
    ready(handle("modest"), modest)
    ready(handle("nobody's"), None)
    engine.round()
    assert set(handled[:3]) == {"greedy", "modest", "nobody's"}
    assert handled.count("greedy") < FEW_EVENTS


def test_a_few_that_take_long_stand_before_nobody_elses_for_longer_than_a_round(
    engine: Engine, clock: Clock, ready: Make
) -> None:
    greedy, modest = shares(2)
    handled: list[str] = []

    def leave(fd: int) -> None:
        handled.append("greedy")
        clock.move(UNORDERED_SECONDS / 4)

    def read(fd: int) -> None:
        os.eventfd_read(fd)
        handled.append("modest")

    for _ in range(FEW_EVENTS // 4):
        ready(leave, greedy)
    engine.round()
    assert len(handled) == 4
    ready(read, modest)
    engine.round()
    assert "modest" in handled[4:6]
    assert len(handled) <= 7


@pytest.mark.parametrize("count", [FEW_EVENTS // 2, MANY])
def test_a_round_is_cut_off_and_the_rest_comes_in_the_next(
    engine: Engine, clock: Clock, ready: Make, count: int
) -> None:
    (greedy,) = shares(1)
    handled: list[int] = []

    def read(fd: int) -> None:
        os.eventfd_read(fd)
        handled.append(fd)
        clock.move(ROUND_SECONDS / 10)

    made = [ready(read, greedy) for _ in range(count)]
    engine.round()
    assert len(handled) <= 21
    while engine.round():
        pass
    assert sorted(handled) == sorted(made)


@pytest.mark.parametrize("count", [FEW_EVENTS // 2, MANY])
@pytest.mark.parametrize("sources", [0, 1, 40])
def test_who_stays_ready_keeps_nobody_from_its_turn(
    engine: Engine, clock: Clock, ready: Make, sources: int, count: int
) -> None:
    """As connections do whose peer sends faster than they are read; 0: each is nobody else's."""
    handled: dict[int, int] = {}

    def leave(fd: int) -> None:
        handled[fd] = handled.get(fd, 0) + 1
        clock.move(ROUND_SECONDS / 10)

    theirs = shares(sources)
    for number in range(count):
        ready(leave, theirs[number % sources] if sources else None)
    for _ in range(count // 10 * 3):
        engine.round()
    assert len(handled) == count
    assert max(handled.values()) <= 2 * min(handled.values())


def test_what_was_given_back_in_this_round_is_not_called(engine: Engine, ready: Make) -> None:
    (greedy,) = shares(1)
    handled: list[int] = []
    made: list[int] = []

    def once(fd: int) -> None:
        handled.append(fd)
        for other in made:
            if other != fd:
                engine.unwatch(other)

    def make() -> int:
        fd = os.eventfd(1, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        engine.watch(fd, EPOLLIN, lambda mask: once(fd), no_bug, greedy)
        return fd

    made.extend(make() for _ in range(2 * FEW_EVENTS))
    engine.round()
    assert len(handled) == 1
    engine.unwatch(handled[0])
    for fd in made:
        os.close(fd)
