"""Objects of the API come into force one by one; what is wrong with one costs only that one."""

from collections import Counter

import pytest

from ztunnel.control.source.collection import Collection, mesh_of, served_of
from ztunnel.control.source.document import Key
from ztunnel.control.source.served import SERVED
from ztunnel.kube.informer import Removal, Upsert

BY_KIND = {served.kind: served for served in SERVED}
POLICY = Key("AuthorizationPolicy", "shop", "p")


def upsert(name, namespace="shop", **value):
    meta = {"name": name, "namespace": namespace, "resourceVersion": "1", "managedFields": []}
    return Upsert((namespace, name), {"metadata": meta | value.pop("meta", {}), **value})


def pod(name, ip="10.0.0.1", **meta):
    return upsert(name, spec={"nodeName": "n1"}, status={"podIP": ip}, meta=meta)


def policy(**spec):
    return upsert("p", spec=spec)


class Taken:
    def __init__(self):
        self.events = Counter()
        self.collection = Collection(lambda kind, event: self.events.update([(kind, event)]))

    def take(self, kind, *changes):
        self.collection.take(BY_KIND[kind], changes)
        return self.collection.flush()


def test_what_is_added_changed_and_removed_is_told_once():
    it = Taken()
    objects, change = it.take("Pod", pod("a"), pod("b"))
    assert [key.name for key in objects] == ["a", "b"] == [key.name for key in change.added]
    objects, change = it.take("Pod", pod("a", "10.0.0.2"), Removal(("shop", "b")))
    assert (str(objects[Key("Pod", "shop", "a")].addresses[0]), objects[Key("Pod", "shop", "b")]) == (
        "10.0.0.2",
        None,
    )
    assert [[key.name for key in keys] for keys in (change.added, change.changed, change.removed)] == [
        [],
        ["a"],
        ["b"],
    ]
    assert it.events == {("Pod", "add"): 2, ("Pod", "update"): 1, ("Pod", "delete"): 1}
    assert not it.collection.changed


def test_what_reads_the_same_is_no_change():
    it = Taken()
    it.take("Pod", pod("a"))
    same = it.take("Pod", pod("a", resourceVersion="9", annotations={"a": "b"}))
    assert not same.objects
    assert not same.change
    back = it.take("Pod", pod("a", "10.0.0.9"), pod("a"))
    assert not back.objects
    gone = it.take("Pod", pod("z"), Removal(("shop", "z")))
    assert not gone.change


def test_a_faulty_object_keeps_its_last_good_version_and_names_object_and_field():
    it = Taken()
    it.take("AuthorizationPolicy", policy(action="DENY", rules=[{}]))
    assert not it.take(
        "AuthorizationPolicy", policy(action="DENY", rules=[{"from": [{"source": {"ipBlocks": ["x"]}}]}])
    ).objects
    (fault,) = it.collection.faults
    assert str(fault) == (
        "AuthorizationPolicy shop/p: spec.rules[0].from[0].source.ipBlocks[0]: neither an address nor a CIDR"
    )
    inventory = it.collection.inventory()
    assert inventory.kept == {POLICY}
    assert inventory.objects[POLICY].action == "DENY"
    assert [(one.key, one.selector, one.kept) for one in inventory.policies] == [(POLICY, {}, True)]
    it.take("AuthorizationPolicy", policy(action="ALLOW"))
    assert (it.collection.faults, it.collection.inventory().policies) == ((), ())


def test_a_faulty_object_that_was_never_good_is_not_in_force_and_goes_with_its_faults():
    it = Taken()
    assert not it.take("AuthorizationPolicy", policy(action="NO")).objects
    (found,) = it.collection.inventory().policies
    assert (found.key, found.kept) == (POLICY, False)
    it.take("AuthorizationPolicy", Removal(("shop", "p")))
    assert it.collection.faults == ()


