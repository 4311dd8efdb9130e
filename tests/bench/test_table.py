"""Results as a table and as a document."""

from __future__ import annotations

import json
import re

from bench.cells import BARE, ENVOY, OURS, Cell, Load, Route
from bench.figures import Result
from bench.table import document, render

BUSY = Result(
    Cell(Route.TWO_NODES, Load.REQUESTS, 64),
    {
        OURS: [(50_000.0, 1e-3, 2e-3, 5e-5, 2e-5, 3e-5)],
        BARE: [(100_000.0, 5e-4, 8e-4, 0.0, 0.0, 0.0)],
        ENVOY: [(40_000.0, 12e-4, 3e-3, 1e-4, 5e-5, 5e-5)],
    },
)
BULK = Result(
    Cell(Route.SAME_NODE, Load.BULK, 1),
    {OURS: [(8e8,), (9e8,), (7e8,)], BARE: [(1e9,)] * 3, ENVOY: [(5e8,)] * 3},
    repeated=2,
    disturbed=1,
)
START = Result(Cell(Route.PROXIES, Load.START, 1), {OURS: [(0.6,)]})


def words(line: str) -> list[str]:
    """What stands in its columns."""
    return re.split(r" {2,}", line.strip())


def test_the_table_shows_medians_ratios_spread_and_bounds() -> None:
    lines = [line for line in render([BUSY, BULK, START]).splitlines() if line]
    assert list(map(words, lines)) == [
        ["ztunnel", "no mesh", "Envoy", "/ no mesh", "/ Envoy", "must, goal: reached"],
        ["two nodes"],
        ["64 connections", "rate /s", "50,000", "100,000", "40,000", "0.50", "1.25",
         "1.2, 1.7 of the better peer: 1.25 must"],
        ["p50 us", "1,000", "500", "1,200", "2.00", "0.83"],
        ["p99 us", "2,000", "800", "3,000", "2.50", "0.67", "1, 0.7 of the better peer: 0.67 goal"],
        ["CPU, both proxies s/10,000", "0.5", "-", "1", "0.50", "1, 0.7 of the better peer: 0.50 goal"],
        ["CPU, client's s/10,000", "0.2", "-", "0.5", "0.40"],
        ["CPU, server's s/10,000", "0.3", "-", "0.5", "0.60"],
        ["same node, direct"],
        ["bulk to the client, 1 stream*", "speed MB/s", "800 ±12%", "1,000 ±0%", "500 ±0%", "0.80", "1.60",
         "0.95, 0.99 of no mesh: 0.80 BELOW"],
        ["the proxies themselves"],
        ["start, programs pinned", "to ready s", "0.6", "1.5, 0.7: 0.60 goal"],
        ["2 rounds were disturbed by others on this machine, and repeated"],
        ["* others had this machine in a round that counts"],
    ]  # fmt: skip


def test_columns_stand_below_each_other() -> None:
    lines = render([BUSY, START]).splitlines()
    ends = [lines[0].index("ztunnel") + len("ztunnel")] * 3
    assert [line.index(number) + len(number) for line, number in (
        (lines[3], "50,000"), (lines[4], "1,000"), (lines[-1], "0.6"),
    )] == ends  # fmt: skip


def test_without_ours_there_are_no_ratios() -> None:
    rivals = Result(BULK.cell, {name: samples for name, samples in BULK.samples.items() if name != OURS})
    assert "/ " not in render([rivals])
    assert render([]) == ""


def test_a_row_that_could_not_be_measured_says_why() -> None:
    lines = render([Result(BULK.cell, {OURS: [], BARE: []}, failure="wrk: no answer")]).splitlines()
    assert "  bulk to the client, 1 stream  not measured" in lines
    assert lines[-1] == "not measured: same node, direct, bulk to the client, 1 stream: wrk: no answer"


def test_the_document_holds_every_sample_and_can_be_written() -> None:
    entries = json.loads(json.dumps(document([BUSY, BULK])))
    assert [(entry["cell"], entry["figure"]) for entry in entries] == [
        ("64 connections", "rate"),
        ("64 connections", "p50"),
        ("64 connections", "p99"),
        ("64 connections", "CPU, both proxies"),
        ("64 connections", "CPU, client's"),
        ("64 connections", "CPU, server's"),
        ("bulk to the client, 1 stream", "speed"),
    ]
    bulk = entries[6]
    assert bulk["samples"][OURS] == [8e8, 9e8, 7e8]
    assert bulk["ratio"] == {BARE: 0.8, ENVOY: 1.6}
    assert bulk["rounds"] == {"repeated": 2, "disturbed": 1}
    assert bulk["bound"] == {
        "against": "no mesh", "rival": "no mesh", "must": 0.95, "goal": 0.99, "reached": 0.8,
        "verdict": "BELOW",
    }  # fmt: skip
    assert entries[3]["ratio"] == {BARE: None, ENVOY: 0.5}


def test_where_less_is_better_a_must_is_reached_from_below() -> None:
    cell = Cell(Route.WAYPOINT, Load.REQUESTS, 1)
    result = Result(cell, {OURS: [(9e3, 1e-4, 2e-4, 5e-5)], ENVOY: [(1e4, 2e-4, 3e-4, 5e-5)]})
    lines = render([result]).splitlines()
    assert lines[3].endswith("0.90  1 of Envoy: 0.90 BELOW")
    assert lines[4].endswith("0.50  1 of Envoy: 0.50 must")
