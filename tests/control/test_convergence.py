"""A change counts from when it was known until the answer for the response that has it."""

from __future__ import annotations

import pytest

from ztunnel.control.convergence import Convergence
from ztunnel.xds.resource import ADDRESS, AUTHORIZATION


@pytest.fixture
def it() -> Convergence:
    """A subscriber that has answered for its first response."""
    made = Convergence()
    made.sent(ADDRESS, "1")
    assert made.answered(ADDRESS, "1") is None, "no change made it"
    return made


def test_a_change_counts_from_when_it_was_known(it: Convergence) -> None:
    it.changed([ADDRESS], 3.0)
    it.sent(ADDRESS, "2")
    it.settle()
    assert it.answered(ADDRESS, "2") == 3.0
    assert it.answered(ADDRESS, "2") is None, "twice"


def test_what_waits_for_an_answer_counts_from_the_first_change(it: Convergence) -> None:
    it.changed([ADDRESS], 3.0)
    it.sent(ADDRESS, "2")
    it.settle()
    for at in (4.0, 5.0):
        it.changed([ADDRESS], at)
        it.settle()
    assert it.answered(ADDRESS, "2") == 3.0
    it.sent(ADDRESS, "3")
    it.settle()
    assert it.answered(ADDRESS, "3") == 4.0


def test_types_count_apart(it: Convergence) -> None:
    it.changed([AUTHORIZATION, ADDRESS], 3.0)
    it.sent(AUTHORIZATION, "2")
    it.settle()
    assert it.answered(AUTHORIZATION, "2") == 3.0
    it.sent(ADDRESS, "3")
    it.settle()
    assert it.answered(ADDRESS, "3") == 3.0


def test_what_does_not_concern_the_subscriber_makes_nothing_later_slow(it: Convergence) -> None:
    it.changed([ADDRESS], 3.0)
    it.settle()
    it.changed([ADDRESS], 8.0)
    it.sent(ADDRESS, "2")
    assert it.answered(ADDRESS, "2") == 8.0


@pytest.mark.parametrize("nonce", ["", "1", "other"])
def test_what_is_no_answer_for_it_counts_as_nothing(it: Convergence, nonce: str) -> None:
    it.changed([ADDRESS], 3.0)
    it.sent(ADDRESS, "2")
    assert it.answered(ADDRESS, nonce) is None
    assert it.answered(AUTHORIZATION, "2") is None
    assert it.answered(ADDRESS, "2") == 3.0
