"""What is measured: each cell is one load on one path, and gives one or more figures."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Route(StrEnum):
    """Where the server stands, seen from the client, and how both talk; or what else is looked at."""

    TWO_NODES = "two nodes"
    SAME_NODE = "same node, direct"
    SAME_NODE_MTLS = "same node, mtls"
    PLAIN_IN = "plaintext in, from outside of the mesh"
    PLAIN_OUT = "plaintext out, to a pod outside of the mesh"
    PROXIES = "the proxies themselves"
    LARGE = "a large world"
    WAYPOINT = "through a waypoint"


class Load(StrEnum):
    """What the client does; or what becomes of a proxy."""

    REQUESTS = "requests"  # small requests over connections that stay
    KIB = "1 KiB bodies"
    KIB_16 = "16 KiB bodies"
    CONNECTIONS = "new connections"  # one small request on each
    BULK = "bulk"  # connections that download without end
    UPLOAD = "bulk to the server"
    SUSTAINED = "sustained"  # new connections for so long that each port comes round
    START = "start"
    COMPILED = "compiled"  # a start where the programs are neither pinned nor kept
    ENROLMENT = "enrolment"
    WORLD = "world"
    CHANGES = "changes"  # of what has nothing to do with connections that live
    ENGINES = "engines"  # two pairs of proxies in the place of one
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
    scale: float  # what is measured (per second, seconds, bytes, bytes/s), multiplied by this, is in `unit`
    more_is_better: bool = True


RATE = Figure("rate", "/s", 1.0)
P50 = Figure("p50", "us", 1e6, more_is_better=False)
P99 = Figure("p99", "us", 1e6, more_is_better=False)
SPEED = Figure("speed", "MB/s", 1e-6)

CPU = Figure("cpu", "us/request", 1e6, more_is_better=False)  # of the waypoint, in both modes
MEMORY = Figure("memory", "KiB/connection", 1 / 1024, more_is_better=False)

# Seconds of a processor for so many requests.
CPU_BOTH = Figure("CPU, both proxies", "s/10,000", 1e4, more_is_better=False)
CPU_CLIENT = Figure("CPU, client's", "s/10,000", 1e4, more_is_better=False)
CPU_SERVER = Figure("CPU, server's", "s/10,000", 1e4, more_is_better=False)
RSS = Figure("RSS, both proxies", "MiB", 2**-20, more_is_better=False)
ONE_RSS = Figure("RSS", "MiB", 2**-20, more_is_better=False)
READY = Figure("to ready", "s", 1.0, more_is_better=False)
ENROLLED = Figure("enrolled", "ms", 1e3, more_is_better=False)
DELTA = Figure("one workload's delta, CPU", "ms", 1e3, more_is_better=False)
ACKNOWLEDGED = Figure("its acknowledgement", "ms", 1e3, more_is_better=False)
DECISION = Figure("decision", "us", 1e6, more_is_better=False)
TIMES_QUIET = Figure("p99, of its quiet one", "", 1.0, more_is_better=False)
CORES = Figure("CPU of the proxy", "cores", 1.0, more_is_better=False)
RATE_OF_ONE = Figure("rate, of one pair's", "", 1.0)
CPU_OF_ONE = Figure("CPU, of one pair's", "", 1.0, more_is_better=False)

_TIMES = (RATE, P50, P99)
FIGURES = {
    Load.REQUESTS: _TIMES,
    Load.KIB: _TIMES,
    Load.KIB_16: _TIMES,
    Load.CONNECTIONS: (RATE,),
    Load.BULK: (SPEED,),
    Load.UPLOAD: (SPEED,),
    Load.SUSTAINED: (TIMES_QUIET,),
    Load.START: (READY,),
    Load.COMPILED: (READY,),
    Load.ENROLMENT: (ENROLLED,),
    Load.WORLD: (ONE_RSS, DELTA, ACKNOWLEDGED, DECISION, READY),
    Load.CHANGES: (TIMES_QUIET, CORES),
    Load.ENGINES: (RATE_OF_ONE, CPU_OF_ONE),
    Load.STREAMS: _TIMES,
    Load.CALLS: _TIMES,
    Load.BODIES: (SPEED,),
    Load.IDLE: (RSS,),
    Load.RULED: _TIMES,
}
_NAMES = {
    Load.REQUESTS: "{} connections",
    Load.KIB: "{} connections, 1 KiB bodies",
    Load.KIB_16: "{} connections, 16 KiB bodies",
    Load.CONNECTIONS: "new connections, {} at a time",
    Load.BULK: "bulk to the client, {} streams",
    Load.UPLOAD: "bulk to the server, {} streams",
    Load.SUSTAINED: "{:,} new connections a second, an unrelated pair",
    Load.START: "start, programs pinned",
    Load.COMPILED: "start, programs compiled",
    Load.ENROLMENT: "enrolment of a pod",
    Load.WORLD: "{:,} workloads, a tenth as many policies",
    Load.CHANGES: "20 changes a second beside {:,} live flows, a pair",
    Load.ENGINES: "{} connections, two pairs of proxies",
    Load.STREAMS: "HTTP/2, {} streams",
    Load.CALLS: "gRPC, {} calls",
    Load.BODIES: "1 MiB bodies",
    Load.IDLE: "{:,} idle connections",
    Load.RULED: "1,000 routes, policies, tokens",
}


@dataclass(frozen=True, slots=True)
class Cell:
    """`parallel` connections at a time, or how many of what the load is about; `logged`: every proxy writes
    its access log."""

    route: Route
    load: Load
    parallel: int
    logged: bool = True

    @property
    def section(self) -> str:
        """The rows that it stands among."""
        return str(self.route) if self.logged else f"{self.route}, no access log"

    @property
    def name(self) -> str:
        """As the table and the JSON file name it."""
        if self.load is Load.IDLE and not self.parallel:
            return "at the start"
        name = _NAMES[self.load].format(self.parallel)
        return name.replace("1 connections", "1 connection").replace("1 streams", "1 stream")

    @property
    def figures(self) -> tuple[Figure, ...]:
        """What is measured, in the order of `Sample`."""
        found = FIGURES[self.load]
        if self.route is Route.WAYPOINT:
            return (MEMORY,) if self.load is Load.IDLE else (*found, CPU)
        if self.route is Route.TWO_NODES and found == _TIMES:
            return (*found, CPU_BOTH, CPU_CLIENT, CPU_SERVER)
        return found


def _two_nodes() -> tuple[Cell, ...]:
    loads = [(Load.REQUESTS, parallel) for parallel in (1, 8, 32, 64, 256)]
    loads += [(Load.KIB, 8), (Load.KIB_16, 8), (Load.CONNECTIONS, 1), (Load.CONNECTIONS, 64)]
    loads += [(load, streams) for load in (Load.BULK, Load.UPLOAD) for streams in (1, 8)]
    return tuple(Cell(Route.TWO_NODES, *each) for each in loads)


_SAME_NODE = ((Load.REQUESTS, 1), (Load.REQUESTS, 64), (Load.CONNECTIONS, 64), (Load.BULK, 1))

CELLS = (
    *_two_nodes(),
    *(Cell(Route.SAME_NODE, *each) for each in _SAME_NODE),
    *(Cell(Route.SAME_NODE_MTLS, *each) for each in _SAME_NODE),
    *(
        Cell(route, load, 64)
        for route in (Route.PLAIN_IN, Route.PLAIN_OUT)
        for load in (Load.REQUESTS, Load.CONNECTIONS)
    ),
)
"""Loads on paths, with all contestants in turns."""

MAIN = {(Load.REQUESTS, 8), (Load.REQUESTS, 64), (Load.CONNECTIONS, 64)}
"""Those between two nodes that are measured the other way as well: without access log, or with."""


LIFE_CELLS = tuple(Cell(Route.PROXIES, load, 1) for load in (Load.START, Load.COMPILED))
SUSTAINED_CELLS = (Cell(Route.PROXIES, Load.SUSTAINED, 1000),)
ENGINE_CELLS = (Cell(Route.PROXIES, Load.ENGINES, 256),)
WAYPOINT_CELLS = (
    Cell(Route.WAYPOINT, Load.IDLE, 1000),  # first, as memory is not given back
    *(Cell(Route.WAYPOINT, Load.REQUESTS, parallel) for parallel in (1, 8, 64)),
    Cell(Route.WAYPOINT, Load.STREAMS, 64),
    Cell(Route.WAYPOINT, Load.CALLS, 64),
    Cell(Route.WAYPOINT, Load.BODIES, 4),
    Cell(Route.WAYPOINT, Load.RULED, 64),
)
OURS, BARE, ENVOY = "ztunnel", "no mesh", "Envoy"


def idle_cells(most: int) -> tuple[Cell, ...]:
    """Of proxies that have just been started; with a thousand connections and the most that this machine
    holds."""
    return tuple(Cell(Route.PROXIES, Load.IDLE, count) for count in dict.fromkeys((0, min(1000, most), most)))


def large_cells(workloads: int, flows: int) -> tuple[Cell, ...]:
    """A world of so many workloads, and so many flows that live beside its changes."""
    found = ((Load.WORLD, workloads), (Load.ENROLMENT, 1), (Load.CHANGES, flows))
    return tuple(Cell(Route.LARGE, *each) for each in found)


def the_other_way(cells: tuple[Cell, ...], logged: bool) -> tuple[Cell, ...]:
    """The main ones of these, without access log, or with."""
    return tuple(
        Cell(each.route, each.load, each.parallel, logged)
        for each in cells
        if each.route is Route.TWO_NODES and (each.load, each.parallel) in MAIN
    )
