"""A small large world, with a node proxy of ours in it: everything is measured, and nothing is left."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from bench.cells import OURS, large_cells
from bench.large.measure import LATE, enrolled_at, measure_large
from bench.plan import QUICK, Sizes

LOG = """2026-01-01T00:00:00.500000Z\tinfo\tztunnel\tready\tpods=4
2026-01-01T00:00:01.250000Z\tinfo\tpods\tpod enrolled\tpod="large/late-1" netns="/x"
"""


def test_a_pod_is_enrolled_when_the_log_says_so() -> None:
    assert enrolled_at(LOG, "large/late-1") == pytest.approx(1767225601.25)
    assert enrolled_at(LOG, "large/late-10") is None
    assert enrolled_at(LOG, "large/late") is None


@pytest.mark.root
@pytest.mark.timeout(60)
def test_a_large_world_is_served_changed_and_measured() -> None:
    plan = replace(QUICK, sizes=Sizes(workloads=200, flows=20, seconds=0.5))
    world, enrolment, changes = measure_large(f"benchlarge{os.getpid()}", large_cells(200, 20), plan)
    assert [each.failure for each in (world, enrolment, changes)] == ["", "", ""]
    [(resident_bytes, delta, acknowledged, decision, ready)] = world.samples[OURS]
    assert 10 << 20 < resident_bytes < 500 << 20
    assert 0 < decision < acknowledged < 1
    assert 0 < delta < 1
    assert 0.1 < ready < 30
    assert len(enrolment.samples[OURS]) == len(LATE)
    assert all(0 < seconds < 10 for (seconds,) in enrolment.samples[OURS])
    [(ratio, cores)] = changes.samples[OURS]
    assert ratio > 0
    assert 0 < cores < 2
