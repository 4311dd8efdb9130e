"""A service's endpoints: who is chosen, and what stays known of them while the rest changes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.l7.hosts import endpoint, workload
from ztunnel.l7.balancing.circuit import Circuit
from ztunnel.l7.balancing.cluster import Cluster, Member
from ztunnel.l7.balancing.host import hash_of
from ztunnel.l7.balancing.tried import Tried
from ztunnel.model.traffic import Balance, Balancing, ConsistentHash, Outlier, Pool, Traffic, Warmup

EJECTING = Traffic(outlier=Outlier(2, most_percent=100, base_seconds=30, interval_seconds=10))


def member(number, **more):
    return Member(endpoint(number), workload(number), **more)


def cluster(members, traffic=None):
    made = Cluster(Random(1), Circuit())
    made.configure(traffic or Traffic(), 0.0)
    made.replace(members, 0.0)
    return made


def picked(made, count=400, key=None, tried=None, now=0.0):
    return Counter(made.pick(key, tried, now).endpoint for _ in range(count))


def eject(made, number, now=0.0):
    host = made.hosts[endpoint(number)]
    for _ in range(2):
        made.responded(host, 500, now)
    assert not host.available


def test_without_endpoints_there_is_none():
    assert cluster([]).pick(None, None, 0.0) is None
    assert Cluster(Random(1), Circuit()).pick(None, None, 0.0) is None


def test_whoever_is_ejected_is_not_chosen_and_comes_back():
    made = cluster([member(number) for number in range(3)], EJECTING)
    eject(made, 0)
    assert set(picked(made)) == {endpoint(1), endpoint(2)}
    made.look(20.0)
    assert endpoint(0) not in picked(made, now=20.0)
    made.look(40.0)
    assert set(picked(made, now=40.0)) == {endpoint(0), endpoint(1), endpoint(2)}


def test_where_all_are_ejected_there_is_none():
    made = cluster([member(0), member(1)], EJECTING)
    eject(made, 0)
    eject(made, 1)
    assert made.pick(None, None, 0.0) is None


@pytest.mark.parametrize("simple", [None, Balance.ROUND_ROBIN])
def test_a_level_whose_endpoint_is_new_gets_more_and_more(simple):
    """It is nearer than the others, and was not there before."""
    warmup = Traffic(Balancing(simple, warmup=Warmup(100.0, 5)))
    made = cluster([member(1), member(2)], warmup)
    assert set(picked(made)) == {endpoint(1), endpoint(2)}
    made.replace([member(0, level=0), member(1, level=1), member(2, level=1)], 200.0)
    for age, share in ((0.0, 0.07), (25.0, 0.35), (50.0, 0.7), (72.0, 1.0), (200.0, 1.0)):
        count = picked(made, 1000, now=200.0 + age)[endpoint(0)]
        assert abs(count - 1000 * share) <= 4.5 * (1000 * share * (1 - share)) ** 0.5 + 1, (age, count)


def test_a_locality_whose_endpoint_is_new_gets_more_and_more():
    warmup = Traffic(Balancing(warmup=Warmup(100.0)))
    made = cluster([member(1, place="a", share=50.0)], warmup)
    both = [member(0, place="b", share=50.0), member(1, place="a", share=50.0)]
    made.replace(both, 200.0)
    for age, share in ((0.0, 0.1 / 1.1), (50.0, 1 / 3), (100.0, 0.5)):
        count = picked(made, 1000, now=200.0 + age)[endpoint(0)]
        assert abs(count - 1000 * share) <= 4.5 * (1000 * share * (1 - share)) ** 0.5, (age, count)


def test_where_all_are_new_the_near_ones_get_all():
    """As where a waypoint starts."""
    made = cluster([member(0), member(1, level=1)], Traffic(Balancing(warmup=Warmup(100.0))))
    assert set(picked(made)) == {endpoint(0)}


def test_where_too_few_are_left_all_are_used():
    outlier = replace(EJECTING.outlier, least_healthy_percent=50)
    made = cluster([member(number) for number in range(4)], Traffic(outlier=outlier))
    eject(made, 0)
    eject(made, 1)
    assert set(picked(made)) == {endpoint(2), endpoint(3)}
    eject(made, 2)
    assert len(picked(made)) == 4


def test_what_happened_stays_with_an_endpoint_whatever_else_changes():
    made = cluster([member(0), member(1), member(2)], EJECTING)
    eject(made, 0)
    made.hosts[endpoint(1)].active = 3
    made.replace([member(0), member(1), member(5)], 5.0)
    made.configure(replace(EJECTING, pool=Pool(connections=4)), 5.0)
    assert set(picked(made)) == {endpoint(1), endpoint(5)}
    assert made.hosts[endpoint(1)].active == 3
    assert (made.hosts[endpoint(1)].since, made.hosts[endpoint(5)].since) == (0.0, 5.0)
    assert endpoint(2) not in made.hosts


def test_an_address_that_is_another_pods_now_is_another_endpoint():
    made = cluster([member(0), member(1)], EJECTING)
    eject(made, 0)
    made.replace([Member(endpoint(0), workload(7)), member(1)], 5.0)
    assert set(picked(made)) == {endpoint(0), endpoint(1)}
    assert not made.outliers.ejected


def test_other_rules_of_ejection_begin_afresh():
    made = cluster([member(0), member(1)], EJECTING)
    eject(made, 0)
    made.configure(Traffic(outlier=Outlier(9)), 1.0)
    assert set(picked(made)) == {endpoint(0), endpoint(1)}
    made.configure(Traffic(), 1.0)
    assert made.outliers is None
    assert not made.responded(made.hosts[endpoint(0)], 500, 1.0)
    assert not made.failed(made.hosts[endpoint(0)], False, 1.0)


def test_the_next_level_takes_what_the_first_cannot():
    made = cluster([member(0), member(1), member(2, level=1)], EJECTING)
    assert set(picked(made)) == {endpoint(0), endpoint(1)}
    eject(made, 0)
    found = picked(made, 2000)
    assert found[endpoint(2)] == pytest.approx(600, rel=0.15)  # 1.4 / 2 of the first level is 70 percent
    eject(made, 1)
    assert set(picked(made)) == {endpoint(2)}


def test_localities_have_their_shares():
    members = [
        member(0, place="a", share=80),
        member(1, place="b", share=20),
        member(2, place="b", share=20),
    ]
    made = cluster(members, EJECTING)
    found = picked(made, 4000)
    assert found[endpoint(0)] == pytest.approx(3200, rel=0.05)
    eject(made, 0)
    assert set(picked(made)) == {endpoint(1), endpoint(2)}


def test_one_key_is_one_endpoint_until_that_is_ejected():
    balancing = Balancing(None, ConsistentHash(header="a"))
    made = cluster([member(number) for number in range(5)], replace(EJECTING, balancing=balancing))
    keys = [hash_of(b"%d" % number) for number in range(200)]
    before = {key: made.pick(key, None, 0.0).endpoint for key in keys}
    assert len(set(before.values())) == 5
    eject(made, 0)
    after = {key: made.pick(key, None, 0.0).endpoint for key in keys}
    assert endpoint(0) not in after.values()
    moved = [key for key in keys if before[key] != after[key]]
    assert len(moved) < 200 / 5 * 1.6
    made.look(60.0)
    assert {key: made.pick(key, None, 60.0).endpoint for key in keys} == before


def test_the_one_that_failed_is_passed_over():
    made = cluster([member(0), member(1)], Traffic(Balancing(Balance.ROUND_ROBIN)))
    assert set(picked(made, tried=Tried((endpoint(0),)))) == {endpoint(1)}
    assert set(picked(made, tried=Tried((endpoint(0),), others=False))) == {endpoint(0), endpoint(1)}
    alone = cluster([member(0)])
    assert set(picked(alone, tried=Tried((endpoint(0),)))) == {endpoint(0)}


def levels(made, *tried, remote=True):
    """The levels of those that may be asked after these tries."""
    gone = Tried(tuple(map(endpoint, tried)), others=False, remote=remote)
    return {made.hosts[each].level for each in picked(made, tried=gone)}


def test_levels_that_were_tried_are_passed_over_after_every_second_try():
    made = cluster([member(number, level=number // 2) for number in range(6)], EJECTING)
    for tried, found in (
        ((), {0}),
        ((0,), {0}),
        ((0, 1), {1}),
        ((0, 1, 2), {1}),
        ((0, 1, 2, 3), {2}),
        ((0, 2), {2}),
        ((0, 1, 2, 4), {0}),  # nobody is left: all are asked again
        ((0, 1, 2, 3, 4, 5), {0}),
        ((0, 1, 2, 3, 4, 5, 0), {0}),
        ((0, 1, 2, 3, 4, 5, 0, 0), {1}),
        ((9, 9), {0}),  # those that are there no more have no level
    ):
        assert levels(made, *tried) == found, tried
        assert levels(made, *tried, remote=False) == {0}
    for number in (2, 3):
        eject(made, number)
    assert levels(made, 0, 1) == {2}


def test_a_cluster_of_one_level_has_nowhere_else_to_go():
    made = cluster([member(0), member(1)])
    assert levels(made, 0, 1, 0, 1) == {0}


def test_a_large_table_is_prepared_in_parts():
    balancing = Balancing(None, ConsistentHash(header="a", maglev_size=20011))
    made = cluster([member(number) for number in range(3)], Traffic(balancing))
    made.pick(1, None, 0.0)
    assert not made.unready
    made.replace([member(number) for number in range(4)], 1.0)
    made.pick(1, None, 1.0)
    assert made.unready
    rounds = 0
    while made.go_on():
        rounds += 1
    assert 2 < rounds < 6


@given(st.lists(st.tuples(st.sampled_from(["fail", "answer", "look", "add", "remove"]), st.integers(0, 5))))
def test_only_endpoints_of_the_moment_are_chosen_and_nothing_is_kept_of_others(events):
    made, there, now = cluster([], EJECTING), {}, 0.0
    for what, number in events:
        now += 1.0
        if what == "look":
            made.look(now)
        elif what == "add":
            there[number] = member(number, level=number % 2)
            made.replace(list(there.values()), now)
        elif what == "remove":
            there.pop(number, None)
            made.replace(list(there.values()), now)
        elif number in there:
            host = made.hosts[endpoint(number)]
            if what == "fail":
                made.failed(host, False, now)
            else:
                made.responded(host, 200, now)
        host = made.pick(None, None, now)
        left = [each for each in made.hosts.values() if each.available]
        assert (host in left) == bool(left)
        assert set(made.hosts) == {each.endpoint for each in there.values()}
        assert made.outliers.ejected == {each for each in made.hosts.values() if not each.available}
        assert made.outliers._watched <= set(made.hosts.values())
