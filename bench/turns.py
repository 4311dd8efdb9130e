"""Contestants take turns within a cell, each round another one first; what comes out is kept in a file."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from bench.cells import Cell
from bench.figures import Result, Sample
from bench.machine import machine
from bench.table import document


class Named(Protocol):
    """A contestant."""

    @property
    def name(self) -> str: ...


One = TypeVar("One", bound=Named)


def take_turns(
    contestants: Sequence[One], cells: Sequence[Cell], rounds: int, measure: Callable[[One, Cell], Sample]
) -> list[Result]:
    """All samples, so many of each contestant in each cell."""
    results = []
    for cell in cells:
        samples: dict[str, list[Sample]] = {one.name: [] for one in contestants}
        print(f"{cell.route}: {cell.name} ...", file=sys.stderr)
        for round_number in range(rounds):
            first = round_number % len(contestants)
            for one in (*contestants[first:], *contestants[:first]):
                samples[one.name].append(measure(one, cell))
        results.append(Result(cell, samples))
    return results


def keep(results: Sequence[Result], file: Path) -> None:
    """Write every sample, and on which machine it was taken, as JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(machine() | {"results": document(results)}, indent=2) + "\n")
