"""Levels and shares by localities and labels."""

import pytest

from tests.l7.hosts import place, workload
from ztunnel.l7.balancing.locality import Place, levels_of, place_of, shares_of, spread_of
from ztunnel.model.traffic import Localities, Spread


def places(*texts):
    return [Place(place(text), {}) for text in texts]


ALL = ("r1/z1/s1", "r1/z1/s2", "r1/z2/s1", "r2/z1/s1", "r3/z1/s1")
FAILOVER = [
    ("r1/z1/s1", ALL, (), [0, 1, 2, 3, 3]),
    ("r1/z1/s1", ALL, (("r1", "r2"),), [0, 1, 2, 3, 4]),
    ("r1/z1/s1", ALL, (("r9", "r2"),), [0, 1, 2, 3, 3]),
    ("r1/z1/s1", ALL[3:], (("r1", "r3"),), [1, 0]),
    ("r1/z1/s1", ("r1/z2/s1", "r2/z1/s1"), (), [0, 1]),  # levels without endpoints are none
    ("", ALL, (), [0, 0, 0, 0, 0]),
    ("r1", ALL, (), [0, 0, 0, 1, 1]),
]


@pytest.mark.parametrize(("source", "others", "failover", "levels"), FAILOVER)
def test_the_nearest_first(source, others, failover, levels):
    found = levels_of(Localities(failover=failover), Place(place(source), {}), places(*others))
    assert found == levels


LABELS = [
    (("version", "node"), {"version": "1", "node": "a"},
     [{"version": "1", "node": "a"}, {"version": "1"}, {}], [0, 1, 2]),
    (("version", "node"), {"version": "1", "node": "a"}, [{"version": "2", "node": "a"}, {"version": "1"}],
     [1, 0]),
    (("version=2",), {"version": "1"}, [{"version": "1"}, {"version": "2"}], [1, 0]),
    (("x",), {}, [{"x": "1"}, {}], [1, 0]),  # neither has it: alike
]  # fmt: skip


@pytest.mark.parametrize(("priorities", "own", "labels", "levels"), LABELS)
def test_those_that_share_more_labels_first(priorities, own, labels, levels):
    source = Place(place(""), own)
    found = levels_of(Localities(priorities=priorities), source, [Place(place(""), each) for each in labels])
    assert found == levels


def test_labels_of_the_topology_are_those_that_are_known():
    one = workload(1, locality=place("r/z/s"), network="n", cluster="c", node="m")
    found = place_of(one, {"app": "web", "topology.kubernetes.io/zone": "forged"})
    assert found.labels == {
        "app": "web",
        "topology.kubernetes.io/region": "r",
        "topology.kubernetes.io/zone": "z",
        "topology.istio.io/subzone": "s",
        "topology.istio.io/network": "n",
        "topology.istio.io/cluster": "c",
        "kubernetes.io/hostname": "m",
    }


SPREADS = [
    ("r1/z1/s1", "r1/z1/s1", True),
    ("r1/z1/*", "r1/z1/s1", True),
    ("r1/*", "r1/z1/s1", True),
    ("r1", "r1/z1/s1", True),
    ("*", "r1/z1/s1", True),
    ("r1/z2/*", "r1/z1/s1", False),
    ("r1/z1/s1", "r1/z1", False),
    ("r", "r1", False),
]


@pytest.mark.parametrize(("source", "caller", "is_one"), SPREADS)
def test_the_distribution_of_a_caller(source, caller, is_one):
    other = Spread("r7", (("r1", 100),))
    one = Spread(source, (("r1", 100),))
    found = spread_of(Localities(distribute=(other, one)), place(caller))
    assert (found is one) == is_one


SHARES = [
    ((("r1/z1/*", 80), ("r1/z2/*", 20)), ["r1/z1/a", "r1/z2/a", "r2/z1/a"], [1, 1, 1], [80, 20, 0]),
    ((("r1/*", 100),), ["r1/z1/a", "r1/z2/a"], [1, 3], [25, 75]),
    ((("r1/*", 100),), ["r1/z1/a", "r1/z1/a", "r1/z2/a"], [1, 1, 2], [50, 50, 50]),
    ((("r1/z1/*", 60), ("*", 40)), ["r1/z1/a", "r2/z1/a"], [1, 1], [60, 20]),
    ((("r9/*", 100),), ["r1/z1/a"], [1], [0]),
]


@pytest.mark.parametrize(("shares", "where", "weights", "found"), SHARES)
def test_shares_of_localities(shares, where, weights, found):
    assert shares_of(Spread("*", shares), [place(each) for each in where], weights) == pytest.approx(found)
