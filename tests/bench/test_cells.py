"""What is measured, and what is hoped for."""

from __future__ import annotations

from bench.cells import (
    BARE,
    CELLS,
    CPU,
    ENVOY,
    MEMORY,
    P50,
    RATE,
    SPEED,
    WAYPOINT_CELLS,
    Cell,
    Goal,
    Load,
    Route,
    goals,
)


def test_every_cell_has_a_name_of_its_own() -> None:
    cells = (*CELLS, *WAYPOINT_CELLS)
    assert len({(cell.route, cell.name) for cell in cells}) == len(cells)


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


def test_a_waypoint_is_measured_by_what_it_costs_as_well() -> None:
    for cell in WAYPOINT_CELLS:
        assert (CPU in cell.figures) == (cell.load is not Load.IDLE)
    assert CPU not in Cell(Route.TWO_NODES, Load.REQUESTS, 1).figures


def test_a_waypoint_has_goals_of_its_own() -> None:
    one, many = (Cell(Route.WAYPOINT, Load.REQUESTS, parallel) for parallel in (1, 64))
    assert goals(one, RATE) == goals(many, RATE) == goals(one, P50) == (Goal(ENVOY, 1.0),)
    assert goals(many, P50) == goals(one, CPU) == ()
    assert goals(Cell(Route.WAYPOINT, Load.STREAMS, 64), RATE) == (Goal(ENVOY, 0.5),)
    assert goals(Cell(Route.WAYPOINT, Load.IDLE, 1000), MEMORY) == (Goal(ENVOY, 1.0),)
