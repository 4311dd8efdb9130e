"""Contestants take turns."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

from bench.cells import CELLS, idle_cells
from bench.figures import Unmeasured
from bench.turns import keep, take_turns

CONTESTANTS = [SimpleNamespace(name=name) for name in ("ztunnel", "Envoy", "no mesh")]

IDLE_CELLS = idle_cells(10_000)


class Machine:
    """Others have it in the rounds of these numbers."""

    def __init__(self, *disturbed: int) -> None:
        self._disturbed = disturbed
        self.round = 0

    def begin(self) -> None:
        self.round += 1

    def disturbed(self) -> bool:
        return self.round in self._disturbed


def test_each_is_first_in_turn_and_all_samples_are_kept(tmp_path: Path) -> None:
    cells, seen = CELLS[:2], []

    def measure(one, cell):
        seen.append((cell.name, one.name))
        return tuple(float(len(seen)) for _ in cell.figures)

    results = take_turns([(cell, CONTESTANTS) for cell in cells], 3, measure)
    assert [one for cell, one in seen if cell == cells[0].name] == [
        "ztunnel", "Envoy", "no mesh", "Envoy", "no mesh", "ztunnel", "no mesh", "ztunnel", "Envoy",
    ]  # fmt: skip
    assert [result.cell for result in results] == list(cells)
    assert {name: [sample[0] for sample in found] for name, found in results[0].samples.items()} == {
        "ztunnel": [1, 6, 8], "Envoy": [2, 4, 9], "no mesh": [3, 5, 7],
    }  # fmt: skip
    file = tmp_path / "new" / "bench.json"
    keep(results, file, command="make bench")
    kept = json.loads(file.read_text())
    assert {each["cell"] for each in kept["results"]} == {cell.name for cell in cells}
    assert kept["command"] == "make bench"
    assert {"date", "kernel", "cpus", "processor"} <= kept.keys()


def rounds(machine: Machine, repeats: int):
    measured = []

    def measure(one, cell):
        measured.append(machine.round)
        return (float(machine.round),)

    [result] = take_turns([(IDLE_CELLS[0], CONTESTANTS)], 2, measure, machine, repeats)
    return result, machine.round


def test_a_round_in_which_others_had_the_machine_is_repeated_but_not_for_ever() -> None:
    result, needed = rounds(Machine(1), repeats=2)
    assert (needed, result.repeated, result.disturbed) == (3, 1, 0)
    assert result.samples["Envoy"] == [(2.0,), (3.0,)]
    result, needed = rounds(Machine(*range(10)), repeats=2)
    assert (needed, result.repeated, result.disturbed) == (4, 2, 2)
    result, needed = rounds(Machine(*range(10)), repeats=0)
    assert (needed, result.repeated, result.disturbed) == (2, 0, 2)


def test_what_fails_is_tried_again_and_costs_its_row_alone() -> None:
    tried = []

    def measure(one, cell):
        tried.append(cell)
        if cell is IDLE_CELLS[0] or tried.count(cell) == 1:
            raise Unmeasured("no answer")
        return (1.0,)

    entries = [(cell, CONTESTANTS) for cell in IDLE_CELLS[:2]]
    failed, measured = take_turns(entries, 1, measure, repeats=1)
    assert failed.failure == "no answer"
    assert all(not samples for samples in failed.samples.values())
    assert not measured.failure
    assert measured.samples["Envoy"] == [(1.0,)]
