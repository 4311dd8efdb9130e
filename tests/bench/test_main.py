"""The run as a whole: parts that fail cost only themselves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.__main__ import attempt, grouped
from bench.cells import OURS, Cell, Load, Route, idle_cells
from bench.figures import Result, Unmeasured
from ztunnel.demo.failure import LaboratoryFailed

IDLE_CELLS = idle_cells(10_000)


@pytest.mark.parametrize("error", [Unmeasured("away"), LaboratoryFailed("away")])
def test_what_a_part_did_not_come_to_says_why(error: Exception) -> None:
    def measured() -> Iterator[Result]:
        yield Result(IDLE_CELLS[0], {OURS: [(1.0,)]})
        raise error

    found = attempt(IDLE_CELLS, measured)
    assert [result.failure for result in found] == ["", "away", "away"]
    assert [result.cell for result in found] == list(IDLE_CELLS)


def test_a_part_of_which_nothing_is_wanted_is_not_begun() -> None:
    def measured() -> Iterator[Result]:
        raise AssertionError
        yield

    assert attempt((), measured) == []


def test_rows_of_a_section_stand_together() -> None:
    cells = [Cell(route, Load.REQUESTS, 1) for route in (Route.TWO_NODES, Route.PLAIN_IN, Route.TWO_NODES)]
    found = grouped([Result(cell, {}) for cell in cells])
    assert [each.cell.route for each in found] == [Route.TWO_NODES, Route.TWO_NODES, Route.PLAIN_IN]