def test_fields_that_are_not_known_are_faults_of_policies_alone():
    it = Taken()
    it.take("Pod", upsert("a", spec={"nodeNam": "x"}, status={}, meta={"newField": 1}))
    assert it.collection.faults == ()
    it.take("AuthorizationPolicy", policy(rules=[{"unless": []}]))
    assert [fault.field for fault in it.collection.faults] == ["spec.rules[0].unless"]


@pytest.mark.parametrize("value", [{}, {"metadata": 7}, {"metadata": {"name": []}}, {"spec": []}])
@pytest.mark.parametrize("kind", BY_KIND)
def test_nonsense_is_a_fault_of_its_name(kind, value):
    it = Taken()
    it.take(kind, Upsert(("shop", "x"), value))
    assert {fault.file for fault in it.collection.faults} == {f"{kind} shop/x"}
    assert not it.collection.inventory().objects


def test_the_last_good_version_of_a_faulty_policy_outlives_the_process():
    it = Taken()
    it.take("AuthorizationPolicy", policy(action="DENY", rules=[{}]))
    assert it.collection.last_good() == {}
    it.take("AuthorizationPolicy", policy(action="NO"))
    kept = it.collection.last_good()
    assert list(kept) == ["AuthorizationPolicy_shop_p"]
    later = Taken()
    later.collection.recall(kept)
    objects, _ = later.take("AuthorizationPolicy", policy(action="NO"))
    assert objects[POLICY].action == "DENY"
    assert later.collection.inventory().kept == {POLICY}
    assert later.collection.last_good() == kept
    later.take("AuthorizationPolicy", policy(action="ALLOW"))
    assert later.collection.last_good() == {}


def test_so_does_that_of_a_rate_limit_and_what_the_mesh_config_was():
    it, key = Taken(), Key("RateLimitPolicy", "shop", "p")
    rule = {"name": "r", "limit": {"requests": 5, "unit": "Minute"}}
    targets = [{"kind": "Service", "name": "web"}]
    good = policy(targetRefs=targets, local={"rules": [rule]})
    it.take("RateLimitPolicy", good)
    assert not it.collection.faults
    it.take("RateLimitPolicy", policy(targetRefs=targets, local={"rules": [{"name": "r"}]}))
    it.collection.mesh = lambda: {"a text": ("asks",)}
    kept = it.collection.last_good()
    assert mesh_of(kept) == (("a text", ("asks",)),)
    assert mesh_of({}) == ()
    later = Taken()
    later.collection.recall(kept)
    later.take("RateLimitPolicy", policy(targetRefs=targets, local={"rules": [{"name": "r"}]}))
    assert later.collection.inventory().objects[key] == it.collection.inventory().objects[key]


@pytest.mark.parametrize("kept", [{}, {"metadata": {"name": "other", "namespace": "shop"}}, {"spec": 7}])
def test_what_is_kept_and_makes_no_sense_is_not_in_force(kept):
    it = Taken()
    it.collection.recall({"AuthorizationPolicy_shop_p": kept})
    assert not it.take("AuthorizationPolicy", policy(action="NO")).objects
    it.collection.recall({"AuthorizationPolicy_shop_gone": policy(action="DENY").value})
    assert not it.collection.inventory().objects


def test_of_a_policy_that_is_deleted_nothing_is_kept():
    it = Taken()
    it.take("AuthorizationPolicy", policy(action="ALLOW"))
    it.take("AuthorizationPolicy", policy(action="NO"))
    it.take("AuthorizationPolicy", Removal(("shop", "p")))
    assert it.collection.last_good() == {}
    assert not it.take("AuthorizationPolicy", policy(action="NO")).objects


def test_which_waypoints_have_served_is_kept_beside_last_good_versions():
    it = Collection()
    assert it.last_good() == {}
    it.served = lambda: {("shop", "b"), ("infra", "a")}
    kept = it.last_good()
    assert kept == {"waypoints": {"served": ["infra/a", "shop/b"]}}
    assert [*served_of(kept)] == [("infra", "a"), ("shop", "b")]
    assert [*served_of({})] == [*served_of({"waypoints": {"served": ["x", 1]}})] == []
