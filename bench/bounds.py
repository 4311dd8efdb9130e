"""What each figure has to reach, must and goal, and whether it does."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from bench.cells import (
    BARE,
    CPU_BOTH,
    DECISION,
    DELTA,
    ENROLLED,
    ENVOY,
    MEMORY,
    ONE_RSS,
    OURS,
    P50,
    P99,
    RATE,
    READY,
    RSS,
    SPEED,
    TIMES_QUIET,
    Cell,
    Figure,
    Load,
    Route,
)
from bench.figures import Result


class Against(StrEnum):
    """Whose figure ours is divided by."""

    BARE = BARE
    ENVOY = ENVOY
    PEER = "the better peer"  # of all pairs of proxies that are not ours
    NOTHING = "nothing"  # ours is to be so itself


class Verdict(StrEnum):
    """Of a figure of ours."""

    GOAL = "goal"
    MUST = "must"
    BELOW = "BELOW"
    OPEN = "not measured"


@dataclass(frozen=True, slots=True)
class Bound:
    """At least so much, or at most where less is better: of a rival's figure, or, against nothing, in the
    figure's own unit."""

    against: Against
    must: float
    goal: float | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """A bound beside what was reached: our median divided by `rival`'s, or our median; None without one."""

    bound: Bound
    rival: str
    reached: float | None
    verdict: Verdict


_PEER_MANY = Bound(Against.PEER, 1.2, 1.7)
_PEER_SOME = Bound(Against.PEER, 1.0, 1.3)
_BARE = Bound(Against.BARE, 0.95, 0.99)
_BULK = Bound(Against.PEER, 0.95, 1.1)
_TAIL = Bound(Against.PEER, 1.0, 0.7)

_TWO_NODES = {
    (Load.REQUESTS, 1, P50): Bound(Against.PEER, 1.05, 0.9),
    (Load.REQUESTS, 8, RATE): _PEER_SOME,
    (Load.REQUESTS, 32, RATE): _PEER_SOME,
    (Load.REQUESTS, 64, RATE): _PEER_MANY,
    (Load.REQUESTS, 64, P99): _TAIL,
    (Load.REQUESTS, 64, CPU_BOTH): Bound(Against.PEER, 1.0, 0.7),
    (Load.REQUESTS, 256, RATE): _PEER_MANY,
    (Load.REQUESTS, 256, P99): _TAIL,
    (Load.CONNECTIONS, 1, RATE): _PEER_SOME,
    (Load.CONNECTIONS, 64, RATE): _PEER_SOME,
    (Load.BULK, 1, SPEED): _BULK,
    (Load.BULK, 8, SPEED): _BULK,
    (Load.UPLOAD, 1, SPEED): _BULK,
    (Load.UPLOAD, 8, SPEED): _BULK,
}
_SAME_NODE = {
    (Load.REQUESTS, RATE): _BARE,
    (Load.BULK, SPEED): _BARE,
    (Load.CONNECTIONS, RATE): Bound(Against.BARE, 0.85, 0.97),
}
_PROXIES = {
    (Load.START, READY): Bound(Against.NOTHING, 1.5, 0.7),
    (Load.COMPILED, READY): Bound(Against.NOTHING, 6.0, 4.0),
    (Load.SUSTAINED, TIMES_QUIET): Bound(Against.NOTHING, 2.0, 1.3),
}
_AT_START, _IDLE = Bound(Against.ENVOY, 1.0, 0.6), Bound(Against.ENVOY, 1.0, 0.7)
_LARGE = {
    (Load.WORLD, ONE_RSS): Bound(Against.NOTHING, 500.0, 250.0),
    (Load.WORLD, DELTA): Bound(Against.NOTHING, 1.0, 0.5),
    (Load.WORLD, DECISION): Bound(Against.NOTHING, 50.0, 25.0),
    (Load.WORLD, READY): Bound(Against.NOTHING, 10.0, 5.0),
    (Load.ENROLMENT, ENROLLED): Bound(Against.NOTHING, 30.0, 10.0),
}
_WAYPOINT = {
    (Load.REQUESTS, RATE, 0): 1.0,
    (Load.REQUESTS, P50, 1): 1.0,
    (Load.STREAMS, RATE, 0): 0.5,
    (Load.CALLS, RATE, 0): 0.5,
    (Load.BODIES, SPEED, 0): 0.9,
    (Load.IDLE, MEMORY, 0): 1.0,
    (Load.RULED, RATE, 0): 1.0,
}
"""By load, figure, and the number of connections where only that one counts."""


