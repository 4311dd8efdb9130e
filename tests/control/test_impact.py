"""What a change of one object touches; that it is enough is held by test_incremental.py."""

from ztunnel.control.delta import Delta, Touched
from ztunnel.control.impact import Impact, Known
from ztunnel.control.index import Index
from ztunnel.control.policies.guard import Guards
from ztunnel.control.services.ownership import Entries
from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.document import Key, key_of
from ztunnel.control.waypoints.waypoint import Waypoints
from ztunnel.state.kube import Namespace, Pod
from ztunnel.state.meta import Meta

SETTINGS = MeshSettings()
USE = {"istio.io/use-waypoint": "wp"}


def impact_on(*objects):
    index = Index()
    waypoints = Waypoints(index, SETTINGS)
    for one in objects:
        index.put(key_of(one), None, one)
        waypoints.put(key_of(one), None, one)
    around = {"shop": object(), "other": object()}
    known = Known(index, waypoints, Guards(index, waypoints, SETTINGS), Entries(index, SETTINGS), around)
    return Impact(known, SETTINGS), around


def pod(name, namespace="shop", labels=None):
    return Pod(Meta(name, namespace, labels or {}, {}), "n", "default", False, {}, (), "", True)


def test_a_namespace_touches_its_own_pods_and_what_is_kept_of_it():
    space = Namespace(Meta("shop", "", USE, {}))
    impact, around = impact_on(space, pod("a"), pod("b", "other"))
    touched = Touched()
    impact.touch(key_of(space), space, touched)
    assert touched.pods == {("shop", "a")}
    assert around.keys() == {"other"}


def test_a_gateway_touches_what_names_it_by_itself_and_by_its_namespace():
    impact, _ = impact_on(Namespace(Meta("shop", "", USE, {})), pod("a"), pod("far", "other", {
        **USE, "istio.io/use-waypoint-namespace": "shop"}), pod("stranger", "other"))  # fmt: skip
    touched, delta = Touched(), Delta()
    impact.touch_bound(("shop", "wp"), touched, delta)
    assert touched.pods == {("shop", "a"), ("other", "far")}
    assert Key("Gateway", "shop", "wp") in delta.unsettled


def test_a_selector_touches_the_pods_that_it_selects():
    impact, _ = impact_on(pod("a", labels={"app": "a"}), pod("b"), pod("c", "other", {"app": "a"}))
    touched = Touched()
    impact.touch_selected("shop", {"app": "a"}, touched)
    assert touched.pods == {("shop", "a")}
