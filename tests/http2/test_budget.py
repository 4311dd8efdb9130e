"""Points for glitches: taken, given back by time and by orderly ends."""

from __future__ import annotations

import pytest

from ztunnel.errors import PeerError
from ztunnel.flow.rate import Bucket, Rate
from ztunnel.http2.budget import CAPACITY_POINTS, POINTS_PER_SECOND, UPDATES_SPARE, Glitch, GlitchBudget
from ztunnel.http2.frame import Code

RICH = Rate(1e9, 1.0, 0)


def budget_of(peer: Bucket) -> GlitchBudget:
    return GlitchBudget(0.0, peer)


def test_a_peer_that_has_spent_its_points_on_other_sessions_has_none() -> None:
    peer = Bucket(Rate(10, 1.0, 10), 0.0)
    peer.take(10, 0.0)
    with pytest.raises(PeerError) as error:
        budget_of(peer).spend(Glitch.PING, 0.0)
    assert error.value.reply == Code.ENHANCE_YOUR_CALM
    budget_of(peer).spend(Glitch.PING, 2.0)


def test_a_flood_runs_out_of_points() -> None:
    budget = budget_of(Bucket(RICH, 0.0))
    for _ in range(CAPACITY_POINTS):
        budget.spend(Glitch.PING, 0.0)
    with pytest.raises(PeerError) as error:
        budget.spend(Glitch.PING, 0.0)
    assert error.value.reply == Code.ENHANCE_YOUR_CALM
    assert budget.spent == CAPACITY_POINTS + 1


def test_time_gives_points_back() -> None:
    budget = budget_of(Bucket(RICH, 0.0))
    for number in range(CAPACITY_POINTS * 3):
        budget.spend(1, number / POINTS_PER_SECOND)


def test_time_gives_back_no_more_than_there_were() -> None:
    budget = budget_of(Bucket(RICH, 0.0))
    for _ in range(CAPACITY_POINTS):
        budget.spend(1, 1e6)
    with pytest.raises(PeerError):
        budget.spend(1, 1e6)


def test_streams_that_end_as_they_should_pay_for_those_that_do_not() -> None:
    budget = budget_of(Bucket(RICH, 0.0))
    for _ in range(CAPACITY_POINTS * 3):
        budget.give_back()
        budget.spend(Glitch.OUR_RESET, 0.0)


def test_window_updates_are_free_for_what_was_sent() -> None:
    budget = budget_of(Bucket(RICH, 0.0))
    for _ in range(UPDATES_SPARE * 3):
        budget.updates += 1
        budget.spend_update(0.0)
    assert budget.spent == 0


def test_window_updates_beyond_that_cost_points() -> None:
    budget = budget_of(Bucket(RICH, 0.0))
    budget.updates += 10 * UPDATES_SPARE
    for _ in range(UPDATES_SPARE + CAPACITY_POINTS):
        budget.spend_update(0.0)
    with pytest.raises(PeerError):
        budget.spend_update(0.0)
