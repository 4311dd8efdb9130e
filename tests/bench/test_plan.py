"""How long a run measures what."""

from __future__ import annotations

from bench.cells import CELLS, Cell, Load, Route
from bench.plan import QUICK, WHOLE, chosen


def test_a_quick_run_measures_the_same_and_less_of_it() -> None:
    assert QUICK.rounds == 1 < WHOLE.rounds == 5
    assert QUICK.sizes.workloads < WHOLE.sizes.workloads == 100_000


def test_rows_are_chosen_by_a_text_of_section_and_row() -> None:
    assert chosen(CELLS, "") == CELLS
    assert {cell.route for cell in chosen(CELLS, "same node, mtls: ")} == {Route.SAME_NODE_MTLS}
    assert [cell.name for cell in chosen(CELLS, "two nodes: 64")] == ["64 connections"]


def test_no_more_connections_stand_than_there_are_files_for() -> None:
    assert WHOLE.held_by(1 << 20) == WHOLE
    few = WHOLE.held_by(20_000)
    assert (few.most_idle, few.sizes.flows, few.sizes.workloads) == (7000, 7000, 100_000)
    assert QUICK.held_by(100).sizes.flows == 1000


def test_requests_between_two_nodes_are_measured_longer() -> None:
    requests = Cell(Route.TWO_NODES, Load.REQUESTS, 8)
    assert WHOLE.seconds_of(requests) == WHOLE.seconds
    assert WHOLE.seconds_of(Cell(Route.TWO_NODES, Load.REQUESTS, 8, logged=False)) == WHOLE.seconds // 2
    assert WHOLE.seconds_of(Cell(Route.SAME_NODE, Load.REQUESTS, 64)) == WHOLE.seconds // 2
    assert WHOLE.seconds_of(Cell(Route.TWO_NODES, Load.BULK, 1)) == WHOLE.seconds // 2
    assert QUICK.seconds_of(Cell(Route.TWO_NODES, Load.BULK, 1)) == 1
