"""A snapshot renders what changed, and nothing else."""

from ztunnel.model.policy import Action, Policy, PolicyScope
from ztunnel.model.workload import Workload
from ztunnel.xds.resource import ADDRESS, AUTHORIZATION
from ztunnel.xds.snapshot import Snapshot, take

ONE = Workload("c//Pod/ns/one", "one", "ns")
TWO = Workload("c//Pod/ns/two", "two", "ns")
POLICY = Policy("allow", "ns", PolicyScope.NAMESPACE, Action.ALLOW)


def test_resources_stand_under_their_type_and_name():
    snapshot = take([POLICY, ONE], "", Snapshot())
    assert snapshot.resources[ADDRESS].keys() == {ONE.uid}
    assert snapshot.resources[AUTHORIZATION].keys() == {"ns/allow"}


def test_what_is_equal_is_carried_over():
    first = take([ONE, TWO], "", Snapshot())
    equal, changed = (
        Workload("c//Pod/ns/one", "one", "ns"),
        Workload("c//Pod/ns/two", "two", "ns", healthy=False),
    )
    second = take([equal, changed], "", first)
    assert second.resources[ADDRESS][ONE.uid] is first.resources[ADDRESS][ONE.uid]
    assert second.origins[ADDRESS][ONE.uid] is ONE
    assert second.resources[ADDRESS][TWO.uid].version != first.resources[ADDRESS][TWO.uid].version


def test_what_is_gone_is_gone():
    first = take([ONE, TWO], "", Snapshot())
    assert take([TWO], "", first).resources[ADDRESS].keys() == {TWO.uid}
