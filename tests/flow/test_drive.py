"""An engine within Trio: it sleeps, is woken, and lets the other tasks run."""

from __future__ import annotations

import socket
from collections.abc import Callable
from select import EPOLLIN

import trio

from tests.flow.driving import Bugs
from tests.flow.test_engine import Pair, no_bug
from ztunnel.flow.drive import drive
from ztunnel.flow.engine import Engine


async def test_what_trio_posts_wakes_the_engine(bugs: Bugs) -> None:
    engine = Engine(bugs)
    done = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drive, engine)
        await trio.testing.wait_all_tasks_blocked()
        engine.post(done.set)
        await done.wait()
        done = trio.Event()
        await trio.testing.wait_all_tasks_blocked(0.005)
        engine.at_round_end(lambda: done.set())
        await done.wait()
        nursery.cancel_scope.cancel()
    engine.close()


async def test_a_timer_set_while_the_engine_sleeps_wakes_it(bugs: Bugs) -> None:
    engine = Engine(bugs)
    done = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drive, engine)
        engine.after(3600, lambda: None)
        await trio.testing.wait_all_tasks_blocked()
        engine.after(0.001, done.set)
        await done.wait()
        nursery.cancel_scope.cancel()
    engine.close()


async def test_a_descriptor_watched_while_the_engine_sleeps_wakes_it(bugs: Bugs, pair: Pair) -> None:
    engine = Engine(bugs)
    near, far = pair()
    done = trio.Event()

    def ready(mask: int) -> None:
        near.recv(1)
        done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drive, engine)
        await trio.testing.wait_all_tasks_blocked()
        engine.watch(near.fileno(), EPOLLIN, ready, no_bug)
        far.send(b"x")
        await done.wait()
        nursery.cancel_scope.cancel()
    engine.close()


async def test_an_engine_that_is_driven_no_more_is_not_woken(bugs: Bugs) -> None:
    engine = Engine(bugs)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drive, engine)
        await trio.testing.wait_all_tasks_blocked()
        assert engine.wake is not None
        nursery.cancel_scope.cancel()
    assert engine.wake is None
    engine.close()


async def test_trio_tasks_run_while_flows_are_busy(bugs: Bugs, pair: Pair) -> None:
    engine = Engine(bugs)
    near, far = pair()
    messages = 0

    def bounce(end: socket.socket) -> Callable[[int], None]:
        def ready(mask: int) -> None:
            nonlocal messages
            messages += 1
            end.send(end.recv(10))

        return ready

    gaps: list[float] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drive, engine)
        for end in (near, far):
            engine.watch(end.fileno(), EPOLLIN, bounce(end), no_bug)
        far.send(b"x")
        before = trio.current_time()
        while len(gaps) < 30:
            await trio.lowlevel.checkpoint()
            now = trio.current_time()
            gaps.append(now - before)
            before = now
        nursery.cancel_scope.cancel()
    engine.close()
    assert messages > 100
    # The middle of the gaps: single ones are the machine's, which tests share.
    assert sorted(gaps)[15] < 0.02


async def test_tasks_that_are_in_a_hurry_get_more_turns_while_flows_are_busy(bugs: Bugs) -> None:
    turns = {}
    for awaited in (0, 1):
        engine = Engine(bugs)
        engine.awaited = awaited
        rounds = 0

        def busy(engine: Engine = engine) -> None:
            nonlocal rounds
            rounds += 1
            engine.next_round(busy)

        turns[awaited] = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drive, engine)
            engine.next_round(busy)
            while rounds < 20_000:
                await trio.lowlevel.checkpoint()
                turns[awaited] += 1
            nursery.cancel_scope.cancel()
        engine.close()
    assert turns[1] > 2 * turns[0]
