"""What every node proxy does beside its work."""

from __future__ import annotations

import gc
import resource
import sys
from collections.abc import Iterator

import pytest
import trio

from tests.run.parts import built, lines, served_by
from ztunnel.control.serve import Server
from ztunnel.run.keep import flush_log, set_up_process, watch_thread


@pytest.fixture
def process() -> Iterator[None]:
    """As it was, afterwards."""
    limits, thresholds = resource.getrlimit(resource.RLIMIT_NOFILE), gc.get_threshold()
    interval = sys.getswitchinterval()
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    gc.set_threshold(*thresholds)
    gc.unfreeze()
    sys.setswitchinterval(interval)


def test_the_process_may_open_as_many_files_as_it_may_be_allowed_to(process: None) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, hard), hard))
    set_up_process()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    assert gc.get_threshold()[0] == 10_000
    assert sys.getswitchinterval() == pytest.approx(0.001)


async def test_the_thread_is_watched_until_the_end() -> None:
    with built(served_by(Server())) as (node, _):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch_thread, node)
            await trio.testing.wait_all_tasks_blocked()
            assert node.watchdog.before_exit == node.exits.add
            nursery.cancel_scope.cancel()
        assert not [line for line in lines(node) if "stood still" in line]


async def test_lines_that_wait_are_written(autojump_clock: trio.testing.MockClock) -> None:
    flushed = []
    with built(served_by(Server())) as (node, _):
        node.outbound.report.flush = lambda: flushed.append(trio.current_time())  # type: ignore[method-assign]
        with trio.move_on_after(3.5):
            await flush_log(node)
    assert len(flushed) == 3
