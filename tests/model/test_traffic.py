"""Policies of a port stand alone, and those of a subset stand over its service's."""

from ztunnel.model.traffic import Balance, Balancing, Outlier, Pool, PortTraffic, RetryBudget, Traffic

RANDOM = Traffic(Balancing(Balance.RANDOM))
POOL = Traffic(pool=Pool(connections=1))


def test_what_one_does_not_say_is_taken_from_the_other():
    below = Traffic(Balancing(Balance.ROUND_ROBIN), outlier=Outlier(), budget=RetryBudget())
    assert RANDOM.over(below) == Traffic(RANDOM.balancing, outlier=Outlier(), budget=RetryBudget())
    assert Traffic().over(below) == below
    refused = Traffic(unsupported=("tunnel",))
    assert Traffic().over(refused) == refused
    assert RANDOM.over(refused).unsupported == ("tunnel",)
    assert RANDOM.over(Traffic()) == RANDOM


def test_a_port_has_nothing_of_what_is_common():
    them = PortTraffic(RANDOM, ((80, POOL),))
    assert (them.at(80), them.at(81)) == (POOL, RANDOM)


def test_what_the_mesh_says_holds_for_ports_as_well():
    them = PortTraffic(RANDOM, ((80, POOL),)).over_mesh(Traffic(pool=Pool(connections=9), outlier=Outlier()))
    assert them.at(80) == Traffic(pool=POOL.pool, outlier=Outlier())
    assert them.at(81) == Traffic(RANDOM.balancing, pool=Pool(connections=9), outlier=Outlier())


def test_a_subsets_ports_count_before_the_services_and_both_before_what_is_common():
    service = PortTraffic(POOL, ((80, POOL), (81, POOL)))
    subset = PortTraffic(RANDOM, ((80, RANDOM),))
    found = subset.over(service)
    assert found.at(80) == RANDOM
    assert found.at(81) == POOL
    assert found.at(82) == RANDOM.over(POOL)
