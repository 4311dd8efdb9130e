"""Which pods are attached to a waypoint, and what they serve, as they come and go."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from tests.control.scoped import pod, service
from ztunnel.control.waypoints.behind import Behind
from ztunnel.control.waypoints.scope import handle_of
from ztunnel.model.service import Waypoint
from ztunnel.model.workload import Workload

FIRST, WEB, CART = service("first"), service("web"), service("cart")
AT = Waypoint(FIRST.key, None)
THERE = Waypoint(None, ip_address("fd00::1"))


def test_pods_of_the_same_services_are_no_change() -> None:
    behind = Behind()
    one, two = pod("a", WEB, waypoint=AT), pod("b", WEB, waypoint=AT)
    assert behind.put(one.uid, None, one) == {FIRST.key}
    assert behind.put(two.uid, None, two) == set()
    assert ({*behind.pods(FIRST.key)}, {*behind.services(FIRST.key)}) == ({one.uid, two.uid}, {WEB.key})
    assert behind.put(one.uid, one, None) == set()
    assert behind.put(two.uid, two, replace(two, healthy=False)) == set()
    assert behind.put(two.uid, two, None) == {FIRST.key}
    assert not behind.pods(FIRST.key)
    assert not behind.services(FIRST.key)


VARIANTS = [
    pod(name, *serves, waypoint=at)
    for name in ("a", "b")
    for serves in ((), (WEB,), (WEB, CART))
    for at in (None, AT, THERE)
]


@given(st.lists(st.tuples(st.sampled_from(VARIANTS), st.booleans()), max_size=12))
def test_it_is_always_what_the_pods_of_the_moment_make_it(steps: list[tuple[Workload, bool]]) -> None:
    behind, pods = Behind(), dict[str, Workload]()
    for one, there in steps:
        before = {
            handle: ({*behind.services(handle)}, bool(behind.pods(handle)))
            for handle in (FIRST.key, THERE.address)
        }
        changed = behind.put(one.uid, pods.pop(one.uid, None), one if there else None)
        if there:
            pods[one.uid] = one
        for handle in (FIRST.key, THERE.address):
            at = [each for each in pods.values() if handle_of(each.waypoint) == handle]
            assert {*behind.pods(handle)} == {each.uid for each in at}
            assert {*behind.services(handle)} == {name for each in at for name in each.services}
            now = {*behind.services(handle)}, bool(at)
            assert (before[handle] != now) is (handle in changed)
