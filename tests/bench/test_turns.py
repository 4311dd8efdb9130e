import json
from pathlib import Path
from types import SimpleNamespace

from bench.cells import CELLS
from bench.turns import keep, take_turns


def test_each_is_first_in_turn_and_all_samples_are_kept(tmp_path: Path) -> None:
    contestants = [SimpleNamespace(name=name) for name in ("ztunnel", "Envoy", "no mesh")]
    cells, seen = CELLS[:2], []

    def measure(one, cell):
        seen.append((cell.name, one.name))
        return tuple(float(len(seen)) for _ in cell.figures)

    results = take_turns(contestants, cells, 3, measure)
    assert [one for cell, one in seen if cell == cells[0].name] == [
        "ztunnel", "Envoy", "no mesh", "Envoy", "no mesh", "ztunnel", "no mesh", "ztunnel", "Envoy",
    ]  # fmt: skip
    assert [result.cell for result in results] == list(cells)
    assert {name: [sample[0] for sample in found] for name, found in results[0].samples.items()} == {
        "ztunnel": [1, 6, 8], "Envoy": [2, 4, 9], "no mesh": [3, 5, 7],
    }  # fmt: skip
    file = tmp_path / "new" / "bench.json"
    keep(results, file)
    kept = json.loads(file.read_text())
    assert {each["cell"] for each in kept["results"]} == {cell.name for cell in cells}
    assert len(kept) > 1  # and the machine
