"""The benchmark itself, without ztunnel, for a second each: it stands, measures, and leaves nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from bench.cells import BARE, ENVOY, Cell, Load, Route
from bench.contestants import Contestant, contestants
from bench.figures import Unmeasured
from bench.measure import measure, run_in, warm_up
from bench.prepare import ground
from ztunnel.demo.operate import Laboratory

pytestmark = pytest.mark.root

Ground = tuple[Laboratory, dict[str, Contestant]]


@pytest.fixture(scope="module")
def stands() -> Iterator[Ground]:
    with ground(f"benchtest{os.getpid()}", start_nodes=False) as (laboratory, addresses):
        yield laboratory, {one.name: one for one in contestants(addresses)}


@pytest.mark.parametrize("name", [BARE, ENVOY])
def test_a_contestant_goes_the_way_that_it_says(stands: Ground, name: str) -> None:
    laboratory, all_of_them = stands
    warm_up(laboratory, all_of_them[name], Route.TWO_NODES)


def test_every_load_gives_its_figures(stands: Ground) -> None:
    laboratory, all_of_them = stands
    for load, count in ((Load.REQUESTS, 3), (Load.CONNECTIONS, 1), (Load.BULK, 1)):
        sample = measure(laboratory, all_of_them[BARE], Cell(Route.SAME_NODE, load, 1), seconds=1)
        assert len(sample) == count
        assert all(value > 0 for value in sample)


def test_a_command_that_fails_says_what_it_printed(stands: Ground) -> None:
    laboratory, _ = stands
    with pytest.raises(Unmeasured, match=r"sh: no such thing"):
        run_in(laboratory, "plain/client", ["sh", "-c", "echo no such thing; exit 1"], seconds=1)
