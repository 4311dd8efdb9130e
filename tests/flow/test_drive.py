"""An engine within Trio: it waits in Trio's place or sleeps in it, is woken, and lets the other tasks run."""

from __future__ import annotations

import socket
import threading
from collections.abc import Awaitable, Callable
from select import EPOLLIN

import pytest
import trio
import trio.testing

from tests.flow.driving import Bugs
from tests.flow.test_engine import Pair, no_bug
from ztunnel.flow.drive import drive, drive_by_task
from ztunnel.flow.engine import Engine

Drive = Callable[[Engine], Awaitable[None]]
either_way = pytest.mark.parametrize("way", [drive, drive_by_task], ids=["in Trio's place", "by a task"])


async def settle() -> None:
    """Until a driver that has just been started has looked at everything; it may be asleep by then."""
    await trio.sleep(0.005)


@either_way
async def test_what_trio_posts_wakes_the_engine(bugs: Bugs, way: Drive) -> None:
    engine = Engine(bugs)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(way, engine)
        for ask in (engine.post, engine.at_round_end, engine.afterwards, engine.next_round):
            await settle()
            done = trio.Event()
            ask(done.set)
            await done.wait()
        nursery.cancel_scope.cancel()
    engine.close()


@either_way
async def test_a_timer_set_while_the_engine_sleeps_wakes_it(bugs: Bugs, way: Drive) -> None:
    engine = Engine(bugs)
    done = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(way, engine)
        engine.after(3600, lambda: None)
        await settle()
        engine.after(0.001, done.set)
        await done.wait()
        nursery.cancel_scope.cancel()
    engine.close()


@either_way
async def test_a_descriptor_watched_while_the_engine_sleeps_wakes_it(
    bugs: Bugs, pair: Pair, way: Drive
) -> None:
    engine = Engine(bugs)
    near, far = pair()
    done = trio.Event()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(way, engine)
        await settle()
        engine.watch(near.fileno(), EPOLLIN, reading(near, done), no_bug)
        far.send(b"x")
        await done.wait()
        nursery.cancel_scope.cancel()
    engine.close()


async def test_an_engine_that_is_driven_no_more_is_not_woken(bugs: Bugs) -> None:
    engine = Engine(bugs)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drive_by_task, engine)
        await trio.testing.wait_all_tasks_blocked()
        assert engine.wake is not None
        nursery.cancel_scope.cancel()
    assert engine.wake is None
    engine.close()


def bounce(engine: Engine, pair: tuple[socket.socket, socket.socket]) -> list[int]:
    """A message that goes there and back for ever; the length of what is returned is how often."""
    near, far = pair
    messages: list[int] = []

    def ready_of(end: socket.socket) -> Callable[[int], None]:
        def ready(mask: int) -> None:
            messages.append(mask)
            end.send(end.recv(10))

        return ready

    for end in (near, far):
        engine.watch(end.fileno(), EPOLLIN, ready_of(end), no_bug)
    far.send(b"x")
    return messages


@either_way
async def test_trio_tasks_run_while_flows_are_busy(bugs: Bugs, pair: Pair, way: Drive) -> None:
    engine = Engine(bugs)
    gaps: list[float] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(way, engine)
        messages = bounce(engine, pair())
        before = trio.current_time()
        while len(gaps) < 30:
            await trio.lowlevel.checkpoint()
            now = trio.current_time()
            gaps.append(now - before)
            before = now
        nursery.cancel_scope.cancel()
    engine.close()
    assert len(messages) >= 30  # one round at least between two turns
    # The middle of the gaps: single ones are the machine's, which tests share.
    assert sorted(gaps)[15] < 0.02


@either_way
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
async def test_what_trio_waits_for_comes_whatever_flows_do(
    bugs: Bugs, pair: Pair, way: Drive, busy: bool
) -> None:
    engine = Engine(bugs)
    (near, far), others = pair(), pair()
    other = threading.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(way, engine)
        if busy:
            bounce(engine, others)
        await settle()
        await trio.sleep(0.01)  # 1. a deadline
        await trio.to_thread.run_sync(other.set)  # 2. another thread
        assert other.is_set()
        async with trio.open_nursery() as reading:  # 3. a descriptor
            reading.start_soon(trio.lowlevel.wait_readable, near)
            await settle()
            far.send(b"x")
        begun = trio.Event()  # 4. a task that a callback of the engine begins
        engine.after(0.003, lambda: nursery.start_soon(wait_and_set, begun))
        await begun.wait()
        with trio.CancelScope() as scope:  # 5. what a callback gives up
            engine.after(0.003, scope.cancel)
            await trio.sleep_forever()
        nursery.cancel_scope.cancel()
    engine.close()


async def wait_and_set(event: trio.Event) -> None:
    await trio.lowlevel.checkpoint()
    event.set()


async def test_a_message_to_an_idle_engine_is_no_work_for_trio(bugs: Bugs, pair: Pair) -> None:
    class Turns(trio.abc.Instrument):
        taken = 0

        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            self.taken += 1

    engine, turns = Engine(bugs), Turns()
    near, far = pair()
    left, done = [20], trio.Event()

    def ready(mask: int) -> None:
        near.recv(1)
        left[0] -= 1
        if left[0]:
            engine.after(0.004, lambda: far.send(b"x"))
        else:
            done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drive, engine)
        engine.watch(near.fileno(), EPOLLIN, ready, no_bug)
        await settle()
        far.send(b"x")
        trio.lowlevel.add_instrument(turns)
        await done.wait()
        trio.lowlevel.remove_instrument(turns)
        nursery.cancel_scope.cancel()
    engine.close()
    assert turns.taken < 10


def reading(sock: socket.socket, done: trio.Event) -> Callable[[int], None]:
    def ready(mask: int) -> None:
        sock.recv(1)
        done.set()

    return ready


async def test_two_engines_of_one_run_are_both_driven(bugs: Bugs, pair: Pair) -> None:
    engines = [Engine(bugs), Engine(bugs)]
    async with trio.open_nursery() as nursery:
        for engine in engines:
            nursery.start_soon(drive, engine)
        await settle()
        for engine in engines:
            near, far = pair()
            done = trio.Event()
            engine.watch(near.fileno(), EPOLLIN, reading(near, done), no_bug)
            await settle()
            far.send(b"x")
            await done.wait()
        nursery.cancel_scope.cancel()
    for engine in engines:
        engine.close()


async def test_an_engine_that_cannot_go_on_ends_its_driver(bugs: Bugs) -> None:
    engine = Engine(bugs)

    def broken() -> float:
        raise ZeroDivisionError

    with pytest.RaisesGroup(ZeroDivisionError):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drive, engine)
            await settle()
            engine.clock = broken
            await trio.sleep_forever()
    engine.close()


async def test_one_engine_after_the_other_waits_in_trios_place(bugs: Bugs) -> None:
    for _ in range(2):
        engine = Engine(bugs)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drive, engine)
            await settle()
            assert engine.wake is None
            nursery.cancel_scope.cancel()
        engine.close()
