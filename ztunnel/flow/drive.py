"""Drives a flow engine within Trio, on Trio's thread.

```
Trio has tasks to run:   rounds of the engine for up to a millisecond between two turns of theirs
Trio would sleep:        the engine waits in its place, in one epoll set that has Trio's own in it: until
                         Trio's descriptors, a deadline, or a task that a callback made runnable need it
```

So a message costs no task switch, however long none has come: waking a task of Trio's for it costs 115 us
and more. And what Trio waits for does not wait until flows are idle.

Trio calls us where it would sleep (`trio.abc.Instrument`). That its epoll set and its line of tasks are to be
had is no promise of Trio's. Where they are not, and for a second engine of one run, which is in Trio's set
then, a task sleeps in Trio until there is something to do (`drive_by_task`).
"""

from __future__ import annotations

import math
from collections.abc import Sized
from select import EPOLLIN
from typing import NamedTuple

import trio

from ztunnel.flow.engine import BREATH_SECONDS, IDLE_SECONDS, Engine

BUSY_BREATH_SECONDS = 0.001
"""How long flows may keep a turn of Trio's tasks waiting."""

_TRIO_HAD_WORK_SECONDS = 0.0003

_in_place: trio.lowlevel.RunVar[bool] = trio.lowlevel.RunVar("an engine waits in Trio's place", False)


class _Trio(NamedTuple):
    """Of this run: the descriptor of its epoll set, and the tasks that are to run next."""

    descriptor: int
    tasks: Sized


async def drive(engine: Engine) -> None:
    """Drive an engine's flows until cancelled. One task per engine, and nothing else in it."""
    run = _this_run()
    if run is None or _in_place.get():
        await drive_by_task(engine)
        return
    instead = _Instead(engine, run.tasks, trio.lowlevel.current_trio_token())
    engine.watch(run.descriptor, EPOLLIN, instead.trio_is_ready, instead.fail)
    _in_place.set(True)
    trio.lowlevel.add_instrument(instead)
    try:
        await instead.failed.wait()
        assert instead.failure is not None
        raise instead.failure
    finally:
        trio.lowlevel.remove_instrument(instead)
        _in_place.set(False)
        engine.unwatch(run.descriptor)


def _this_run() -> _Trio | None:
    """None where this version of Trio keeps them elsewhere."""
    try:
        from trio._core._run import GLOBAL_RUN_CONTEXT

        runner = GLOBAL_RUN_CONTEXT.runner
        return _Trio(runner.io_manager._epoll.fileno(), runner.runq)
    except (ImportError, AttributeError):
        return None


class _Instead(trio.abc.Instrument):
    """Is called where Trio would wait for its descriptors.

    Attributes:
        failed: set when a round has raised, which is a bug of the engine; `failure` is what.
    """

    def __init__(self, engine: Engine, tasks: Sized, token: trio.lowlevel.TrioToken) -> None:
        self._engine = engine
        self._tasks = tasks
        self._token = token
        self.failed = trio.Event()
        self.failure: BaseException | None = None

    def trio_is_ready(self, mask: int) -> None:
        """One of Trio's descriptors is ready."""
        self._engine.interrupted = True

    def fail(self, bug: BaseException) -> None:
        """A round has raised."""
        self.failure = bug
        self.failed.set()
        self._wake()

    def before_io_wait(self, timeout: float) -> None:
        """Trio has nothing to do for `timeout` seconds; 0: it only looks what is ready."""
        if self.failure is not None:
            return
        try:
            if timeout > 0:
                self._wait(timeout)
            else:
                self._pass()
        except BaseException as bug:  # noqa: BLE001 - Trio would go on without us: nobody would drive the flows
            self.fail(bug)

    def _pass(self) -> None:
        engine = self._engine
        engine.interrupted = False
        until = engine.clock() + BUSY_BREATH_SECONDS
        while engine.round() and not engine.interrupted and engine.now < until:
            pass

    def _wait(self, seconds: float) -> None:
        engine = self._engine
        engine.interrupted = False
        engine.carry(engine.clock() + seconds, self._tasks)
        if not engine.interrupted:
            self._wake()

    def _wake(self) -> None:
        """Trio is about to sleep for as long as it has reckoned before it called us: meanwhile a deadline has
        come, or a callback of the engine has made a task runnable."""
        self._token.run_sync_soon(_nothing, idempotent=True)


def _nothing() -> None:
    """What Trio is woken for has been done."""


async def drive_by_task(engine: Engine) -> None:
    """Sleep in Trio until something is to be done, and do it until nothing has happened for a millisecond."""
    while True:
        await _sleep(engine)
        await _work(engine)


async def _sleep(engine: Engine) -> None:
    """Wait in Trio. Whatever wakes the engine does it through the scope: the wait has no other end."""
    if engine.has_calls:
        await trio.lowlevel.checkpoint()
        return
    left = engine.next_timer - engine.clock()
    deadline = math.inf if left == math.inf else trio.current_time() + max(left, 0)
    with trio.CancelScope(deadline=deadline) as scope:
        engine.wake = scope.cancel
        try:
            await trio.lowlevel.wait_readable(engine.fileno())
        finally:
            engine.wake = None


async def _work(engine: Engine) -> None:
    """Rounds until the flows are idle. Where Trio had work at the last checkpoint, the next comes sooner."""
    clock = engine.clock
    wait, until = 0.0, clock() + BREATH_SECONDS
    while engine.rounds(wait, until):
        before = clock()
        await trio.lowlevel.checkpoint()
        after = clock()
        busy = after - before > _TRIO_HAD_WORK_SECONDS
        wait, until = IDLE_SECONDS, after + (BUSY_BREATH_SECONDS if busy else BREATH_SECONDS)
