"""What is measured: each cell is one load on one path, and gives one or more figures."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Route(StrEnum):
    """Where the server stands, seen from the client."""

    TWO_NODES = "two nodes"
    SAME_NODE = "same node"
    WAYPOINT = "through a waypoint"


class Load(StrEnum):
    """What the client does."""

    REQUESTS = "requests"  # small requests over connections that stay
    CONNECTIONS = "new connections"  # one small request on each
    BULK = "bulk"  # one connection that downloads without end
    STREAMS = "streams"  # small requests of HTTP/2, over one connection
    CALLS = "calls"  # unary calls of gRPC, over one connection
    BODIES = "bodies"  # answers of 1 MiB over connections that stay
    IDLE = "idle"  # connections that have asked once, and stand
    RULED = "ruled"  # small requests where there are 1,000 routes, policies, and a token with each


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

CPU = Figure("cpu", "us/request", 1e6, more_is_better=False)  # of the waypoint, in both modes
MEMORY = Figure("memory", "KiB/connection", 1 / 1024, more_is_better=False)

FIGURES = {
    Load.REQUESTS: (RATE, P50, P99),
    Load.CONNECTIONS: (RATE,),
    Load.BULK: (SPEED,),
    Load.STREAMS: (RATE, P50, P99),
    Load.CALLS: (RATE, P50, P99),
    Load.BODIES: (SPEED,),
    Load.IDLE: (MEMORY,),
    Load.RULED: (RATE, P50, P99),
}


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
            case Load.STREAMS:
                return f"HTTP/2, {self.parallel} streams"
            case Load.CALLS:
                return f"gRPC, {self.parallel} calls"
            case Load.BODIES:
                return "1 MiB bodies"
            case Load.IDLE:
                return f"{self.parallel} idle"
            case Load.RULED:
                return "1,000 routes, policies, tokens"

    @property
    def figures(self) -> tuple[Figure, ...]:
        """What is measured, in the order of `Sample`."""
        found = FIGURES[self.load]
        return (*found, CPU) if self.route is Route.WAYPOINT and self.load is not Load.IDLE else found


CELLS = (
    *(Cell(Route.TWO_NODES, Load.REQUESTS, parallel) for parallel in (1, 8, 64)),
    *(Cell(Route.TWO_NODES, Load.CONNECTIONS, parallel) for parallel in (1, 64)),
    Cell(Route.TWO_NODES, Load.BULK, 1),
    *(Cell(Route.SAME_NODE, Load.REQUESTS, parallel) for parallel in (1, 64)),
    Cell(Route.SAME_NODE, Load.CONNECTIONS, 64),
    Cell(Route.SAME_NODE, Load.BULK, 1),
)


WAYPOINT_CELLS = (
    Cell(Route.WAYPOINT, Load.IDLE, 1000),  # first, as memory is not given back
    *(Cell(Route.WAYPOINT, Load.REQUESTS, parallel) for parallel in (1, 8, 64)),
    Cell(Route.WAYPOINT, Load.STREAMS, 64),
    Cell(Route.WAYPOINT, Load.CALLS, 64),
    Cell(Route.WAYPOINT, Load.BODIES, 4),
    Cell(Route.WAYPOINT, Load.RULED, 64),
)


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure of ours, divided by that of `rival`, has to reach; or may be, where less is better."""

    rival: str
    bound: float


OURS, BARE, ENVOY = "ztunnel", "no mesh", "Envoy"
_WAYPOINT_GOALS = {
    (Load.REQUESTS, RATE.name, 0): 1.0,
    (Load.REQUESTS, P50.name, 1): 1.0,
    (Load.STREAMS, RATE.name, 0): 0.5,
    (Load.CALLS, RATE.name, 0): 0.5,
    (Load.BODIES, SPEED.name, 0): 0.9,
    (Load.IDLE, MEMORY.name, 0): 1.0,
    (Load.RULED, RATE.name, 0): 1.0,
}
"""By load, figure, and the number of connections where only that one counts."""


def goals(cell: Cell, figure: Figure) -> tuple[Goal, ...]:
    """On one node as fast as without a mesh; across nodes not behind Envoy. Only rates have goals, but for
    waypoints."""
    if cell.route is Route.WAYPOINT:
        bound = _WAYPOINT_GOALS.get((cell.load, figure.name, cell.parallel if figure is P50 else 0))
        return () if bound is None else (Goal(ENVOY, bound),)
    if not figure.more_is_better:
        return ()
    if cell.route is Route.SAME_NODE:
        return (Goal(BARE, 0.9),)
    if cell.load is Load.CONNECTIONS or (cell.load is Load.REQUESTS and cell.parallel >= 64):
        return (Goal(ENVOY, 1.0),)
    return ()
