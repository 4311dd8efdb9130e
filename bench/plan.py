"""How long a run measures what: the whole one, and a quick one that only shows whether all is in order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from bench.cells import CPU_BOTH, Cell, Route


@dataclass(frozen=True, slots=True)
class Sizes:
    """A large world: workloads, flows that live beside its changes, and for how many seconds it changes."""

    workloads: int = 100_000
    flows: int = 10_000
    seconds: float = 20.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Samples of each figure, and what they take.

    Attributes:
        seconds, rounds: of loads; each contestant has a sample in a round.
        repeats: rounds of a cell that are measured again because others had the machine.
        patience_seconds: how long it is waited for others in all.
        idle_rounds, start_rounds, large_rounds: of what needs proxies that have just been started.
        sustained_seconds: how long a thousand connections a second are opened.
        most_idle: connections that stand while proxies are weighed.
    """

    seconds: int
    rounds: int
    repeats: int
    patience_seconds: float
    idle_rounds: int
    start_rounds: int
    large_rounds: int
    sustained_seconds: float
    sizes: Sizes
    most_idle: int = 10_000

    def seconds_of(self, cell: Cell) -> int:
        """How long one sample takes: the whole time for requests between two nodes, half of it for others."""
        whole = cell.route is Route.TWO_NODES and cell.logged and CPU_BOTH in cell.figures
        return self.seconds if whole else max(self.seconds // 2, 1)

    def held_by(self, files: int) -> Plan:
        """The same, with no more connections than a process holds that may have so many `files` open: a proxy
        has two for each, and keeps some for others."""
        most = max(files * 3 // 8 // 1000, 1) * 1000
        sizes = replace(self.sizes, flows=min(self.sizes.flows, most))
        return replace(self, sizes=sizes, most_idle=min(self.most_idle, most))


WHOLE = Plan(2, 5, 2, 60.0, 3, 5, 3, 120.0, Sizes())
QUICK = Plan(1, 1, 0, 5.0, 1, 1, 1, 10.0, Sizes(10_000, 1_000, 5.0))


def chosen(cells: Iterable[Cell], only: str) -> tuple[Cell, ...]:
    """Those with the text in `section: row`."""
    return tuple(cell for cell in cells if only in f"{cell.section}: {cell.name}")
