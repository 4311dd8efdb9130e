"""Algorithms: their distributions, and who is passed over."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from tests.l7.hosts import host, hosts, times
from ztunnel.l7.balancing.balance import AtRandom, Hashed, InTurn, LeastOfTwo, Schedule, chooser_of
from ztunnel.l7.balancing.host import hash_of
from ztunnel.model.traffic import Balance, Balancing, ConsistentHash, Warmup

NOW = 1000.0


def chooser(balancing, members, before=None, now=NOW):
    return chooser_of(balancing, members, before, now, Random(1))


def chosen(made, count, rng=None, key=None, now=NOW):
    rng = rng or Random(7)
    return times(count, lambda: made.choose(key, now, rng))


def weighted(*weights):
    return [host(number, weight) for number, weight in enumerate(weights)]


KINDS = [
    (Balancing(), (1, 1), LeastOfTwo),
    (Balancing(Balance.LEAST_REQUEST), (1, 1), LeastOfTwo),
    (Balancing(Balance.PASSTHROUGH), (1, 1), LeastOfTwo),
    (Balancing(Balance.LEAST_REQUEST), (1, 2), Schedule),
    (Balancing(Balance.ROUND_ROBIN), (3, 3), InTurn),
    (Balancing(Balance.ROUND_ROBIN), (1, 2), Schedule),
    (Balancing(Balance.RANDOM), (1, 2), AtRandom),
    (Balancing(None, ConsistentHash(header="a")), (1, 1), Hashed),
    (Balancing(None, ConsistentHash(header="a", maglev_size=11)), (1, 1), Hashed),
]


@pytest.mark.parametrize(("balancing", "weights", "kind"), KINDS)
def test_what_is_chosen_by(balancing, weights, kind):
    assert type(chooser(balancing, weighted(*weights))) is kind


def test_all_are_chosen_alike_at_random():
    members = weighted(1, 5, 9)
    found = chosen(chooser(Balancing(Balance.RANDOM), members), 6000)
    assert all(abs(found[each] - 2000) < 200 for each in members)


def test_each_has_its_turn_and_not_all_waypoints_begin_with_the_same():
    members = hosts(5)
    found = chosen(chooser(Balancing(Balance.ROUND_ROBIN), members), 500)
    assert set(found.values()) == {100}
    first = {InTurn(members, Random(seed)).choose(None, NOW, Random(1)) for seed in range(50)}
    assert first == set(members)


@pytest.mark.parametrize("simple", [Balance.ROUND_ROBIN, Balance.LEAST_REQUEST])
def test_turns_are_by_weight(simple):
    members = weighted(1, 2, 5)
    found = chosen(chooser(Balancing(simple), members), 800)
    assert [found[each] for each in members] == pytest.approx([100, 200, 500], abs=2)


def test_turns_by_weight_are_mixed():
    made, rng = chooser(Balancing(Balance.ROUND_ROBIN), weighted(1, 1, 2)), Random(1)
    for _ in range(100):
        assert len({made.choose(None, NOW, rng) for _ in range(4)}) > 1


def serve(made, members, steps, slow):
    """Each request is under way for a step, with `slow` for ten; how many each got."""
    rng, found, ends = Random(3), Counter(), []
    for step in range(steps):
        for end, one in tuple(ends):
            if end <= step:
                one.active -= 1
                ends.remove((end, one))
        one = made.choose(None, NOW, rng)
        one.active += 1
        found[one] += 1
        ends.append((step + (10 if one is slow else 1), one))
    return found


@pytest.mark.parametrize("weights", [(1, 1, 1), (2, 2, 3)])
def test_whoever_is_slow_gets_less(weights):
    members = weighted(*weights)
    found = serve(chooser(Balancing(), members), members, 3000, members[0])
    assert found[members[0]] < 3000 * 0.2


def test_of_two_the_one_with_less_under_way():
    members = hosts(2)
    members[0].active = 1
    found = chosen(LeastOfTwo(members), 4000)
    assert found[members[1]] == pytest.approx(3000, rel=0.05)  # three of four draws have it among them


@pytest.mark.parametrize("simple", [Balance.ROUND_ROBIN, Balance.LEAST_REQUEST])
def test_a_new_endpoint_gets_less_at_first(simple):
    members = hosts(4)
    members[3].since = NOW - 20
    made = chooser(Balancing(simple, warmup=Warmup(100.0)), members)
    young = chosen(made, 3200)[members[3]]
    assert young == pytest.approx(200, rel=0.15)
    grown = times(400, lambda: made.choose(None, NOW + 200, Random(1)))[members[3]]
    assert grown == pytest.approx(100, rel=0.1)


def test_where_none_is_new_there_is_no_schedule():
    assert type(chooser(Balancing(warmup=Warmup(100.0)), hosts(3))) is LeastOfTwo
    assert type(chooser(Balancing(None, None, None, Warmup(2000.0)), hosts(3))) is Schedule


@pytest.mark.parametrize(("balancing", "weights", "_"), KINDS)
@pytest.mark.parametrize("key", [None, 5])
def test_another_one_than_the_one_that_failed(balancing, weights, _, key):
    members = weighted(*weights)
    made, rng, found = chooser(balancing, members), Random(2), Counter()
    for _ in range(1000):
        found[made.other(key, (members[0].endpoint,), NOW, rng)] += 1
    assert found[members[1]] == 1000
    alone = chooser(balancing, members[:1])
    assert alone.other(key, (members[0].endpoint,), NOW, rng) is members[0]


@pytest.mark.parametrize(("balancing", "weights", "_"), KINDS)
@pytest.mark.parametrize("key", [None, 5])
def test_each_is_tried_before_one_is_tried_twice(balancing, weights, _, key):
    members = weighted(*weights, *weights, *weights)
    made, rng = chooser(balancing, members), Random(3)
    for _ in range(50):
        tried = ()
        for _ in members:
            tried = (*tried, made.other(key, tried, NOW, rng).endpoint)
        assert len(set(tried)) == len(members)
        assert made.other(key, tried, NOW, rng) in members


BY_HEADER = ConsistentHash(header="a", ring_size=64)
BY_TABLE = ConsistentHash(header="a", maglev_size=10007)


@pytest.mark.parametrize("by", [BY_HEADER, BY_TABLE])
def test_one_key_is_one_endpoint_and_no_key_any(by):
    members = hosts(5)
    made = chooser(Balancing(None, by), members)
    for number in range(50):
        assert len(chosen(made, 20, key=hash_of(b"%d" % number))) == 1
    assert set(chosen(made, 200)) == set(members)


def test_a_table_is_filled_while_the_one_before_is_used():
    members = hosts(4)
    before = chooser(Balancing(None, BY_TABLE), members)
    keys = [hash_of(b"%d" % number) for number in range(300)]
    made, rng, rounds, more = chooser(Balancing(None, BY_TABLE), members[1:], before), Random(1), 0, True
    while more:
        for key in keys:
            one, old = made.choose(key, NOW, rng), before.choose(key, NOW, rng)
            assert one in members[1:]
            assert one is old or old is members[0]
        rounds, more = rounds + 1, made.go_on()
    assert rounds > 1
    assert all(made.choose(key, NOW, rng) is not members[0] for key in keys)
    assert not made.go_on()


def test_what_has_nothing_to_prepare_says_so():
    assert not any(chooser(balancing, hosts(2)).go_on() for balancing, _, kind in KINDS if kind is not Hashed)
