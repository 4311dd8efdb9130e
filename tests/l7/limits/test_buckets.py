"""Token buckets: what they let through, and that nobody's are filled anew by another one's keys."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.l7.limits.buckets import Buckets, key_of
from ztunnel.model.rate_limit import Limit


def take(buckets: Buckets, key: str = "k", owner: str = "o", now: float = 0.0) -> bool:
    bucket = buckets.find(key, owner, now)
    if bucket.tokens < 1:
        return False
    buckets.take(bucket)
    return True


def test_as_many_pass_as_there_are_tokens_and_then_as_come() -> None:
    buckets = Buckets(Limit(4, 60.0))
    assert [take(buckets) for _ in range(5)] == [True] * 4 + [False]
    assert [take(buckets, now=now) for now in (14.9, 15.0, 15.1, 30.0)] == [False, True, False, True]


def test_a_burst_is_beyond_what_comes() -> None:
    buckets = Buckets(Limit(1, 1.0, burst=2))
    assert [take(buckets) for _ in range(4)] == [True, True, True, False]
    assert [take(buckets, now=100.0) for _ in range(4)] == [True, True, True, False]


def test_a_limit_of_none_lets_nothing_through() -> None:
    buckets = Buckets(Limit(0, 1.0))
    assert not take(buckets)
    assert not take(buckets, now=1e9)
    assert math.isinf(buckets.wait_of(buckets.find("k", "o", 1e9)))


def test_time_that_goes_back_takes_nothing() -> None:
    buckets = Buckets(Limit(1, 1.0))
    assert take(buckets, now=10.0)
    assert not take(buckets, now=5.0)
    assert take(buckets, now=11.0)


@pytest.mark.parametrize(("taken", "now", "wait"), [(1, 0.0, 15.0), (4, 3.0, 12.0), (2, 7.5, 7.5)])
def test_how_long_until_the_next_token(taken: int, now: float, wait: float) -> None:
    buckets = Buckets(Limit(4, 60.0))
    assert all(take(buckets) for _ in range(taken))
    assert buckets.wait_of(buckets.find("k", "o", now)) == pytest.approx(wait, abs=1e-3)


@given(st.integers(1, 20), st.floats(0.1, 100), st.integers(0, 5), st.lists(st.floats(0, 50), max_size=60))
def test_never_more_than_the_limit_says(requests: int, seconds: float, burst: int, gaps: list[float]) -> None:
    buckets, now, passed = Buckets(Limit(requests, seconds, burst)), 0.0, 0
    for gap in gaps:
        now += gap / 10
        passed += take(buckets, now=now)
        assert passed <= requests + burst + now * requests / seconds + 1e-6


def test_who_makes_up_a_million_keys_forgets_only_its_own() -> None:
    buckets = Buckets(Limit(1, 3600.0), most=100)
    honest = [f"user {number}" for number in range(40)]
    assert all(take(buckets, key, f"pod {number % 8}") for number, key in enumerate(honest))
    for number in range(20_000):
        take(buckets, f"made up {number}", "bad")
        assert len(buckets) <= 100
    assert not any(take(buckets, key, f"pod {number % 8}") for number, key in enumerate(honest))
    assert buckets.evicted == 20_000 - 60
    assert not take(buckets, "made up 19999", "bad")  # what it used last is what it keeps


def test_its_least_used_key_goes_first() -> None:
    buckets = Buckets(Limit(1, 3600.0), most=3)
    assert all(take(buckets, key) for key in "abc")
    assert not take(buckets, "a")
    assert take(buckets, "d")
    assert not take(buckets, "a")
    assert take(buckets, "b")


def test_a_key_is_of_whoever_has_fewer() -> None:
    """A client that names another one's key before it does not get to have it forgotten."""
    buckets = Buckets(Limit(1, 3600.0), most=10)
    for number in range(9):
        take(buckets, f"made up {number}", "bad")
    assert take(buckets, "alice", "bad")
    assert not take(buckets, "alice", "pod")
    for number in range(9, 1000):
        take(buckets, f"made up {number}", "bad")
    assert not take(buckets, "alice", "pod")


def test_many_that_have_one_each_lose_the_oldest() -> None:
    buckets = Buckets(Limit(1, 3600.0), most=5)
    for number in range(8):
        assert take(buckets, f"k{number}", f"o{number}")
    assert [take(buckets, f"k{number}", f"o{number}") for number in range(3, 8)] == [False] * 5


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 4)), max_size=300), st.integers(1, 8))
def test_there_are_never_too_many_and_the_books_are_right(asked: list[tuple[int, int]], most: int) -> None:
    buckets = Buckets(Limit(1, 1.0), most)
    for key, owner in asked:
        buckets.find(str(key), owner, 0.0)
        owners = buckets._owners
        assert len(buckets) <= most
        assert sorted(key for keys in owners.values() for key in keys) == sorted(buckets._of_key)
        ranks = {owner: count for count, rank in buckets._ranks.items() for owner in rank}
        assert ranks == {owner: len(keys) for owner, keys in owners.items()}
        assert max(ranks.values()) == buckets._top


@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_a_key_is_of_its_values_alone(one: list[str], other: list[str]) -> None:
    assert (key_of(one) == key_of(other)) is (one == other)


def test_a_key_is_short_whatever_a_client_says() -> None:
    assert len(key_of(["x" * 60_000])) <= 64
    assert key_of(["\udcff" * 100]) != key_of(["\udcfe" * 100])
