from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as some

from ztunnel.demo.bookinfo.binomial import bounds


@pytest.mark.parametrize(
    ("count", "share", "alpha", "expected"),
    [
        (200, 0.0, 1e-6, (0, 0)),
        (200, 1.0, 1e-6, (200, 200)),
        (10, 0.5, 0.05, (2, 8)),
        (20, 0.5, 0.05, (6, 14)),
    ],
)
def test_known_bounds(count: int, share: float, alpha: float, expected: tuple[int, int]) -> None:
    assert bounds(count, share, alpha) == expected


@given(some.integers(1, 60), some.floats(0.01, 0.99), some.floats(1e-6, 0.5))
def test_what_lies_outside_is_as_rare_as_said_and_one_step_further_in_it_is_not(count, share, alpha) -> None:
    low, high = bounds(count, share, alpha)
    chances = [comb(count, k) * share**k * (1 - share) ** (count - k) for k in range(count + 1)]
    assert sum(chances[:low]) <= alpha / 2 * (1 + 1e-9)
    assert sum(chances[high + 1 :]) <= alpha / 2 * (1 + 1e-9)
    assert sum(chances[: low + 1]) > alpha / 2 * (1 - 1e-9)
    assert sum(chances[high:]) > alpha / 2 * (1 - 1e-9)
