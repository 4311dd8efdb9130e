"""What is measured, and what is hoped for."""

from __future__ import annotations

from bench.cells import BARE, CELLS, ENVOY, P50, RATE, SPEED, Cell, Goal, Load, Route, goals


def test_every_cell_has_a_name_of_its_own() -> None:
    assert len({(cell.route, cell.name) for cell in CELLS}) == len(CELLS)


def test_two_nodes_are_measured_with_1_8_and_64_connections() -> None:
    assert [c.parallel for c in CELLS if (c.route, c.load) == (Route.TWO_NODES, Load.REQUESTS)] == [1, 8, 64]


def test_only_rates_have_goals() -> None:
    busy = Cell(Route.TWO_NODES, Load.REQUESTS, 64)
    assert goals(busy, RATE) == (Goal(ENVOY, 1.0),)
    assert goals(busy, P50) == ()


def test_one_node_is_to_be_as_fast_as_without_a_mesh() -> None:
    assert goals(Cell(Route.SAME_NODE, Load.BULK, 1), SPEED) == (Goal(BARE, 0.9),)


def test_a_single_connection_across_nodes_is_only_shown() -> None:
    assert goals(Cell(Route.TWO_NODES, Load.REQUESTS, 1), RATE) == ()
