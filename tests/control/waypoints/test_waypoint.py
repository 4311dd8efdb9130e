"""Whose waypoint is which: as istiod finds it (waypoints_test.go has the same cases)."""

from dataclasses import replace

import pytest

from ztunnel.control.index import Index
from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.document import Key, key_of
from ztunnel.control.waypoints.waypoint import Binding, Traffic, Waypoints
from ztunnel.model.service import IpFamilies, ServiceName, Waypoint
from ztunnel.state.gateway import Gateway, GatewayClass, Infrastructure, LabelSelector, Listener
from ztunnel.state.kube import Namespace, Pod, Service, ServicePort
from ztunnel.state.meta import Meta

HOST = "wp.shop.svc.cluster.local"
USE = {"istio.io/use-waypoint": "wp"}
FROM_INFRA = {**USE, "istio.io/use-waypoint-namespace": "infra"}
AT = Waypoint(ServiceName("shop", HOST), None)


def gateway(name="wp", namespace="shop", addresses=(("Hostname", HOST),), listener=None, **more):
    meta = Meta(name, namespace, more.get("labels", {}), {})
    return Gateway(
        meta, more.get("kind", "istio-waypoint"), (listener or Listener(15008, "HBONE"),), addresses
    )


def service(name, port=15008, labels=None):
    ports = (ServicePort("hbone", port, port),)
    meta = Meta(name, "shop", labels or {}, {})
    return Service(meta, "", {}, (), ports, False, "", False, IpFamilies.AUTOMATIC)


def waypoints_of(*objects, settings=None):
    index = Index()
    waypoints = Waypoints(index, settings or MeshSettings())
    for one in objects:
        index.put(key_of(one), None, one)
        waypoints.put(key_of(one), None, one)
    return waypoints


def bind(*objects, labels=USE, where="shop", traffic=Traffic.SERVICE, settings=None):
    return waypoints_of(*objects, settings=settings).bind(labels, where, traffic)


def test_an_objects_label_comes_before_its_namespaces():
    labelled = Namespace(Meta("shop", "", {"istio.io/use-waypoint": "of-space"}, {}))
    both = labelled, gateway(), gateway("of-space", addresses=(("Hostname", "other"),))
    assert bind(*both).waypoint == AT
    assert bind(*both, labels={}).name == "shop/of-space"
    assert bind(*both, labels={"istio.io/use-waypoint": "none"}) == Binding()


def test_one_that_is_not_ready_is_none_and_the_namespaces_does_not_step_in():
    labelled = Namespace(Meta("shop", "", {"istio.io/use-waypoint": "of-space"}, {}))
    found = bind(labelled, gateway("of-space"), gateway(addresses=()))
    assert (found.waypoint, found.reason) == (None, "WaypointIsNotReady")
    assert bind(labelled, gateway("of-space")).reason == "WaypointIsNotReady"


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        ((("IPAddress", "10.96.0.9"), ("Hostname", HOST)), AT),
        ((("IPAddress", "x"), ("IPAddress", "fd00::9")), "fd00::9"),
        ((("IPAddress", "10.96.0.9"),), "10.96.0.9"),
        ((("Other", "x"),), None),
    ],
)
def test_it_is_called_by_its_name_rather_than_by_an_address(addresses, expected):
    found = bind(gateway(addresses=addresses)).waypoint
    assert (str(found.address) if found and found.address else found) == expected


@pytest.mark.parametrize(
    ("listener", "labels", "admitted"),
    [
        (Listener(15008, "HBONE"), {}, False),
        (Listener(15008, "HBONE", "None"), {}, False),
        (Listener(15008, "HBONE", "All"), {}, True),
        (Listener(80, "HTTP", "All"), {}, False),
        (Listener(15008, "HBONE", "Selector", LabelSelector({"a": "b"})), {}, False),
        (Listener(15008, "HBONE", "Selector", LabelSelector({"a": "b"})), {"a": "b"}, True),
        (Listener(15008, "HBONE", "Selector"), {"a": "b"}, False),
    ],
)
def test_another_namespace_needs_to_be_admitted(listener, labels, admitted):
    there = gateway(namespace="infra", listener=listener)
    found = bind(there, Namespace(Meta("shop", "", labels, {})), labels=FROM_INFRA)
    assert (found.waypoint is not None) is admitted
    assert found.reason == ("" if admitted else "AttachmentDenied")


