"""What is measured: each cell is one load on one path, and gives one or more figures."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Route(StrEnum):
    """Where the server stands, seen from the client."""

    TWO_NODES = "two nodes"
    SAME_NODE = "same node"


class Load(StrEnum):
    """What the client does."""

    REQUESTS = "requests"  # small requests over connections that stay
    CONNECTIONS = "new connections"  # one small request on each
    BULK = "bulk"  # one connection that downloads without end


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of a cell, as the table shows it."""

    name: str
    unit: str
    scale: float  # what is measured (per second, seconds, bytes/s), multiplied by this, is in `unit`
    more_is_better: bool = True


RATE = Figure("rate", "/s", 1.0)
P50 = Figure("p50", "us", 1e6, more_is_better=False)
P99 = Figure("p99", "us", 1e6, more_is_better=False)
SPEED = Figure("speed", "MB/s", 1e-6)

FIGURES = {Load.REQUESTS: (RATE, P50, P99), Load.CONNECTIONS: (RATE,), Load.BULK: (SPEED,)}


@dataclass(frozen=True, slots=True)
class Cell:
    """`parallel` connections at a time."""

    route: Route
    load: Load
    parallel: int

    @property
    def name(self) -> str:
        """As the table and the JSON file name it."""
        match self.load:
            case Load.REQUESTS:
                return "1 connection" if self.parallel == 1 else f"{self.parallel} connections"
            case Load.CONNECTIONS:
                return f"new connections, {self.parallel} at a time"
            case Load.BULK:
                return "bulk"

    @property
    def figures(self) -> tuple[Figure, ...]:
        """What is measured, in the order of `Sample`."""
        return FIGURES[self.load]


CELLS = (
    *(Cell(Route.TWO_NODES, Load.REQUESTS, parallel) for parallel in (1, 8, 64)),
    *(Cell(Route.TWO_NODES, Load.CONNECTIONS, parallel) for parallel in (1, 64)),
    Cell(Route.TWO_NODES, Load.BULK, 1),
    *(Cell(Route.SAME_NODE, Load.REQUESTS, parallel) for parallel in (1, 64)),
    Cell(Route.SAME_NODE, Load.CONNECTIONS, 64),
    Cell(Route.SAME_NODE, Load.BULK, 1),
)


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure of ours, divided by that of `rival`, has to reach."""

    rival: str
    at_least: float


OURS, BARE, ENVOY = "ztunnel", "no mesh", "Envoy"


def goals(cell: Cell, figure: Figure) -> tuple[Goal, ...]:
    """On one node as fast as without a mesh; across nodes not behind Envoy. Only rates have goals."""
    if not figure.more_is_better:
        return ()
    if cell.route is Route.SAME_NODE:
        return (Goal(BARE, 0.9),)
    if cell.load is Load.CONNECTIONS or (cell.load is Load.REQUESTS and cell.parallel >= 64):
        return (Goal(ENVOY, 1.0),)
    return ()
