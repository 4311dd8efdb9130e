"""Contestants take turns within a cell, each round another one first; what comes out is kept in a file."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from bench.cells import Cell
from bench.figures import Result, Sample, Unmeasured
from bench.machine import machine
from bench.table import document

REPEATS = 2
"""Then a round counts although others had the machine, and a failure is the cell's."""


class Named(Protocol):
    """A contestant."""

    @property
    def name(self) -> str: ...


class Watched(Protocol):
    """The machine."""

    def begin(self) -> None:
        """A round begins."""

    def disturbed(self) -> bool:
        """Whether others had too much of the machine since then."""


One = TypeVar("One", bound=Named)
Measure = Callable[[One, Cell], Sample]


def take_turns(
    entries: Iterable[tuple[Cell, Sequence[One]]],
    rounds: int,
    measure: Measure[One],
    watch: Watched | None = None,
    repeats: int = REPEATS,
) -> list[Result]:
    """All samples, so many of each contestant in each cell. A cell that cannot be measured costs only itself:
    its result says why.

    Args:
        entries: cells, and who competes in each.
        rounds: samples of each contestant.
        measure: takes one.
        watch: tells whether others had the machine; None: nobody asks.
        repeats: rounds of a cell that are taken again because of others, or of a failure.
    """
    return [_measured(cell, contestants, (rounds, repeats), measure, watch) for cell, contestants in entries]


def _measured(
    cell: Cell,
    contestants: Sequence[One],
    limits: tuple[int, int],
    measure: Measure[One],
    watch: Watched | None,
) -> Result:
    samples: dict[str, list[Sample]] = {one.name: [] for one in contestants}
    print(f"{cell.section}: {cell.name} ...", file=sys.stderr)
    rounds, left = limits
    repeated, disturbed, number = 0, 0, 0
    while number < rounds:
        first = number % len(contestants)
        if watch is not None:
            watch.begin()
        try:
            found = {one.name: measure(one, cell) for one in (*contestants[first:], *contestants[:first])}
        except Unmeasured as error:
            if not left:
                return Result(
                    cell, {name: [] for name in samples}, repeated, disturbed, str(error).splitlines()[0]
                )
            print(f"  repeated: {error}", file=sys.stderr)
            left -= 1
            continue
        is_disturbed = watch is not None and watch.disturbed()
        if is_disturbed and left:
            left, repeated = left - 1, repeated + 1
            continue
        disturbed += is_disturbed
        number += 1
        for name, sample in found.items():
            samples[name].append(sample)
    return Result(cell, samples, repeated, disturbed)


def keep(results: Sequence[Result], file: Path, **more: Any) -> None:
    """Write every sample, and on which machine it was taken, as JSON; `more` is of how it was measured."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(machine() | more | {"results": document(results)}, indent=2) + "\n")