@pytest.mark.parametrize(
    ("of_gateway", "of_class", "services", "workloads"),
    [
        (None, None, True, False),
        ("service", None, True, False),
        ("workload", None, False, True),
        ("all", None, True, True),
        ("none", None, False, False),
        (None, "workload", False, True),
        ("all", "workload", True, True),
    ],
)
def test_it_is_for_services_unless_it_says_otherwise(of_gateway, of_class, services, workloads):
    def labels(value):
        return {"istio.io/waypoint-for": value} if value else {}

    objects = (
        gateway(labels=labels(of_gateway)),
        GatewayClass(Meta("istio-waypoint", "", labels(of_class), {}), "x"),
    )
    for traffic, admitted in ((Traffic.SERVICE, services), (Traffic.WORKLOAD, workloads)):
        found = bind(*objects, traffic=traffic)
        assert (found.waypoint is not None) is admitted
        assert found.reason == ("" if admitted else "UnsupportedTrafficType")
    # What a workload only inherits is meant for services.
    space = Namespace(Meta("shop", "", USE, {}))
    inherited = bind(*objects, space, labels={}, traffic=Traffic.WORKLOAD)
    assert inherited.reason == ""


def test_waypoints_have_none():
    instance = {**USE, "gateway.networking.k8s.io/gateway-name": "wp"}
    assert (
        bind(gateway(), labels=instance)
        == bind(gateway(), labels=instance, traffic=Traffic.WORKLOAD)
        == Binding()
    )
    managed = {**USE, "gateway.istio.io/managed": "istio.io-mesh-controller"}
    assert bind(gateway(), labels=managed) == Binding()


def test_one_of_ours_is_the_service_that_serves_it():
    ours = gateway(kind="ztunnel-waypoint", addresses=())
    assert bind(ours).reason == "WaypointIsNotReady"
    assert bind(ours, service("wp", 80)).reason == "WaypointIsNotReady"
    assert bind(ours, service("wp")).waypoint == AT
    labelled = service("envoys", labels={"gateway.networking.k8s.io/gateway-name": "wp"})
    assert bind(ours, service("wp"), labelled).waypoint.service.hostname == "envoys.shop.svc.cluster.local"
    two = replace(ours, listeners=(Listener(15008, "HBONE"), Listener(80, "HTTP")))
    assert (
        waypoints_of(two, service("wp"))
        .state(("shop", "wp"))
        .invalid.startswith("Expected a single listener")
    )
    assert bind(two, service("wp")).reason == "WaypointIsNotReady"


def test_one_of_istios_is_ours_where_it_is_adopted():
    adopted = MeshSettings(waypoint_classes=("ztunnel-waypoint", "istio-waypoint"))
    assert bind(gateway(addresses=()), service("wp"), settings=adopted).waypoint == AT
    assert bind(gateway(addresses=()), service("wp")).waypoint is None
    assert waypoints_of(gateway()).state(("shop", "wp")) is None


def test_who_is_touched():
    ours = gateway(kind="ztunnel-waypoint")
    kind = GatewayClass(Meta("ztunnel-waypoint", "", {}, {}), "x")
    labelled = service("x", labels={**USE, "gateway.networking.k8s.io/gateway-name": "wp"})
    pod = Pod(Meta("p", "shop", USE, {}), "n", "default", False, {}, (), "", True)
    waypoints = waypoints_of(ours, kind, labelled, pod)
    for one in (ours, kind, service("wp"), labelled):
        assert list(waypoints.touched_by(key_of(one), one)) == [("shop", "wp")]
    assert (
        list(waypoints.touched_by(key_of(pod), pod))
        == list(waypoints.touched_by(Key("Service", "shop", "y"), service("y")))
        == []
    )
    assert set(waypoints.naming(("shop", "wp"))) == {key_of(labelled), key_of(pod)}
    waypoints.put(key_of(pod), pod, None)
    waypoints.put(key_of(labelled), labelled, None)
    assert list(waypoints.naming(("shop", "wp"))) == []
    waypoints.put(key_of(ours), ours, None)
    assert list(waypoints.touched_by(key_of(kind), kind)) == []


