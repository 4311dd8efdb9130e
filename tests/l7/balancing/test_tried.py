"""Levels that a request is not tried at any more; `test_cluster` has what that means for its endpoints."""

from __future__ import annotations

import pytest

from ztunnel.l7.balancing.tried import passed_over


@pytest.mark.parametrize(
    ("levels", "over"),
    [
        ([], set()),
        ([0], set()),
        ([0, 0], {0}),
        ([0, 1], {0, 1}),
        ([0, 0, 1], {0}),
        ([0, 0, 1, 1], {0, 1}),
        ([0, 0, 1, 2], set()),
        ([0, 0, 1, 1, 2, 2], set()),
        ([0, 0, 1, 1, 2, 2, 0], set()),
        ([0, 0, 1, 1, 2, 2, 0, 0], {0}),
    ],
)
def test_every_second_try_passes_over_those_before(levels: list[int], over: set[int]) -> None:
    assert passed_over(levels, lambda gone: len(gone) < 3) == over


def test_where_nobody_serves_nothing_is_passed_over() -> None:
    assert passed_over([0] * 9, lambda gone: False) == set()
