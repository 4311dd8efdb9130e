"""Drives a flow engine within Trio: one task, with an adaptive inner loop.

```
asleep in Trio until a descriptor is ready, a timer is due or somebody posts
then rounds, until nothing has happened for about a millisecond, with a Trio checkpoint every few of them
```

While flows are busy the engine waits in its own epoll, so that a message costs no task switch (waking Trio
for each batch costs 115 us); Trio's tasks get the thread at every checkpoint, and more often where they turn
out to have work, or say that they are about to (`Engine.awaited`: a handshake takes some ten turns).
"""

from __future__ import annotations

import math

import trio

from ztunnel.flow.engine import IDLE_SECONDS, Engine

QUIET_BREATH_SECONDS = 0.008
BUSY_BREATH_SECONDS = 0.001
_TRIO_HAD_WORK_SECONDS = 0.0003


async def drive(engine: Engine) -> None:
    """Drive an engine's flows until cancelled. One task per engine, and nothing else in it."""
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
    wait, until = 0.0, clock() + (BUSY_BREATH_SECONDS if engine.awaited else QUIET_BREATH_SECONDS)
    while engine.rounds(wait, until):
        before = clock()
        await trio.lowlevel.checkpoint()
        after = clock()
        busy = engine.awaited > 0 or after - before > _TRIO_HAD_WORK_SECONDS
        wait, until = IDLE_SECONDS, after + (BUSY_BREATH_SECONDS if busy else QUIET_BREATH_SECONDS)
