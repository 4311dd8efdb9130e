"""Results as a table and as a document."""

from __future__ import annotations

import json

from bench.cells import BARE, ENVOY, OURS, Cell, Load, Route
from bench.figures import Result
from bench.table import document, render

BUSY = Result(
    Cell(Route.TWO_NODES, Load.REQUESTS, 64),
    {
        OURS: [(50_000.0, 1e-3, 2e-3)],
        BARE: [(100_000.0, 5e-4, 8e-4)],
        ENVOY: [(40_000.0, 12e-4, 3e-3)],
    },
)
BULK = Result(Cell(Route.SAME_NODE, Load.BULK, 1), {OURS: [(8e8,)], BARE: [(1e9,)], ENVOY: [(5e8,)]})


def test_the_table_shows_medians_ratios_and_goals() -> None:
    assert render([BUSY, BULK]).splitlines() == [
        "                              ztunnel  no mesh   Envoy  / no mesh  / Envoy  goal",
        "",
        "two nodes",
        "  64 connections  rate /s      50,000  100,000  40,000       0.50     1.25  1.0 of Envoy: met",
        "                  p50 us        1,000      500   1,200       2.00     0.83",
        "                  p99 us        2,000      800   3,000       2.50     0.67",
        "",
        "same node",
        "  bulk            speed MB/s      800    1,000     500       0.80     1.60  0.9 of no mesh: MISSED",
    ]


def test_without_ours_there_are_no_ratios() -> None:
    rivals = Result(BULK.cell, {name: samples for name, samples in BULK.samples.items() if name != OURS})
    assert "/ " not in render([rivals])


def test_the_document_holds_every_sample_and_can_be_written() -> None:
    entries = json.loads(json.dumps(document([BUSY, BULK])))
    assert [(entry["cell"], entry["figure"]) for entry in entries] == [
        ("64 connections", "rate"),
        ("64 connections", "p50"),
        ("64 connections", "p99"),
        ("bulk", "speed"),
    ]
    assert entries[3]["samples"][BARE] == [1e9]
    assert entries[3]["ratio"] == {BARE: 0.8, ENVOY: 1.6}
    assert entries[3]["goals"] == {BARE: {"bound": 0.9, "met": False}}


def test_where_less_is_better_a_goal_is_met_from_above() -> None:
    cell = Cell(Route.WAYPOINT, Load.REQUESTS, 1)
    result = Result(cell, {OURS: [(9e3, 1e-4, 2e-4, 5e-5)], ENVOY: [(1e4, 2e-4, 3e-4, 5e-5)]})
    lines = render([result]).splitlines()
    assert lines[3].endswith("0.90  1.0 of Envoy: MISSED")
    assert lines[4].endswith("0.50  1.0 of Envoy: met")