def bound_of(cell: Cell, figure: Figure) -> Bound | None:
    """What this figure of the cell has to reach; None where it is only shown."""
    match cell.route:
        case Route.TWO_NODES:
            return _TWO_NODES.get((cell.load, cell.parallel, figure))
        case Route.SAME_NODE:
            return _SAME_NODE.get((cell.load, figure))
        case Route.PROXIES if figure is RSS:
            return None if cell.parallel == 1000 else _IDLE if cell.parallel else _AT_START
        case Route.PROXIES:
            return _PROXIES.get((cell.load, figure))
        case Route.LARGE:
            return _LARGE.get((cell.load, figure))
        case Route.WAYPOINT:
            must = _WAYPOINT.get((cell.load, figure, cell.parallel if figure is P50 else 0))
            return None if must is None else Bound(Against.ENVOY, must)
    return None


def judge(result: Result, place: int) -> Judged | None:
    """The bound of the figure at `place`, beside what was reached; None where the figure has none."""
    figure = result.cell.figures[place]
    bound = bound_of(result.cell, figure)
    if bound is None or OURS not in result.samples:
        return None
    rival = rival_of(result, place, bound.against)
    if result.failure or rival is None:
        return Judged(bound, str(bound.against), None, Verdict.OPEN)
    mine = result.median(OURS, place)
    if bound.against is Against.NOTHING:
        return Judged(bound, "", mine * figure.scale, _verdict(mine * figure.scale, bound, figure))
    reached = mine / result.median(rival, place)
    return Judged(bound, rival, reached, _verdict(reached, bound, figure))


def rival_of(result: Result, place: int, against: Against) -> str | None:
    """Who ours is compared with; empty where with nobody, None where that one is not there."""
    if against is Against.NOTHING:
        return ""
    there: Collection[str] = [name for name in result.samples if result.median(name, place)]
    if against is not Against.PEER:
        return str(against) if str(against) in there else None
    peers = [name for name in there if name not in (OURS, BARE)]
    if not peers:
        return None
    best = max if result.cell.figures[place].more_is_better else min
    return best(peers, key=lambda name: result.median(name, place))


def _verdict(reached: float, bound: Bound, figure: Figure) -> Verdict:
    def holds(wanted: float) -> bool:
        return reached >= wanted if figure.more_is_better else reached <= wanted

    if bound.goal is not None and holds(bound.goal):
        return Verdict.GOAL
    return Verdict.MUST if holds(bound.must) else Verdict.BELOW


def below(results: Collection[Result]) -> list[str]:
    """What does not reach its must or could not be measured, a line each."""
    lines = [f"{one.cell.section}: {one.cell.name}: {one.failure}" for one in results if one.failure]
    for one in results:
        for place, figure in enumerate(one.cell.figures):
            judged = judge(one, place)
            if judged is not None and judged.reached is not None and judged.verdict is Verdict.BELOW:
                of = f" of {judged.rival}" if judged.rival else f" {figure.unit}"
                wanted = "at least" if figure.more_is_better else "at most"
                lines.append(
                    f"{one.cell.section}: {one.cell.name}: {figure.name} {judged.reached:.2f}{of}, "
                    f"{wanted} {judged.bound.must:g}"
                )
    return lines
