"""What is measured."""

from __future__ import annotations

from bench.cells import (
    CELLS,
    CPU,
    CPU_BOTH,
    ENGINE_CELLS,
    LIFE_CELLS,
    SUSTAINED_CELLS,
    WAYPOINT_CELLS,
    Cell,
    Load,
    Route,
    idle_cells,
    large_cells,
    the_other_way,
)

ALL = (
    *CELLS, *the_other_way(CELLS, logged=False), *idle_cells(10_000), *LIFE_CELLS, *SUSTAINED_CELLS,
    *ENGINE_CELLS, *large_cells(100_000, 10_000), *WAYPOINT_CELLS,
)  # fmt: skip


def test_every_cell_has_a_name_of_its_own() -> None:
    assert len({(cell.section, cell.name) for cell in ALL}) == len(ALL)


def test_names_are_words() -> None:
    two_nodes = [cell.name for cell in CELLS if cell.route is Route.TWO_NODES]
    assert two_nodes == [
        "1 connection", "8 connections", "32 connections", "64 connections", "256 connections",
        "8 connections, 1 KiB bodies", "8 connections, 16 KiB bodies",
        "new connections, 1 at a time", "new connections, 64 at a time",
        "bulk to the client, 1 stream", "bulk to the client, 8 streams",
        "bulk to the server, 1 stream", "bulk to the server, 8 streams",
    ]  # fmt: skip
    assert [cell.name for cell in idle_cells(10_000)] == [
        "at the start", "1,000 idle connections", "10,000 idle connections",
    ]  # fmt: skip
    assert [cell.parallel for cell in idle_cells(1000)] == [0, 1000]


def test_the_main_rows_are_measured_the_other_way_as_well() -> None:
    others = the_other_way(CELLS, logged=False)
    assert {cell.section for cell in others} == {"two nodes, no access log"}
    assert len(others) == 3
    assert the_other_way(others, logged=True) == tuple(
        Cell(Route.TWO_NODES, cell.load, cell.parallel) for cell in others
    )


def test_requests_between_two_nodes_are_measured_by_what_they_cost_as_well() -> None:
    assert CPU_BOTH in Cell(Route.TWO_NODES, Load.REQUESTS, 1).figures
    assert CPU_BOTH not in Cell(Route.SAME_NODE, Load.REQUESTS, 1).figures
    assert CPU_BOTH not in Cell(Route.TWO_NODES, Load.BULK, 1).figures


def test_a_waypoint_is_measured_by_what_it_costs_as_well() -> None:
    for cell in WAYPOINT_CELLS:
        assert (CPU in cell.figures) == (cell.load is not Load.IDLE)
