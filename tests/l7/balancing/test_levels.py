"""Levels and localities; the first table is Envoy's documentation of priority levels."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.l7.balancing.levels import panics, shares_of_levels, weight_of_place

SHARES = [
    ([(100, 100), (100, 100)], [1, 0]),
    ([(72, 100), (72, 100)], [1, 0]),
    ([(71, 100), (71, 100)], [0.994, 0.006]),
    ([(50, 100), (50, 100)], [0.7, 0.3]),
    ([(25, 100), (100, 100)], [0.35, 0.65]),
    ([(0, 100), (100, 100)], [0, 1]),
    ([(25, 100), (25, 100)], [0.5, 0.5]),
    ([(20, 100), (20, 100), (10, 100)], [0.28 / 0.7, 0.28 / 0.7, 0.14 / 0.7]),
    ([(0, 3), (0, 3)], [0, 0]),
    ([(0, 0), (1, 1)], [0, 1]),
    ([], []),
]


@pytest.mark.parametrize(("levels", "shares"), SHARES)
def test_a_level_gives_up_what_it_cannot_take(levels, shares):
    assert shares_of_levels(levels) == pytest.approx(shares)


healths = st.lists(st.integers(0, 20).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), max_size=5)


@given(healths)
def test_shares_are_all_or_nothing(levels):
    total = sum(shares_of_levels(levels))
    assert total == pytest.approx(1 if any(left for left, _ in levels) else 0)


PANICS = [
    ([(4, 10)], 0, [False]),
    ([(4, 10)], 50, [True]),
    ([(5, 10)], 50, [False]),
    ([(0, 10)], 1, [True]),
    ([(4, 10), (10, 10)], 50, [False, False]),  # the second level can take all
    ([(1, 10), (2, 10)], 20, [True, False]),
    ([(0, 0)], 50, [False]),
]


@pytest.mark.parametrize(("levels", "percent", "panic"), PANICS)
def test_a_level_of_which_too_few_are_left_is_used_whole(levels, percent, panic):
    assert panics(levels, percent) == panic


def test_a_locality_keeps_its_weight_until_too_few_are_left():
    assert weight_of_place(80, 8, 10) == 80
    assert weight_of_place(80, 5, 10) == pytest.approx(56)
    assert weight_of_place(80, 0, 10) == weight_of_place(80, 0, 0) == 0
