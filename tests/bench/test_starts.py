"""How long a node proxy takes until it is ready."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

from bench.cells import LIFE_CELLS, OURS
from bench.starts import measure_starts
from ztunnel.demo.failure import LaboratoryFailed


class Machine:
    """Starts node proxies; what each finds is remembered."""

    def __init__(self, pins: Path, fails: bool = False) -> None:
        self.names = SimpleNamespace(pins=lambda node: pins, directory=pins.parent)
        self.found: list[tuple[str, bool, str | None]] = []
        self._pins, self._fails = pins, fails

    def kill_node(self, node: str) -> None:
        self._pins.mkdir(exist_ok=True)

    def start_node(self, node: str) -> None:
        if self._fails:
            raise LaboratoryFailed("not ready")
        self.found.append((node, self._pins.exists(), os.environ.get("ZTUNNEL_CACHE_DIR")))


def test_programs_are_pinned_or_nothing_of_them_is_left(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "pins")
    before = os.environ.get("ZTUNNEL_CACHE_DIR")
    results = measure_starts(machine, LIFE_CELLS, 2)
    assert [(pinned, cache) for _, pinned, cache in machine.found[:2]] == [(True, before)] * 2
    caches = [cache for _, pinned, cache in machine.found[2:] if not pinned]
    assert len(set(caches)) == 2
    assert all(Path(cache).parent == tmp_path for cache in caches)
    assert os.environ.get("ZTUNNEL_CACHE_DIR") == before
    assert all(len(result.samples[OURS]) == 2 for result in results)


def test_a_proxy_that_is_not_ready_costs_its_row(tmp_path: Path) -> None:
    results = measure_starts(Machine(tmp_path / "pins", fails=True), LIFE_CELLS, 1)
    assert [result.failure for result in results] == ["not ready"] * 2
