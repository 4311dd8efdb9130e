"""Buckets of points, and a bounded table of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.flow.rate import Bucket, Rate, Recent

RATE = Rate(10, 2, 12)


def test_points_come_back_with_time_and_never_above_the_capacity() -> None:
    bucket = Bucket(RATE, 0.0)
    assert bucket.take(10, 0.0) == 0
    assert bucket.level(2.0) == 4
    assert bucket.level(100.0) == 10


def test_debt_is_paid_by_time() -> None:
    bucket = Bucket(RATE, 0.0)
    assert bucket.take(20, 0.0) == -10
    assert bucket.seconds_until(-4, 0.0) == 3
    assert bucket.seconds_until(-4, 3.0) == 0
    assert bucket.level(3.0) == -4


def test_debt_has_an_end_so_that_all_is_forgiven_within_a_time() -> None:
    bucket = Bucket(RATE, 0.0)
    assert bucket.take(1e9, 0.0) == -12
    assert bucket.level(6.0) == 0


def test_points_are_given_back() -> None:
    bucket = Bucket(RATE, 0.0)
    bucket.take(3, 0.0)
    bucket.give(5)
    assert bucket.level(0.0) == 10


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 5)), max_size=50))
def test_no_more_is_spent_than_there_was_and_came(spending: list[tuple[float, float]]) -> None:
    bucket, now, spent = Bucket(RATE, 0.0), 0.0, 0.0
    for pause, points in spending:
        now += pause
        if bucket.level(now) >= points:
            bucket.take(points, now)
            spent += points
    assert spent <= RATE.capacity + now * RATE.per_second + 1e-6


def test_a_clock_that_stands_or_goes_back_gives_nothing() -> None:
    bucket = Bucket(RATE, 5.0)
    bucket.take(4, 5.0)
    assert bucket.level(4.0) == 6
    assert bucket.level(5.0) == 6


def test_a_table_makes_each_value_once_and_forgets_whom_nobody_asked_for() -> None:
    table: Recent[str, list[int]] = Recent(2, list)
    table.of("a").append(1)
    table.of("b").append(2)
    assert table.of("a") == [1]
    table.of("c")
    assert len(table) == 2
    assert table.of("a") == [1]
    assert table.of("b") == []


@pytest.mark.parametrize("count", [1, 100])
def test_a_table_stays_within_its_bound(count: int) -> None:
    table: Recent[int, object] = Recent(10, object)
    for key in range(count):
        table.of(key)
    assert len(table) == min(count, 10)
