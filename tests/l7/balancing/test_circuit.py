"""Limits of what is under way."""

import pytest

from ztunnel.l7.balancing.circuit import NAMES, Circuit, Limit
from ztunnel.model.traffic import Pool, RetryBudget

FIELDS = {
    Limit.CONNECTIONS: Pool(connections=2),
    Limit.PENDING: Pool(pending_requests=2),
    Limit.REQUESTS: Pool(requests=2),
    Limit.RETRIES: Pool(retries=2),
}


@pytest.mark.parametrize("limit", list(Limit))
def test_each_limit_is_its_fields(limit):
    circuit = Circuit()
    assert all(circuit.take(limit) for _ in range(50))
    circuit.limit(FIELDS[limit], None)
    assert not circuit.take(limit)
    for _ in range(49):
        circuit.give(limit)
    assert circuit.take(limit)
    assert not circuit.take(limit)
    assert circuit.overflows[limit] == 2
    assert sum(circuit.overflows) == 2
    for other in set(Limit) - {limit}:
        assert all(circuit.take(other) for _ in range(50))
    assert len(NAMES) == len(Limit)


def test_what_there_must_be_is_taken_and_counted():
    circuit = Circuit()
    circuit.limit(Pool(connections=1), None)
    circuit.force(Limit.CONNECTIONS)
    assert circuit.overflows[Limit.CONNECTIONS] == 0
    circuit.force(Limit.CONNECTIONS)
    assert (circuit.used[Limit.CONNECTIONS], circuit.overflows[Limit.CONNECTIONS]) == (2, 1)


def test_what_was_taken_is_given_back_once():
    circuit = Circuit()
    circuit.take(Limit.REQUESTS)
    circuit.take(Limit.REQUESTS)
    give = circuit.holder(Limit.REQUESTS)
    give()
    give()
    assert circuit.used[Limit.REQUESTS] == 1


BUDGETS = [
    # percent, least, requests under way, retries that fit
    (20, 3, 0, 3),
    (20, 3, 15, 3),
    (20, 3, 100, 20),
    (0, 0, 100, 0),
    (100, 0, 7, 7),
    (12.5, 1, 80, 10),
]


def test_a_budget_of_an_interval_is_a_part_of_what_was_sent_in_it():
    circuit = Circuit()
    circuit.limit(None, RetryBudget(50, 1, 10.0))
    for _ in range(8):
        circuit.sent(0.0)
        assert circuit.take(Limit.REQUESTS, 0.0)
    circuit.limit(None, RetryBudget(25, 1, 10.0))  # what was counted counts for it, too
    assert [circuit.take(Limit.RETRIES, 5.0) for _ in range(3)] == [True, True, False]
    assert not circuit.has_room(Limit.RETRIES, 20.0)  # though they are still under way
    circuit.give(Limit.RETRIES)
    circuit.give(Limit.RETRIES)
    assert [circuit.take(Limit.RETRIES, 20.0) for _ in range(2)] == [True, False]
    circuit.limit(None, RetryBudget(25, 1))
    assert circuit.take(Limit.RETRIES, 20.0)  # of eight that are under way


@pytest.mark.parametrize(("percent", "least", "requests", "fit"), BUDGETS)
def test_a_budget_is_a_part_of_what_is_under_way(percent, least, requests, fit):
    circuit = Circuit()
    circuit.limit(Pool(retries=1), RetryBudget(percent, least))
    for _ in range(requests):
        circuit.take(Limit.REQUESTS)
    assert [circuit.take(Limit.RETRIES) for _ in range(fit + 1)] == [True] * fit + [False]
