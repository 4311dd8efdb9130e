"""What one peer may still do, on all of its sessions."""

from __future__ import annotations

from ztunnel.http2.standing import CHURN, GLITCHES, WORK_PER_ROUND, Standing


def test_sessions_share_the_work_of_a_round_and_each_round_has_its_own() -> None:
    standing = Standing(0.0)
    standing.enter(1)
    standing.work_left -= 500
    standing.enter(1)
    assert standing.work_left == WORK_PER_ROUND - 500
    standing.enter(2)
    assert standing.work_left == WORK_PER_ROUND


def test_points_are_full_at_first_and_of_two_kinds() -> None:
    standing = Standing(0.0)
    standing.churn.take(5, 0.0)
    assert standing.glitches.level(0.0) == GLITCHES.capacity
    assert standing.churn.level(0.0) == CHURN.capacity - 5
