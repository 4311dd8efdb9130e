"""A goodbye is shielded, and given up after its time."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from ztunnel.drain import closing


async def test_a_goodbye_is_said_although_the_task_is_cancelled(autojump_clock: MockClock) -> None:
    said = []
    with trio.CancelScope() as task:
        task.cancel()
        with closing(1.0):
            await trio.sleep(0.5)
            said.append("goodbye")
        await trio.lowlevel.checkpoint()
        said.append("never")
    assert said == ["goodbye"]
    assert trio.current_time() == 0.5


async def test_a_goodbye_that_takes_too_long_is_given_up(autojump_clock: MockClock) -> None:
    with closing(1.0) as goodbye:
        await trio.sleep_forever()
    assert goodbye.cancelled_caught
    assert trio.current_time() == 1.0
