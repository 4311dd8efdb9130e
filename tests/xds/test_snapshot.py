"""A snapshot renders what changed, and nothing else."""

from dataclasses import replace
from ipaddress import ip_address

from ztunnel.model.policy import Action, Policy, PolicyScope
from ztunnel.model.service import Service
from ztunnel.model.workload import Workload
from ztunnel.xds.resource import ADDRESS, AUTHORIZATION
from ztunnel.xds.snapshot import Snapshot, advance, take

ONE = Workload("c//Pod/ns/one", "one", "ns")
TWO = Workload("c//Pod/ns/two", "two", "ns")
POLICY = Policy("allow", "ns", PolicyScope.NAMESPACE, Action.ALLOW)


def names(snapshot, type_url):
    return set(snapshot.resources[type_url])


def test_resources_stand_under_their_type_and_name():
    snapshot = take([POLICY, ONE], "", Snapshot())
    assert names(snapshot, ADDRESS) == {ONE.uid}
    assert names(snapshot, AUTHORIZATION) == {"ns/allow"}


def test_what_is_equal_is_carried_over_and_no_change():
    first = take([ONE, TWO], "", Snapshot())
    equal, changed = (
        Workload("c//Pod/ns/one", "one", "ns"),
        Workload("c//Pod/ns/two", "two", "ns", healthy=False),
    )
    second = take([equal, changed], "", first)
    assert second.resources[ADDRESS][ONE.uid] is first.resources[ADDRESS][ONE.uid]
    assert second.resources[ADDRESS][TWO.uid].version != first.resources[ADDRESS][TWO.uid].version
    assert (second.changed[ADDRESS], second.changed[AUTHORIZATION]) == ({TWO.uid}, set())


def test_what_is_gone_is_gone():
    first = take([ONE, TWO], "", Snapshot())
    second = take([TWO], "", first)
    assert names(second, ADDRESS) == {TWO.uid}
    assert second.changed[ADDRESS] == {ONE.uid}


def test_who_is_at_an_address_is_found_by_it():
    shared, own = ip_address("10.0.0.1"), ip_address("fd00::1")
    web = Service("web", "ns", "web.ns.svc", addresses=(shared,))
    one, two = (
        replace(ONE, addresses=(shared, own), network="n"),
        replace(TWO, addresses=(shared,), network="n"),
    )
    hosted = replace(TWO, uid="c//Pod/ns/hosted", addresses=(shared,), host_network=True, network="n")
    first = take([one, two, web, hosted], "n", Snapshot())
    assert dict(first.aliases) == {
        "n/10.0.0.1": {one.uid, two.uid, "ns/web.ns.svc"},
        "n/fd00::1": {one.uid},
    }
    second = advance(first, {ADDRESS: {ONE.uid: ONE, "ns/web.ns.svc": None}}, "n")
    assert dict(second.aliases) == {"n/10.0.0.1": {two.uid}}
    assert dict(advance(second, {ADDRESS: {TWO.uid: None}}, "n").aliases) == {}


def test_a_snapshot_follows_the_one_that_it_was_made_from_and_no_other():
    first = take([ONE], "", Snapshot())
    second = advance(first, {ADDRESS: {TWO.uid: TWO}, AUTHORIZATION: {"ns/none": None}}, "")
    assert names(second, ADDRESS) == {ONE.uid, TWO.uid}
    assert (second.changed[ADDRESS], second.changed[AUTHORIZATION]) == ({TWO.uid}, set())
    assert second.follows(first)
    assert not first.follows(second)
    assert not take([TWO], "", Snapshot()).follows(first)
    assert names(first, ADDRESS) == {ONE.uid}
