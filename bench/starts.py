"""How long a node proxy of ours takes from its start until it is ready, beside pods that it enrolls again."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence

from bench.cells import OURS, Cell, Load
from bench.figures import Result, Unmeasured
from bench.prepare import variables
from ztunnel.demo.failure import LaboratoryFailed
from ztunnel.demo.operate import Laboratory

NODE = "node-1"


def measure_starts(laboratory: Laboratory, cells: Sequence[Cell], rounds: int) -> list[Result]:
    """Samples of each, of a proxy that follows one that was killed."""
    results = []
    for cell in cells:
        print(f"{cell.section}: {cell.name} ...", file=sys.stderr)
        start = compiled if cell.load is Load.COMPILED else pinned
        try:
            samples = [(start(laboratory),) for _ in range(rounds)]
            results.append(Result(cell, {OURS: samples}))
        except (Unmeasured, LaboratoryFailed) as error:
            results.append(Result(cell, {OURS: []}, failure=str(error).splitlines()[0]))
    return results


def pinned(laboratory: Laboratory) -> float:
    """Seconds; the programs of the one before are pinned, and current."""
    laboratory.kill_node(NODE)
    return _started(laboratory)


def compiled(laboratory: Laboratory) -> float:
    """Seconds; nothing is pinned, and nothing was kept: all programs are compiled."""
    laboratory.kill_node(NODE)
    shutil.rmtree(laboratory.names.pins(NODE))
    # The laboratory's own folder goes with it; the proxy may write there after it is ready.
    empty = laboratory.names.directory / f"cache-{time.monotonic_ns()}"
    with variables({"ZTUNNEL_CACHE_DIR": str(empty)}):
        return _started(laboratory)


def _started(laboratory: Laboratory) -> float:
    begun = time.monotonic()
    laboratory.start_node(NODE)
    return time.monotonic() - begun
