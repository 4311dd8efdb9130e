"""Shares of new endpoints."""

import pytest

from tests.l7.hosts import host
from ztunnel.l7.balancing.warmup import share_of, warmths_of, warmup_of
from ztunnel.model.traffic import Balance, Balancing, ConsistentHash, Warmup

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


WARMTHS = [
    # when the endpoints of each group came, and what the groups can take at 100
    ([[0.0], [0.0]], [1.0, 1.0]),
    ([[90.0], [0.0]], [0.1, 1.0]),
    ([[50.0, 0.0], [0.0]], [0.75, 1.0]),
    ([[100.0, 100.0], [100.0]], [1.0, 1.0]),  # nobody is warmer
    ([[], [90.0]], [1.0, 1.0]),
    ([], []),
]


@pytest.mark.parametrize(("groups", "expected"), WARMTHS)
def test_groups_are_as_warm_as_their_endpoints_beside_the_warmest(groups, expected):
    made = [[host(0, since=since) for since in group] for group in groups]
    assert warmths_of(Warmup(100), made, 100.0) == pytest.approx(expected)


@pytest.mark.parametrize(("balancing", "counts"), [
    (None, False), (Balancing(warmup=Warmup(1)), True),
    (Balancing(Balance.ROUND_ROBIN, warmup=Warmup(1)), True),
    (Balancing(Balance.RANDOM, warmup=Warmup(1)), False),
    (Balancing(by_hash=ConsistentHash("x"), warmup=Warmup(1)), False), (Balancing(), False),
])  # fmt: skip
def test_only_turns_know_of_it(balancing, counts):
    assert (warmup_of(balancing) is not None) is counts
