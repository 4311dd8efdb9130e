"""How long a waypoint that is to end goes on as before."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from ztunnel.run.notice import give_notice
from ztunnel.run.stop import Stop


def asked_until(seconds: float) -> Callable[[], float]:
    """Somebody asks for tunnels all the time, for so long."""
    until = trio.current_time() + seconds
    return lambda: max(trio.current_time() - until, 0.0)


@pytest.mark.parametrize(
    ("asked_seconds", "took", "left"),
    [
        pytest.param(-math.inf, 3.0, 25.0, id="nobody calls"),
        pytest.param(1.0, 3.0, 25.0, id="nobody calls any more"),
        pytest.param(2.5, 3.5, 24.5, id="told late"),
        pytest.param(7.0, 8.0, 20.0, id="told very late"),
        pytest.param(math.inf, 12.5, 15.5, id="never told"),
    ],
)
async def test_it_lasts_until_everybody_knows(
    autojump_clock: MockClock, asked_seconds: float, took: float, left: float
) -> None:
    begun = trio.current_time()
    left_seconds = await give_notice(Stop(), asked_until(asked_seconds), 25.0)
    assert trio.current_time() - begun == pytest.approx(took, abs=0.1)
    assert left_seconds == pytest.approx(left, abs=0.1)


async def test_of_a_short_time_half_is_for_what_is_under_way(autojump_clock: MockClock) -> None:
    begun = trio.current_time()
    assert await give_notice(Stop(), asked_until(math.inf), 4.0) == pytest.approx(4.0, abs=0.1)
    assert trio.current_time() - begun == pytest.approx(2.0, abs=0.1)


async def test_it_is_over_when_the_end_is_urged(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    stop, begun = Stop(), trio.current_time()
    stop.ask()

    async def urge() -> None:
        await trio.sleep(5.0)
        stop.ask()

    nursery.start_soon(urge)
    await give_notice(stop, asked_until(math.inf), 25.0)
    assert trio.current_time() - begun == pytest.approx(5.0, abs=0.1)
