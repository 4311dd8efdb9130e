"""Levels and shares of a service's endpoints, by who says what of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.builders import world_of
from tests.l7.hosts import endpoint, place, workload
from ztunnel.model.labels import WorkloadLabels
from ztunnel.model.service import LoadBalancing, Service
from ztunnel.model.traffic import Balance, Balancing, Localities, Outlier, Spread, Traffic
from ztunnel.state.balancer import Choice
from ztunnel.state.delta import apply
from ztunnel.waypoint.upstream.members import decides_places, members_of

SERVICE = Service("web", "shop", "web.shop.svc.cluster.local")
FAILOVER = replace(SERVICE, load_balancing=LoadBalancing.FAILOVER)
SOURCE = workload(99, locality=place("r1/z1/s1"))
WHERE = ("r1/z1/s1", "r1/z2/s1", "r2/z1/s1")
FOUND = [
    (level, Choice(workload(number, locality=place(text), capacity=number + 1), endpoint(number)))
    for number, (text, level) in enumerate(zip(WHERE, (1, 1, 0), strict=True))
]


def traffic(localities=None, outlier=False):
    return Traffic(Balancing(None, None, localities), outlier=Outlier() if outlier else None)


LEVELS = [
    # nothing is said: the service's own levels, if it has any
    (SERVICE, Traffic(), [1, 1, 0]),
    (FAILOVER, Traffic(), [1, 1, 0]),
    (FAILOVER, traffic(outlier=True), [1, 1, 0]),
    # where outliers are looked for, the nearest first
    (SERVICE, traffic(outlier=True), [0, 1, 2]),
    (SERVICE, traffic(Localities(), True), [0, 1, 2]),
    (FAILOVER, traffic(Localities(), True), [0, 1, 2]),
    (SERVICE, traffic(Localities(failover=(("r1", "r2"),)), True), [0, 1, 2]),
    (SERVICE, traffic(Localities(priorities=("topology.kubernetes.io/region",)), True), [0, 0, 1]),
    # nothing fails over that nobody finds to fail
    (SERVICE, traffic(Localities()), [0, 0, 0]),
    (FAILOVER, traffic(Localities(failover=(("r1", "r2"),))), [0, 0, 0]),
    # switched off
    (FAILOVER, traffic(Localities(enabled=False), True), [0, 0, 0]),
    # a distribution that is for others
    (SERVICE, traffic(Localities(distribute=(Spread("r9/*", (("r1", 100),)),)), True), [0, 0, 0]),
]


@pytest.mark.parametrize(("service", "policies", "levels"), LEVELS)
def test_who_is_asked_first(service, policies, levels):
    made = members_of(world_of(), SOURCE, service, FOUND, policies)
    assert [each.level for each in made] == levels
    assert [each.weight for each in made] == [1, 2, 3]


def test_labels_decide_where_they_are_asked_for():
    labels = [
        WorkloadLabels(each.workload.uid, frozenset({("v", str(n))})) for n, (_, each) in enumerate(FOUND)
    ]
    own = WorkloadLabels(SOURCE.uid, frozenset({("v", "2")}))
    world = apply(world_of(), [*labels, own])[0]
    made = members_of(world, SOURCE, SERVICE, FOUND, traffic(Localities(priorities=("v",)), True))
    assert [each.level for each in made] == [1, 1, 0]


def test_shares_of_localities_leave_the_others_out():
    spread = Spread("r1/*", (("r1/z1/*", 80), ("r1/z2/*", 20)))
    made = members_of(world_of(), SOURCE, SERVICE, FOUND, traffic(Localities(distribute=(spread,))))
    assert [(each.place, each.share) for each in made] == [("r1/z1/s1", 80), ("r1/z2/s1", 20)]


def test_what_makes_levels_others():
    assert not decides_places(Traffic(), Traffic(Balancing(Balance.RANDOM)))
    assert decides_places(Traffic(), traffic(outlier=True))
    assert decides_places(traffic(Localities()), traffic(Localities(enabled=False)))
    assert not decides_places(traffic(outlier=True), Traffic(outlier=Outlier(9)))
