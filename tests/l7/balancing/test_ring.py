"""Consistent hashing: how even it is, and how little moves."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.l7.hosts import host, hosts
from ztunnel.l7.balancing.host import hash_of
from ztunnel.l7.balancing.ring import Maglev, Ring, next_prime

KEYS = [hash_of(b"key %d" % n) for n in range(5000)]


def maglev(members, size=65537):
    made = Maglev(members, size)
    assert made.advance(size)
    return made


def ring(members, least=1024):
    return Ring(members, least)


KINDS = pytest.mark.parametrize("kind", [ring, maglev])


@pytest.mark.parametrize(("weights", "least", "size"), [
    ([1], 1024, 1024),
    ([1, 1, 1], 1024, 1026),
    ([1, 1], 1, 2),
    ([1, 3], 1024, 1024),
    ([1, 3], 10, 12),
    ([1] * 2000, 1024, 2000),
])  # fmt: skip
def test_a_ring_has_at_least_its_places_in_proportion(weights, least, size):
    members = [host(number, weight) for number, weight in enumerate(weights)]
    made = Ring(members, least)
    assert len(made) == size
    found = Counter(made._hosts)
    for each in members:
        assert found[each] == pytest.approx(size * each.weight / sum(weights), abs=1)


@KINDS
def test_shares_are_about_even(kind):
    members = hosts(10)
    made = kind(members)
    found = Counter(made.choose(key) for key in KEYS)
    wide = 0.6 if kind is ring else 0.2
    assert all(abs(found[each] - 500) < 500 * wide for each in members)


@KINDS
def test_weights_count(kind):
    members = [host(0, 1), host(1, 4)]
    made = kind(members)
    found = Counter(made.choose(key) for key in KEYS)
    assert found[members[1]] == pytest.approx(4000, rel=0.12)


@KINDS
def test_few_move_where_one_goes(kind):
    members = hosts(10)
    before, after = kind(members), kind(members[:4] + members[5:])
    moved = [key for key in KEYS if before.choose(key).endpoint != after.choose(key).endpoint]
    of_the_one = [key for key in KEYS if before.choose(key) is members[4]]
    assert set(of_the_one) <= set(moved)
    assert len(moved) - len(of_the_one) <= 0.1 * len(KEYS)


@KINDS
def test_few_move_where_one_comes(kind):
    members = hosts(11)
    before, after = kind(members[:10]), kind(members)
    moved = [key for key in KEYS if before.choose(key) is not after.choose(key)]
    to_the_new = [key for key in moved if after.choose(key) is members[10]]
    assert len(moved) - len(to_the_new) <= 0.1 * len(KEYS)
    assert len(to_the_new) == pytest.approx(len(KEYS) / 11, rel=0.7)


@KINDS
def test_the_order_of_endpoints_does_not_matter_to_a_ring_and_hardly_to_a_table(kind):
    members = hosts(7)
    one, two = kind(members), kind(members[::-1])
    moved = sum(one.choose(key) is not two.choose(key) for key in KEYS)
    assert moved <= (0 if kind is ring else 0.05 * len(KEYS))


@KINDS
@given(st.integers(0, (1 << 64) - 1), st.integers(1, 6))
def test_those_that_were_tried_are_chosen_only_where_there_is_no_other(kind, key, count):
    members = hosts(count)
    made = ring(members, 16) if kind is ring else maglev(members, 101)
    first = made.choose(key)
    tried = [first]
    for _ in range(count - 1):
        tried.append(made.choose(key, tuple(each.endpoint for each in tried)))
    assert len(set(tried)) == count
    assert made.choose(key, tuple(each.endpoint for each in tried)) is first


def test_a_table_is_filled_in_parts_to_the_same():
    members = [host(0, 2), host(1, 3), host(2, 1)]
    parts = Maglev(members, 1009)
    rounds = 0
    while not parts.advance(100):
        rounds += 1
    assert 5 < rounds < 11
    whole = maglev(members, 1009)
    assert [parts.choose(key) for key in KEYS] == [whole.choose(key) for key in KEYS]


@pytest.mark.parametrize(("number", "prime"), [(0, 2), (2, 2), (4, 5), (100, 101), (65536, 65537)])
def test_the_size_of_a_table_is_a_prime(number, prime):
    assert next_prime(number) == prime
    assert len(Maglev(hosts(1), number)) == prime
