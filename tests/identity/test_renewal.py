"""Half of the life, exponential patience, and never later than what is still valid."""

from __future__ import annotations

from datetime import timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.identity.builders import NOW
from ztunnel.identity.renewal import Priority, backoff, renew_at, retry_at

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


class Fixed:
    """An Rng that always says the same."""

    def __init__(self, value: float) -> None:
        self.value = value

    def random(self) -> float:
        return self.value


def test_a_certificate_is_renewed_at_half_of_its_life_or_a_twentieth_earlier() -> None:
    assert renew_at(NOW, NOW + DAY, NOW, Fixed(0.0)) == NOW + DAY / 2
    assert renew_at(NOW, NOW + DAY, NOW, Fixed(1.0)) == NOW + DAY * 0.45


def test_a_certificate_that_came_after_its_half_is_renewed_at_half_of_what_is_left() -> None:
    received = NOW + 20 * HOUR
    assert renew_at(NOW, NOW + DAY, received, Fixed(0.0)) == received + 2 * HOUR


@given(st.integers(0), st.integers(1, 10**7), st.floats(0, 1, exclude_max=True))
def test_renewal_lies_between_receipt_and_expiry(seed: int, life_seconds: int, share: float) -> None:
    end = NOW + timedelta(seconds=life_seconds)
    received = NOW + timedelta(seconds=life_seconds) * share
    due = renew_at(NOW, end, received, Random(seed))
    assert received <= due <= end


@pytest.mark.parametrize(
    ("attempt", "seconds"), [(0, 1), (1, 1), (2, 2), (3, 4), (8, 128), (9, 150), (50, 150), (10**6, 150)]
)
def test_patience_doubles_up_to_150_seconds_and_varies_by_a_fifth(attempt: int, seconds: float) -> None:
    assert backoff(attempt, Fixed(0.5)) == pytest.approx(seconds)
    assert backoff(attempt, Fixed(0.0)) == pytest.approx(seconds * 0.8)
    assert backoff(attempt, Fixed(1.0)) == pytest.approx(seconds * 1.2)


def test_a_retry_is_not_later_than_the_expiry_of_what_is_valid() -> None:
    soon = NOW + timedelta(seconds=3)
    assert retry_at(NOW, 9, soon, Fixed(0.5)) == soon
    assert retry_at(NOW, 1, soon, Fixed(0.5)) == NOW + timedelta(seconds=1)


@pytest.mark.parametrize("not_after", [None, NOW, NOW - HOUR])
def test_without_anything_valid_a_retry_waits_for_the_whole_backoff(not_after: object) -> None:
    assert retry_at(NOW, 3, not_after, Fixed(0.5)) == NOW + timedelta(seconds=4)  # type: ignore[arg-type]


def test_a_caller_goes_before_a_prefetch_and_that_before_a_refresh() -> None:
    assert sorted([Priority.REFRESH, Priority.CALLER, Priority.PREFETCH]) == [
        Priority.CALLER,
        Priority.PREFETCH,
        Priority.REFRESH,
    ]
