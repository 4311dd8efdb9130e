"""The engine: callbacks, timers, posts, bugs; and Trio beside it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from select import EPOLLIN, EPOLLOUT

import pytest

from tests.flow.driving import Bugs, Clock, drive
from ztunnel.flow.engine import BREATH_SECONDS, Engine

Pair = Callable[[], tuple[socket.socket, socket.socket]]


def no_bug(bug: BaseException) -> None:
    raise AssertionError(bug)


def test_a_ready_descriptor_is_called_with_its_mask(engine: Engine, pair: Pair) -> None:
    near, far = pair()
    masks: list[int] = []
    engine.watch(near.fileno(), EPOLLIN, lambda mask: masks.append(mask), no_bug)
    assert not engine.round(0)
    far.send(b"x")
    drive(engine, until=lambda: masks)
    assert masks[0] == EPOLLIN


def test_other_events_can_be_waited_for(engine: Engine, pair: Pair) -> None:
    near, _ = pair()
    masks: list[int] = []
    engine.watch(near.fileno(), EPOLLIN, lambda mask: masks.append(mask), no_bug)
    engine.rewatch(near.fileno(), EPOLLOUT)
    assert engine.round(0)
    assert masks == [EPOLLOUT]


def test_a_descriptor_given_back_is_not_called_even_if_it_was_ready_in_this_round(
    engine: Engine, pair: Pair
) -> None:
    called: list[int] = []
    ends = [pair() for _ in range(2)]

    def ready_of(number: int) -> Callable[[int], None]:
        def ready(mask: int) -> None:
            called.append(number)
            engine.unwatch(ends[1 - number][0].fileno())

        return ready

    for number, (near, far) in enumerate(ends):
        far.send(b"x")
        engine.watch(near.fileno(), EPOLLIN, ready_of(number), no_bug)
    engine.round(0)
    assert len(called) == 1


def test_a_new_owner_of_a_closed_descriptor_does_not_get_the_old_ones_event(
    engine: Engine, pair: Pair
) -> None:
    (first, first_far), (second, second_far) = pair(), pair()
    mistaken: list[int] = []

    def reopen(closing: socket.socket) -> Callable[[int], None]:
        def ready(mask: int) -> None:
            fd = closing.fileno()
            engine.forget(fd)
            closing.close()
            fresh, _ = pair()
            assert fresh.fileno() == fd
            engine.watch(fd, 0, mistaken.append, no_bug)
            engine.unwatch(current(closing).fileno())

        return ready

    def current(one: socket.socket) -> socket.socket:
        return second if one is first else first

    for near, far in ((first, first_far), (second, second_far)):
        far.send(b"x")
        engine.watch(near.fileno(), EPOLLIN, reopen(near), no_bug)
    engine.round(0)
    assert mistaken == []


def test_round_ends_come_after_everything_that_was_ready(engine: Engine, pair: Pair) -> None:
    order: list[str] = []
    for _ in range(2):
        near, far = pair()
        far.send(b"x")

        def ready(mask: int, near: socket.socket = near) -> None:
            near.recv(1)
            order.append("ready")
            engine.at_round_end(lambda: order.append("end"))

        engine.watch(near.fileno(), EPOLLIN, ready, no_bug)
    drive(engine, until=lambda: len(order) >= 4)
    assert order == ["ready", "ready", "end", "end"]


def test_what_is_posted_within_a_round_is_done_in_it(engine: Engine) -> None:
    order: list[str] = []
    engine.post(lambda: engine.post(lambda: order.append("inner")))
    engine.at_round_end(lambda: order.append("end"))
    assert engine.round(0)
    assert sorted(order) == ["end", "inner"]


def test_timers_come_when_they_are_due(engine: Engine, clock: Clock) -> None:
    called: list[str] = []
    engine.after(5, lambda: called.append("late"))
    engine.after(1, lambda: called.append("soon"))
    engine.after(1, lambda: called.append("never")).cancel()
    engine.round(0)
    assert called == []
    clock.move(1)
    engine.round(0)
    assert called == ["soon"]
    clock.move(4)
    engine.round(0)
    assert called == ["soon", "late"]


def test_a_bug_ends_its_flow_and_no_other(engine: Engine, pair: Pair, bugs: Bugs) -> None:
    (bad, bad_far), (good, good_far) = pair(), pair()
    abandoned: list[BaseException] = []
    called: list[int] = []

    def fail(mask: int) -> None:
        raise LookupError("wrong")

    def abandon(bug: BaseException) -> None:
        abandoned.append(bug)
        engine.unwatch(bad.fileno())

    engine.watch(bad.fileno(), EPOLLIN, fail, abandon)
    engine.watch(good.fileno(), EPOLLIN, called.append, no_bug)
    bad_far.send(b"x")
    good_far.send(b"x")
    drive(engine, until=lambda: called and abandoned)
    assert [str(bug) for bug in bugs] == ["wrong"]
    assert abandoned == bugs
    bugs.clear()


def test_a_bug_while_a_flow_is_ended_for_a_bug_is_told_too(engine: Engine, pair: Pair, bugs: Bugs) -> None:
    near, far = pair()

    def fail(mask: int) -> None:
        raise LookupError("first")

    def abandon(bug: BaseException) -> None:
        engine.unwatch(near.fileno())
        raise LookupError("second")

    engine.watch(near.fileno(), EPOLLIN, fail, abandon)
    far.send(b"x")
    drive(engine, until=lambda: bugs)
    assert [str(bug) for bug in bugs] == ["second", "first"]
    bugs.clear()


@pytest.mark.parametrize("how", ["post", "at_round_end", "after"])
def test_bugs_elsewhere_are_told(engine: Engine, bugs: Bugs, how: str) -> None:
    def fail() -> None:
        raise LookupError(how)

    if how == "after":
        engine.after(0, fail)
    else:
        getattr(engine, how)(fail)
    engine.round(0)
    engine.round(0)
    assert [str(bug) for bug in bugs] == [how]
    bugs.clear()


def test_what_nobody_waits_for_comes_when_everything_has_left(engine: Engine) -> None:
    order: list[str] = []
    engine.afterwards(lambda: order.append("later"))
    engine.at_round_end(lambda: order.append("sent"))
    engine.post(lambda: order.append("posted"))
    engine.post(lambda: engine.at_round_end(lambda: order.append("sent too")))
    assert engine.has_calls
    engine.round(0)
    assert order == ["posted", "sent", "sent too", "later"]
    assert not engine.has_calls


def test_what_it_asks_for_in_turn_is_of_the_same_round(engine: Engine) -> None:
    order: list[str] = []
    engine.afterwards(lambda: engine.post(lambda: order.append("posted")))
    engine.round(0)
    assert order == ["posted"]


def test_what_is_put_off_to_the_next_round_comes_once_and_behind_what_is_ready_then(
    engine: Engine, pair: Pair
) -> None:
    near, far = pair()
    order: list[str] = []

    def ready(mask: int) -> None:
        near.recv(1)
        order.append("ready")

    engine.watch(near.fileno(), EPOLLIN, ready, no_bug)
    engine.next_round(lambda: engine.next_round(lambda: order.append("later")))
    assert engine.has_calls
    engine.round()
    assert order == []
    far.send(b"x")
    engine.round()
    assert order == ["ready", "later"]
    engine.round()
    assert order == ["ready", "later"]
    assert not engine.has_calls
    engine.unwatch(near.fileno())


def test_it_carries_until_it_is_interrupted(engine: Engine, pair: Pair) -> None:
    near, far = pair()
    received: list[bytes] = []

    def ready(mask: int) -> None:
        received.append(near.recv(1))
        engine.interrupted = len(received) == 3

    engine.watch(near.fileno(), EPOLLIN, ready, no_bug)
    far.send(b"abcd")
    engine.carry(engine.clock() + 3600, [])
    assert received == [b"a", b"b", b"c"]
    engine.unwatch(near.fileno())


def test_it_carries_until_its_time_is_over_whatever_is_ready(engine: Engine, clock: Clock) -> None:
    rounds: list[float] = []

    def again() -> None:
        rounds.append(engine.now)
        clock.move(1)
        engine.next_round(again)

    engine.next_round(again)
    engine.carry(clock() + 5, [])
    assert len(rounds) == 5


def test_a_timer_ends_its_wait(engine: Engine, clock: Clock) -> None:
    called: list[float] = []

    def due() -> None:
        called.append(clock())
        engine.interrupted = True

    engine.after(0, due)
    engine.carry(clock() + 3600, [])
    assert called == [clock()]


def test_tasks_wait_for_busy_flows_but_not_for_long(engine: Engine, clock: Clock) -> None:
    tasks: list[str] = []
    rounds: list[float] = []

    def again() -> None:
        if not rounds:
            tasks.append("runnable")
        rounds.append(engine.now)
        clock.move(BREATH_SECONDS / 4)
        engine.next_round(again)

    engine.next_round(again)
    engine.carry(clock() + 3600, tasks)
    assert 4 <= len(rounds) <= 6


def test_tasks_do_not_wait_for_idle_flows(engine: Engine, clock: Clock) -> None:
    tasks: list[str] = []
    engine.post(lambda: tasks.append("runnable"))
    engine.carry(clock() + 3600, tasks)
    assert tasks
