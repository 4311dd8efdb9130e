from __future__ import annotations

import os
import signal

import pytest
import trio

from ztunnel.run.stop import Stop


async def test_asked_during_the_start_it_ends_the_start():
    stop = Stop()
    with stop.starting:
        stop.ask()
        await trio.sleep_forever()
    assert stop.starting.cancelled_caught
    assert stop.asked.is_set()
    assert not stop.urged.is_set()


async def test_asked_after_the_start_it_leaves_the_end_to_whoever_waits():
    stop = Stop()
    with stop.starting:
        stop.started()
        stop.ask()
        await stop.asked.wait()
        await trio.lowlevel.checkpoint()
    assert not stop.starting.cancelled_caught


async def test_asked_twice_it_is_urgent():
    stop = Stop()
    stop.ask()
    stop.ask()
    assert stop.urged.is_set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signals_ask(number, nursery):
    stop = Stop()
    await nursery.start(stop.hear)
    os.kill(os.getpid(), number)
    await stop.asked.wait()
    os.kill(os.getpid(), number)
    await stop.urged.wait()
