"""The engine where many descriptors are ready at once: who has its turn, and when."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from select import EPOLLIN

import pytest

from tests.flow.driving import Clock
from ztunnel.flow import engine as engine_module
from ztunnel.flow.engine import LOOK_SECONDS, ROUND_SECONDS, UNORDERED_SECONDS, YIELD_SECONDS, Engine
from ztunnel.flow.held import HeldBytes, Share
from ztunnel.flow.poll import CROWD, FEW_EVENTS, Poll

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


def test_beside_a_crowd_who_becomes_ready_waits_for_less_than_a_round(
    engine: Engine, clock: Clock, ready: Make
) -> None:
    crowd, modest = shares(2)
    step = LOOK_SECONDS / 5
    waited: list[float] = []
    seen = 0

    def read(fd: int) -> None:
        os.eventfd_read(fd)
        waited.append(clock() - came)

    def leave(fd: int) -> None:
        nonlocal seen, came
        seen += 1
        if seen == 3:
            ready(read, modest)
            came = clock()
        clock.move(step)

    came = 0.0
    for _ in range(2 * CROWD):
        ready(leave, crowd)
    engine.round()
    assert seen <= 6, "cut off at the first look"
    engine.round()
    [seconds] = waited
    assert seconds <= LOOK_SECONDS + 2 * step


def test_a_crowd_alone_has_the_whole_round(engine: Engine, clock: Clock, ready: Make) -> None:
    (crowd,) = shares(1)
    handled: list[int] = []

    def leave(fd: int) -> None:
        handled.append(fd)
        clock.move(LOOK_SECONDS / 5)

    for _ in range(2 * CROWD):
        ready(leave, crowd)
    engine.round()
    assert len(handled) == pytest.approx(ROUND_SECONDS / LOOK_SECONDS * 5, abs=1)


@pytest.mark.parametrize(
    ("seconds", "goes", "times"),
    [(YIELD_SECONDS / 2, True, 0), (YIELD_SECONDS * 2, True, 1), (YIELD_SECONDS * 2, False, 0)],
)
def test_after_a_long_round_in_which_flows_went_others_have_the_cpu(
    engine: Engine, clock: Clock, monkeypatch: pytest.MonkeyPatch, seconds: float, goes: bool, times: int
) -> None:
    yielded: list[float] = []
    monkeypatch.setattr(engine_module, "sched_yield", lambda: yielded.append(clock()))
    fd = os.eventfd(1, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def handled(mask: int) -> None:
        clock.move(seconds)
        if goes:
            engine.unwatch(fd)

    engine.watch(fd, EPOLLIN, handled, no_bug)
    engine.round()
    assert len(yielded) == times
    if not goes:
        engine.unwatch(fd)
    os.close(fd)


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


@pytest.mark.parametrize("count", [2 * FEW_EVENTS, MANY])
def test_what_was_given_back_in_this_round_is_not_called(engine: Engine, ready: Make, count: int) -> None:
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

    made.extend(make() for _ in range(count))
    engine.round()
    assert len(handled) == 1
    engine.unwatch(handled[0])
    for fd in made:
        os.close(fd)


@pytest.fixture
def poll() -> Iterator[Poll]:
    poll = Poll()
    yield poll
    poll.close()


@pytest.fixture
def eventfds() -> Iterator[list[int]]:
    """Some more than a source has in the set itself; each is ready."""
    made = [os.eventfd(1, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(CROWD + 10)]
    yield made
    for fd in made:
        os.close(fd)


def told(poll: Poll, rounds: int = 20) -> set[int]:
    """What it tells of in so many rounds."""
    return {fd for _ in range(rounds) for fd, _ in poll.ready(0)}


def test_a_source_with_many_has_a_set_of_its_own_as_long_as_it_has_any(
    poll: Poll, eventfds: list[int]
) -> None:
    (greedy,) = shares(1)
    before = len(os.listdir("/proc/self/fd"))
    for fd in eventfds[:CROWD]:
        poll.register(fd, EPOLLIN, greedy)
    assert len(os.listdir("/proc/self/fd")) == before
    for fd in eventfds[CROWD:]:
        poll.register(fd, EPOLLIN, greedy)
    assert len(os.listdir("/proc/self/fd")) == before + 1
    assert told(poll) == set(eventfds)
    for fd in eventfds[1:]:
        poll.unregister(fd)
    assert told(poll) == {eventfds[0]}
    poll.forget(eventfds[0])
    assert len(os.listdir("/proc/self/fd")) == before
    assert told(poll) == set()


def test_each_is_told_of_by_what_it_waits_for_and_whoever_it_is_among(
    poll: Poll, eventfds: list[int]
) -> None:
    (greedy,) = shares(1)
    for fd in eventfds:
        poll.register(fd, 0, greedy)
    assert told(poll) == set()
    for fd in eventfds[::2]:
        poll.modify(fd, EPOLLIN)
    assert told(poll) == set(eventfds[::2])
    for fd in eventfds[::2]:
        poll.unregister(fd)
    for fd in eventfds[1::2]:
        poll.modify(fd, EPOLLIN)
    assert told(poll) == set(eventfds[1::2])


def test_of_a_crowd_a_round_is_told_some_and_of_all_by_and_by(poll: Poll) -> None:
    (greedy,) = shares(1)
    made = [os.eventfd(1, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(MANY)]
    for fd in made:
        poll.register(fd, EPOLLIN, greedy)
    seen: set[int] = set()
    for _ in range(MANY // 4):
        events = poll.ready(0)
        assert len(events) <= 2 * FEW_EVENTS
        for fd, _mask in events[:10]:
            poll.served(fd)
            seen.add(fd)
        if len(events) > 10:
            poll.leave(events, events[9][0])
    assert seen == set(made)
    for fd in made:
        os.close(fd)


def test_without_a_descriptor_for_another_set_all_are_in_one(poll: Poll, eventfds: list[int]) -> None:
    (greedy,) = shares(1)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = os.dup(eventfds[0])
    os.close(spare)  # the lowest that is free
    resource.setrlimit(resource.RLIMIT_NOFILE, (spare, limits[1]))
    try:
        for fd in eventfds:
            poll.register(fd, EPOLLIN, greedy)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert told(poll) == set(eventfds)


def test_what_cannot_be_watched_leaves_nothing_behind(poll: Poll, eventfds: list[int]) -> None:
    (greedy,) = shares(1)
    for fd in eventfds[:CROWD]:
        poll.register(fd, EPOLLIN, greedy)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="Bad file descriptor"):
        poll.register(1 << 20, EPOLLIN, greedy)
    assert len(os.listdir("/proc/self/fd")) == before
    assert told(poll) == set(eventfds[:CROWD])
