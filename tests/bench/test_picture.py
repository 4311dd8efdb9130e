"""Results as a picture."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.cells import BARE, ENVOY, OURS, Cell, Load, Route
from bench.figures import Result
from bench.picture import Bar, groups, main, render, title_of
from bench.table import document

CONNECTIONS = Result(
    Cell(Route.TWO_NODES, Load.CONNECTIONS, 64), {OURS: [(150.0,)], BARE: [(900.0,)], ENVOY: [(100.0,)]}
)
IDLE = Result(Cell(Route.PROXIES, Load.IDLE, 10_000), {OURS: [(50.0,)], ENVOY: [(100.0,)]})
SAME = Result(Cell(Route.SAME_NODE, Load.BULK, 1), {OURS: [(96.0,)], BARE: [(100.0,)], ENVOY: [(50.0,)]})
SHOWN = Result(Cell(Route.SAME_NODE_MTLS, Load.BULK, 1), {OURS: [(96.0,)], BARE: [(100.0,)]})
FAILED = Result(Cell(Route.SAME_NODE, Load.BULK, 1), {OURS: [], BARE: []}, failure="no")
ALL = document([CONNECTIONS, IDLE, SAME, SHOWN, FAILED])
SVG = "{http://www.w3.org/2000/svg}"


def test_a_bar_says_how_many_times_as_good() -> None:
    connections, idle, same = groups(ALL)
    assert connections.bars == (Bar(OURS, 1.5), Bar(ENVOY, 1.0))  # no mesh would make all others small
    assert (connections.must, connections.goal) == (pytest.approx(1.0), pytest.approx(1.3))
    assert idle.bars == (Bar(OURS, 2.0), Bar(ENVOY, 1.0))  # less is better
    assert (idle.must, idle.goal) == (pytest.approx(1.0), pytest.approx(1 / 0.7))
    assert same.bars == (Bar(OURS, 0.96), Bar(BARE, 1.0), Bar(ENVOY, 0.5))


def test_the_picture_has_a_bar_for_each_and_names_them() -> None:
    root = ElementTree.fromstring(render("a <title>", groups(ALL)))
    texts = [each.text for each in root.iter(f"{SVG}text")]
    assert {"a <title>", "two nodes", OURS, ENVOY, BARE, "1.50", "2.00", "0.96"} <= set(texts)
    assert "new connections, 64 at a time: rate" in texts
    bars = [each for each in root.iter(f"{SVG}rect") if each.get("height") == "9"]
    assert [float(each.get("width")) for each in bars] == [255, 170, 340, 170, 163.2, 170, 85]
    width, height = map(float, root.get("viewBox").split()[2:])
    for each in root.iter():
        assert float(each.get("x", 0)) <= width
        assert float(each.get("y", 0)) <= height


def test_a_bar_that_is_too_long_is_cut_off_and_says_so() -> None:
    far = Result(CONNECTIONS.cell, {OURS: [(900.0,)], ENVOY: [(100.0,)]})
    root = ElementTree.fromstring(render("", groups(document([far]))))
    assert (
        max(float(each.get("width")) for each in root.iter(f"{SVG}rect") if each.get("height") == "9") == 510
    )
    assert "9.00" in [each.text for each in root.iter(f"{SVG}text")]


def test_a_file_of_results_becomes_a_picture_with_date_machine_and_command(tmp_path: Path) -> None:
    known = {
        "date": "2026-01-02T03:04:05",
        "cpus": 2,
        "processor": "Some CPU",
        "kernel": "6.18",
        "results": ALL,
    }
    assert title_of(known) == "2026-01-02, 2 x Some CPU, Linux 6.18: make bench"
    (tmp_path / "bench.json").write_text(json.dumps({**known, "command": "make it"}))
    main([str(tmp_path / "bench.json"), str(tmp_path / "bench.svg")])
    assert "Linux 6.18: make it" in (tmp_path / "bench.svg").read_text()
