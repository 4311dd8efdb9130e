"""A large world."""

from __future__ import annotations

from collections import Counter
from random import Random

from bench.large.decide import decisions
from bench.large.resources import service, workload, world
from ztunnel.model.policy import Policy
from ztunnel.model.service import Service
from ztunnel.model.workload import Workload
from ztunnel.state.delta import apply
from ztunnel.state.world import World
from ztunnel.xds.resource import ADDRESS, parse, render


def test_it_has_as_many_as_it_says_and_nothing_twice() -> None:
    made = list(world(1000))
    assert Counter(type(each) for each in made) == {Workload: 1000, Service: 50, Policy: 100}
    known, change = apply(World(), made)
    assert len(known.workloads) == 1000
    assert len(known.addresses) == 2000
    assert len(known.policies) == 100
    assert len(change.services) == 50
    assert all(not known.policies_for(each).missing for each in known.workloads.values())
    assert len(known.endpoints(service(0).key)) == 20


def test_what_changes_is_another_one_on_the_wire() -> None:
    before, after = render(workload(5), ""), render(workload(5, healthy=False), "")
    assert before.version != after.version
    assert parse(ADDRESS, before, "") == workload(5)


def test_decisions_are_made_about_it() -> None:
    known, _ = apply(World(), world(400))
    found = decisions(known, 400, 50, Random(1))
    assert len(found) == 50
    assert all(0 < seconds < 0.1 for seconds in found)