def test_what_is_named_and_does_not_serve_is_told_once():
    pod = Pod(Meta("p", "shop", USE, {}), "n", "default", False, {}, (), "", True)
    space = Namespace(Meta("shop", "", USE, {}))
    assert list(waypoints_of(pod, space).problems()) == [
        'Namespace shop: waypoint "shop/wp" is not ready: HTTP rules are not applied',
        'Pod shop/p: waypoint "shop/wp" is not ready: HTTP rules are not applied',
    ]
    assert (
        len(list(waypoints_of(pod, space, gateway()).problems())) == 1
    )  # for services, and the pod names it
    for_workloads = gateway(labels={"istio.io/waypoint-for": "workload"})
    assert list(waypoints_of(pod, space, for_workloads).problems()) == []


ATTACHES = MeshSettings(attach_ready=True)


def pod(ready=True, labels=None, deleting=False):
    meta = Meta("wp-1", "shop", labels or {"app": "wp"}, {}, deleting=deleting)
    return Pod(meta, "n1", "wp", False, {}, (), "Running", ready)


@pytest.mark.parametrize(
    ("pods", "addresses", "attached"),
    [
        ((), (), False),
        ((pod(ready=False),), (), False),
        ((pod(deleting=True),), (), False),
        ((pod(labels={"app": "other"}),), (), False),
        ((pod(),), (), True),
        ((), (("Hostname", HOST),), True),  # it was ready once
    ],
)
def test_in_a_cluster_calls_go_as_before_until_a_pod_of_it_was_ready(pods, addresses, attached):
    ours = gateway(kind="ztunnel-waypoint", addresses=addresses)
    served = replace(service("wp"), selector={"app": "wp"})
    found = bind(ours, served, *pods, settings=ATTACHES)
    assert found.waypoint == (AT if attached else None)
    assert found.reason == ("" if attached else "WaypointIsNotReady")


def test_one_that_was_ready_and_has_lost_its_service_is_called_all_the_same():
    """There is nobody at that name: the call is refused."""
    ours = gateway(kind="ztunnel-waypoint", addresses=(("Hostname", HOST),))
    assert bind(ours, settings=ATTACHES).waypoint == AT
    bad = replace(ours, listeners=(Listener(80, "HTTP"),))
    assert bind(bad, service("wp"), settings=ATTACHES).waypoint == AT


def test_what_was_attached_to_a_gateway_that_is_gone_is_refused_and_nothing_else_is():
    for bound, waypoint, reason in (("shop/wp", AT, "WaypointMissing"), ("", None, "WaypointIsNotReady"),
                                    ("shop/other", None, "WaypointIsNotReady")):  # fmt: skip
        found = waypoints_of(settings=ATTACHES).bind(USE, "shop", Traffic.SERVICE, bound)
        assert (found.waypoint, found.reason) == (waypoint, reason)
    assert waypoints_of(settings=ATTACHES).bind({}, "shop", Traffic.SERVICE, "shop/wp") == Binding()


def test_what_has_policies_for_its_waypoint_is_refused_until_that_is_ready():
    ours = gateway(kind="ztunnel-waypoint", addresses=())
    for guarded, waypoint in ((True, AT), (False, None)):
        for objects in ((), (ours,), (ours, service("wp"))):
            if len(objects) == 2:
                objects = (ours, replace(service("wp"), selector={"app": "wp"}))
            made = waypoints_of(*objects, settings=ATTACHES)
            found = made.bind(USE, "shop", Traffic.SERVICE, guarded=guarded)
            assert (found.waypoint, found.reason) == (waypoint, "WaypointIsNotReady")
            assert ("calls are refused" in found.message) is guarded
    ready = waypoints_of(ours, service("wp"), settings=ATTACHES)
    assert ready.bind(USE, "shop", Traffic.SERVICE, guarded=True) == Binding("shop/wp", AT)


def test_pods_touch_a_gateway_until_one_of_them_was_ready():
    key = Key("Pod", "shop", "wp-1")
    for addresses, touched in (((), [("shop", "wp")]), ((("Hostname", HOST),), [])):
        waypoints = waypoints_of(
            gateway(kind="ztunnel-waypoint", addresses=addresses), gateway("theirs", addresses=()),
            settings=ATTACHES,
        )  # fmt: skip
        assert list(waypoints.touched_by(key, pod())) == touched


