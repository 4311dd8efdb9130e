"""The benchmark of waypoints, for a second each: both stand, are measured, and nothing is left."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from bench.cells import ENVOY, OURS, Cell, Load, Route
from bench.waypoint.ground import Contestant, ground
from bench.waypoint.loads import Meter, measure, warm_up
from ztunnel.demo.operate import Laboratory

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


@pytest.fixture(scope="module")
def stands() -> Iterator[tuple[Laboratory, dict[str, Contestant]]]:
    with ground(f"benchtest{os.getpid()}") as (laboratory, contestants):
        yield laboratory, {one.name: one for one in contestants}


@pytest.mark.parametrize("name", [OURS, ENVOY])
def test_requests_and_calls_go_through_each_and_are_measured(stands, name: str) -> None:
    laboratory, contestants = stands
    meter = Meter(laboratory, contestants[name])
    warm_up(laboratory, contestants[name], meter)
    sample = measure(laboratory, contestants[name], meter, Cell(Route.WAYPOINT, Load.CALLS, 2), 1)
    assert len(sample) == 4
    assert all(value > 0 for value in sample)
    (growth,) = measure(laboratory, contestants[name], meter, Cell(Route.WAYPOINT, Load.IDLE, 20), 1)
    assert growth < 50e6
