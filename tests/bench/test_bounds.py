"""What each figure has to reach, and whether it does."""

from __future__ import annotations

import pytest

from bench.bounds import Against, Bound, Verdict, below, bound_of, judge
from bench.cells import (
    BARE,
    CPU,
    CPU_BOTH,
    ENROLLED,
    ENVOY,
    MEMORY,
    OURS,
    P50,
    P99,
    RATE,
    RSS,
    SPEED,
    Cell,
    Load,
    Route,
)
from bench.figures import Result


@pytest.mark.parametrize(
    ("cell", "figure", "bound"),
    [
        (Cell(Route.TWO_NODES, Load.REQUESTS, 1), P50, Bound(Against.PEER, 1.05, 0.9)),
        (Cell(Route.TWO_NODES, Load.REQUESTS, 1), RATE, None),
        (Cell(Route.TWO_NODES, Load.REQUESTS, 32), RATE, Bound(Against.PEER, 1.0, 1.3)),
        (Cell(Route.TWO_NODES, Load.REQUESTS, 256), RATE, Bound(Against.PEER, 1.2, 1.7)),
        (Cell(Route.TWO_NODES, Load.REQUESTS, 64, logged=False), P99, Bound(Against.PEER, 1.0, 0.7)),
        (Cell(Route.TWO_NODES, Load.REQUESTS, 64), CPU_BOTH, Bound(Against.PEER, 1.0, 0.7)),
        (Cell(Route.TWO_NODES, Load.CONNECTIONS, 1), RATE, Bound(Against.PEER, 1.0, 1.3)),
        (Cell(Route.TWO_NODES, Load.UPLOAD, 8), SPEED, Bound(Against.PEER, 0.95, 1.1)),
        (Cell(Route.SAME_NODE, Load.BULK, 1), SPEED, Bound(Against.BARE, 0.95, 0.99)),
        (Cell(Route.SAME_NODE, Load.CONNECTIONS, 64), RATE, Bound(Against.BARE, 0.85, 0.97)),
        (Cell(Route.SAME_NODE_MTLS, Load.REQUESTS, 64), RATE, None),
        (Cell(Route.PROXIES, Load.IDLE, 0), RSS, Bound(Against.ENVOY, 1.0, 0.6)),
        (Cell(Route.PROXIES, Load.IDLE, 1000), RSS, None),
        (Cell(Route.LARGE, Load.ENROLMENT, 1), ENROLLED, Bound(Against.NOTHING, 30.0, 10.0)),
        (Cell(Route.WAYPOINT, Load.REQUESTS, 64), RATE, Bound(Against.ENVOY, 1.0)),
        (Cell(Route.WAYPOINT, Load.REQUESTS, 64), P50, None),
        (Cell(Route.WAYPOINT, Load.REQUESTS, 1), CPU, None),
        (Cell(Route.WAYPOINT, Load.IDLE, 1000), MEMORY, Bound(Against.ENVOY, 1.0)),
    ],
)
def test_a_figure_has_the_bound_of_its_row(cell, figure, bound) -> None:
    assert bound_of(cell, figure) == bound


def result(mine: float, **theirs: float) -> Result:
    samples = {OURS: [(mine,)], BARE: [(900.0,)], ENVOY: [(theirs.pop("envoy", 100.0),)]}
    return Result(
        Cell(Route.TWO_NODES, Load.CONNECTIONS, 64), samples | {n: [(v,)] for n, v in theirs.items()}
    )


@pytest.mark.parametrize(
    ("mine", "verdict"),
    [(130.0, Verdict.GOAL), (129.0, Verdict.MUST), (100.0, Verdict.MUST), (99.0, Verdict.BELOW)],
)
def test_where_more_is_better_a_bound_is_reached_from_above(mine: float, verdict: Verdict) -> None:
    judged = judge(result(mine), 0)
    assert judged is not None
    assert (judged.rival, judged.reached, judged.verdict) == (ENVOY, mine / 100, verdict)


def test_the_better_peer_is_what_counts_and_no_mesh_is_none() -> None:
    assert judge(result(130.0, other=140.0), 0).rival == "other"
    assert judge(result(130.0, other=90.0), 0).rival == ENVOY


@pytest.mark.parametrize(
    ("mine", "verdict"), [(0.6, Verdict.GOAL), (0.9, Verdict.MUST), (1.2, Verdict.BELOW)]
)
def test_where_less_is_better_from_below(mine: float, verdict: Verdict) -> None:
    cell = Cell(Route.PROXIES, Load.IDLE, 10_000)
    judged = judge(Result(cell, {OURS: [(mine * 2**20,)], ENVOY: [(2.0**20,)]}), 0)
    assert (judged.reached, judged.verdict) == (mine, verdict)


def test_what_stands_alone_is_held_against_its_own_unit() -> None:
    cell = Cell(Route.LARGE, Load.ENROLMENT, 1)
    judged = judge(Result(cell, {OURS: [(0.012,)]}), 0)
    assert (judged.rival, judged.reached, judged.verdict) == ("", 12.0, Verdict.MUST)
    assert below([Result(cell, {OURS: [(0.5,)]})]) == [
        "a large world: enrolment of a pod: enrolled 500.00 ms, at most 30"
    ]


def test_without_a_rival_or_without_ours_nothing_is_judged() -> None:
    cell = Cell(Route.TWO_NODES, Load.CONNECTIONS, 64)
    judged = judge(Result(cell, {OURS: [(5.0,)], BARE: [(9.0,)]}), 0)
    assert (judged.reached, judged.verdict) == (None, Verdict.OPEN)
    assert judge(Result(cell, {ENVOY: [(5.0,)]}), 0) is None
    assert below([Result(cell, {OURS: [(5.0,)], BARE: [(9.0,)]})]) == []


def test_what_is_below_or_was_not_measured_is_named() -> None:
    assert below([result(120.0), result(90.0)]) == [
        "two nodes: new connections, 64 at a time: rate 0.90 of Envoy, at least 1"
    ]
    failed = Result(Cell(Route.TWO_NODES, Load.CONNECTIONS, 64), {OURS: []}, failure="no answer")
    assert below([failed]) == ["two nodes: new connections, 64 at a time: no answer"]
