"""Shares of new endpoints."""

import pytest

from ztunnel.l7.balancing.warmup import share_of
from ztunnel.model.traffic import Warmup

CASES = [
    # seconds, least percent, aggression, age: share
    (100, 10, 1.0, 0, 0.1),
    (100, 10, 1.0, 10, 0.1),
    (100, 10, 1.0, 50, 0.5),
    (100, 10, 1.0, 100, 1.0),
    (100, 10, 1.0, 1000, 1.0),
    (100, 0, 1.0, 0, 0.01),
    (100, 40, 1.0, 30, 0.4),
    (100, 10, 2.0, 25, 0.5),
    (0.5, 10, 1.0, 0, 1.0),
]


@pytest.mark.parametrize(("seconds", "least", "aggression", "age", "share"), CASES)
def test_the_share_grows_with_age(seconds, least, aggression, age, share):
    assert share_of(Warmup(seconds, least, aggression), age) == pytest.approx(share)