def test_pods_are_made_for_gateways_of_ours_that_ask_for_them():
    ours = gateway(kind="ztunnel-waypoint", addresses=())
    others = (
        replace(ours, meta=replace(ours.meta, name="by-hand"), by_hand=True),
        replace(ours, meta=replace(ours.meta, name="deleting", deleting=True)),
        replace(ours, meta=replace(ours.meta, name="wrong"), listeners=()),
        replace(ours, meta=replace(ours.meta, name="x" * 64)),
        replace(
            ours,
            meta=replace(ours.meta, name="more"),
            infrastructure=Infrastructure(parameters="EnvoyProxy.gateway.envoyproxy.io x"),
        ),
        gateway("theirs"),
    )
    waypoints = waypoints_of(ours, *others)
    assert list(waypoints.deployed()) == [("shop", "wp")]
    assert waypoints.state(("shop", "more")).reason == "InvalidParameters"
    waypoints.parameters["shop", "wp"] = "ConfigMap shop/x is not there"
    state = waypoints.state(("shop", "wp"))
    assert (state.reason, state.invalid) == ("InvalidParameters", "ConfigMap shop/x is not there")
    assert list(waypoints.deployed()) == [("shop", "wp")]


@pytest.mark.parametrize("traffic", list(Traffic))
def test_what_names_a_gateway_that_has_served_and_is_gone_is_refused_whatever_it_is(traffic):
    ours = gateway(labels={"istio.io/waypoint-for": "all"}, kind="ztunnel-waypoint")
    named = Pod(Meta("p", "shop", USE, {}), "n", "default", False, {}, (), "", True)
    made = waypoints_of(ours, service("wp"), named, settings=ATTACHES)
    made.note(("shop", "wp"))
    made.put(key_of(ours), ours, None)
    made.forget()
    found = made.bind(USE, "shop", traffic)
    assert (found.waypoint, found.reason) == (AT, "WaypointMissing")
    later = waypoints_of(named, settings=ATTACHES)  # another process
    later.recall(made.served)
    later.forget()
    assert later.bind(USE, "shop", traffic) == found


def test_one_that_comes_again_is_called_when_it_is_ready_and_until_then_nobody_is():
    named = Pod(Meta("p", "shop", USE, {}), "n", "default", False, {}, (), "", True)
    again = gateway(kind="ztunnel-waypoint", addresses=())
    made = waypoints_of(named, again, replace(service("wp"), selector={"app": "wp"}), settings=ATTACHES)
    made.recall([("shop", "wp")])
    made.forget()
    assert made.bind(USE, "shop", Traffic.SERVICE).reason == "WaypointMissing"


def test_a_gateway_that_is_gone_is_forgotten_with_the_last_label():
    first, second = (Pod(Meta(name, "shop", USE, {}), "n", "d", False, {}, (), "", True) for name in "ab")
    ours = gateway(kind="ztunnel-waypoint")
    made = waypoints_of(first, ours, settings=ATTACHES)
    made.note(("shop", "wp"))
    made.put(key_of(ours), ours, None)
    made.put(key_of(first), first, None)
    made.put(key_of(second), None, second)  # of the same moment: a rollout
    made.forget()
    assert made.bind(USE, "shop", Traffic.SERVICE).reason == "WaypointMissing"
    made.put(key_of(second), second, None)
    made.forget()
    assert made.served == frozenset()
    assert made.bind(USE, "shop", Traffic.SERVICE).reason == "WaypointIsNotReady"


def test_one_that_has_never_served_is_not_remembered():
    ours = gateway(kind="ztunnel-waypoint", addresses=())
    made = waypoints_of(ours, settings=ATTACHES)
    made.note(("shop", "wp"))
    assert made.served == frozenset()


@pytest.mark.parametrize("guarded", [False, True])
@pytest.mark.parametrize(
    ("there", "reason"),
    [
        (gateway(namespace="infra"), "AttachmentDenied"),
        (gateway(namespace="infra", listener=Listener(15008, "HBONE", "All"),
                 labels={"istio.io/waypoint-for": "workload"}), "UnsupportedTrafficType"),
    ],
)  # fmt: skip
def test_what_its_waypoint_does_not_take_is_refused_where_policies_would_not_be_enforced(
    there, reason, guarded
):
    found = waypoints_of(there).bind(FROM_INFRA, "shop", Traffic.SERVICE, guarded=guarded)
    assert found.reason == reason
    assert (found.waypoint is not None) is guarded
    if guarded:
        assert found.waypoint.service.hostname.endswith(".invalid")
        assert "calls are refused" in found.message
