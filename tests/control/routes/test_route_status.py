"""The status of routes says below each parent whether it takes the route, and what cannot be resolved."""

from dataclasses import replace
from ipaddress import ip_address

import pytest
import yaml

from tests.control.objects import manifest, read, service
from ztunnel.control.routes.route_parts import Problem, Why
from ztunnel.control.routes.route_status import (
    RoutingSaid,
    is_attached,
    merge_parents,
    of_virtual_service,
    said_of_routing,
    wanted_parents,
    with_faults,
)
from ztunnel.control.routes.routing import ServiceRoutes
from ztunnel.control.settings import MeshSettings
from ztunnel.control.status.condition import Condition
from ztunnel.errors import Fault
from ztunnel.state.route_filter import Reference

OURS, THEIRS = "ztunnel.io/waypoint-controller", "example.com/controller"
STAMP, LATER = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"
VIP = ip_address("10.96.0.1")
BACKEND = "backendRefs: [{name: web, port: 80}]"


def said(parents, rules=f"[{{{BACKEND}}}]", *, waypoint="shop", namespace="shop", addresses=(VIP,)):
    routes = ServiceRoutes(MeshSettings())
    routes.put_service(None, replace(service("web", waypoint=waypoint), addresses=addresses))
    spec = f"{{parentRefs: [{parents}], rules: {rules}}}"
    ((key, one),) = read(manifest("HTTPRoute", "r", spec, namespace)).items()
    routes.put(key, None, one)
    routes.update()
    return said_of_routing(key, one, routes)


def conditions(*args, **more):
    (parent,) = said(*args, **more).parents
    return [(one.type, one.met, one.reason, one.message) for one in parent.conditions]


WEB = "{group: '', kind: Service, name: web, namespace: shop, port: 80}"
RESOLVED = ("ResolvedRefs", True, "ResolvedRefs", "All references resolved")


def test_a_route_that_is_right_is_accepted_and_resolved():
    waypoints = ("ResolvedWaypoints", True, "ResolvedWaypoints", "All waypoints resolved")
    assert conditions(WEB) == [("Accepted", True, "Accepted", "Route was valid"), waypoints, RESOLVED]
    assert conditions(WEB, addresses=(ip_address("fd00::1"),))[0][1]


@pytest.mark.parametrize(
    ("parent", "more", "reason", "message"),
    [
        ("{group: '', kind: Service, name: x}", {}, "NoMatchingParent", "there is no Service shop/x"),
        (WEB.replace("80", "81"), {}, "NoMatchingParent", "Service shop/web has no port 81"),
        (WEB.replace("port: 80", "sectionName: a"), {}, "NoMatchingParent",
         "sectionName has no meaning here: use port"),
        ("{group: networking.istio.io, kind: ServiceEntry, name: e}", {}, "NoMatchingParent",
         "there is no ServiceEntry shop/e"),
        (WEB, {"namespace": "other"}, "UnsupportedValue",
         "a route of another namespace than the service's counts only in that of its waypoint"),
    ],
)  # fmt: skip
def test_a_parent_that_does_not_take_it_says_why(parent, more, reason, message):
    assert conditions(parent, **more)[0] == ("Accepted", False, reason, message)


def test_a_service_without_a_waypoint_is_said_to_have_none():
    """istio/istio#55381: a route was accepted, and nobody acted on it."""
    accepted, waypoints, _ = conditions(WEB, waypoint="")
    assert accepted[:3] == ("Accepted", True, "Accepted")
    assert waypoints == (
        "ResolvedWaypoints", False, "MissingUseWaypointLabel",
        "web.shop.svc.cluster.local has no waypoint that is ready (istio.io/use-waypoint): no effect there",
    )  # fmt: skip
    assert conditions(WEB.replace("web", "x"))[1][2:] == ("NoMatchingParent", "parent not found")


@pytest.mark.parametrize(
    ("parent", "accepted"),
    [
        ("", ("Accepted", False, "Conflicted", "GRPCRoutes are asked in its place at %s:80,90")),
        (", port: 80", ("Accepted", True, "Accepted",
                        "Route was valid, but GRPCRoutes are asked in its place at %s:80")),
        (", port: 1", ("Accepted", True, "Accepted", "Route was valid")),
    ],
)  # fmt: skip
def test_a_route_of_a_kind_that_is_not_asked_is_said_to_be_in_conflict(parent, accepted):
    """GEP-1294, "Route types"."""
    routes, web = ServiceRoutes(MeshSettings()), service("web", 80, 90, waypoint="shop")
    routes.put_service(None, replace(web, addresses=(VIP,)))
    spec = "{parentRefs: [{group: '', kind: Service, name: web%s}], rules: [{%s}]}"
    grpc = manifest("GRPCRoute", "g", spec % (parent, BACKEND))
    for key, one in read(manifest("HTTPRoute", "r", spec % ("", BACKEND)), grpc).items():
        routes.put(key, None, one)
    routes.update()
    objects = read(manifest("HTTPRoute", "r", spec % ("", BACKEND)))
    ((key, one),) = objects.items()
    (below,) = said_of_routing(key, one, routes).parents
    found = below.conditions[0]
    message = accepted[3].replace("%s", "web.shop.svc.cluster.local")
    assert (found.type, found.met, found.reason, found.message) == (*accepted[:3], message)


def test_a_headless_service_takes_no_route():
    """kumahq/kuma#18073, GEP-1426: it was accepted, and the calls of its pods went past it."""
    accepted = conditions(WEB, addresses=())[0]
    assert accepted[:3] == ("Accepted", False, "UnsupportedValue")
    assert accepted[3] == "Service shop/web has no address: calls go to its pods, past any waypoint of it"


@pytest.mark.parametrize(
    ("backend", "reason"),
    [
        ("{name: x, port: 80}", "BackendNotFound"),
        ("{name: web, namespace: far, port: 80}", "RefNotPermitted"),
        ("{kind: Pod, name: web, port: 80}", "InvalidKind"),
    ],
)
def test_what_cannot_be_resolved_has_the_standard_reason(backend, reason):
    accepted, _, resolved = conditions(WEB, f"[{{backendRefs: [{backend}]}}]")
    assert accepted[:2] == ("Accepted", True)
    assert resolved[:3] == ("ResolvedRefs", False, reason)
    assert resolved[3].startswith("rules[0].backendRefs[0]: ")


def test_a_filter_that_is_not_known_makes_a_route_invalid_as_a_whole_or_in_part():
    foreign = f"{{filters: [{{type: ExtensionRef}}], {BACKEND}}}"
    accepted, *_ = conditions(WEB, f"[{foreign}]")
    assert accepted[:3] == ("Accepted", False, "UnsupportedValue")
    accepted, partly, *_ = conditions(WEB, f"[{foreign}, {{{BACKEND}}}]")
    assert accepted[:3] == ("Accepted", True, "Accepted")
    assert partly[:3] == ("PartiallyInvalid", True, "UnsupportedValue")


def test_parents_that_are_gateways_are_none_of_ours():
    found = said(f"{{name: edge}}, {WEB}, {WEB}")
    assert [one.reference.name for one in found.parents] == ["web"]


def test_of_a_faulty_route_the_fault_is_said_below_each_parent_that_it_wants():
    fault = Fault("x", 0, "spec.rules[0]", "is wrong")
    wanted = (Reference("", "Service", "", "web"),)
    (kept,) = with_faults(RoutingSaid(), wanted, (fault,))
    (one,) = kept.conditions
    assert (one.met, one.reason) == (False, "UnsupportedValue")
    assert one.message == "spec.rules[0]: is wrong; its last good version is in force"
    (never,) = with_faults(None, wanted, (fault,))
    assert never.conditions[0].message.endswith("it is not in force")
    assert with_faults(said(WEB), (), ()) == said(WEB).parents


def test_a_virtual_service_says_what_of_it_is_doubtful():
    assert of_virtual_service("W", RoutingSaid()) == Condition(
        "W", True, "Accepted", "in force at the waypoints of its hosts, where they have any"
    )
    quiet, loud = Problem(Why.INEFFECTIVE, "a", "b"), Problem(Why.NOT_FOUND, "http[0].route", "no such host")
    assert of_virtual_service("W", RoutingSaid(problems=(quiet,))).reason == "Accepted"
    nowhere = of_virtual_service("W", RoutingSaid(nowhere="nobody"))
    assert (nowhere.met, nowhere.reason, nowhere.message) == (False, "AncestorNotBound", "hosts: nobody")
    found = of_virtual_service("W", RoutingSaid(problems=(quiet, loud)))
    assert (found.met, found.reason, found.message) == (
        True,
        "PartiallyInvalid",
        "http[0].route: no such host",
    )


@pytest.mark.parametrize(
    ("text", "attached"),
    [
        ("{spec: {parentRefs: [{group: '', kind: Service, name: a}]}}", True),
        ("{spec: {parentRefs: [{group: networking.istio.io, kind: ServiceEntry, name: a}]}}", True),
        ("{spec: {parentRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: a}]}}", False),
        ("{spec: {parentRefs: 5}, status: {parents: 5}}", False),
        ("{spec: 5, status: 5}", False),
        ("{}", False),
        (f"{{status: {{parents: [{{controllerName: {OURS}}}]}}}}", True),
        (f"{{status: {{parents: [{{controllerName: {THEIRS}}}, 5]}}}}", False),
    ],
)
def test_which_routes_have_a_status_of_ours(text, attached):
    assert is_attached(yaml.safe_load(text)) is attached


def test_the_parents_that_a_route_wants_are_told_however_wrong_it_is():
    text = "{spec: {rules: 5, parentRefs: [{group: '', kind: Service, name: a, port: x}, {name: g}]}}"
    assert [str(one) for one in wanted_parents(yaml.safe_load(text))] == ["Service a"]


def test_a_status_is_written_once_and_what_others_say_stays():
    others = {"controllerName": THEIRS, "parentRef": {"name": "edge"}, "conditions": []}
    parents = said(WEB).parents
    written = merge_parents((others,), parents, 3, STAMP)
    assert written[0] is others
    assert written[1]["parentRef"] == {
        "group": "", "kind": "Service", "name": "web", "namespace": "shop", "port": 80,
    }  # fmt: skip
    assert written[1]["controllerName"] == OURS
    assert [(one["type"], one["status"], one["lastTransitionTime"]) for one in written[1]["conditions"]] == [
        ("Accepted", "True", STAMP), ("ResolvedWaypoints", "True", STAMP), ("ResolvedRefs", "True", STAMP),
    ]  # fmt: skip
    assert merge_parents(tuple(written), parents, 3, LATER) is None
    again = merge_parents(tuple(written), parents, 4, LATER)
    assert {one["lastTransitionTime"] for one in again[1]["conditions"]} == {STAMP}
    assert {one["observedGeneration"] for one in again[1]["conditions"]} == {4}


def test_a_condition_that_turns_has_a_new_time_and_what_is_ours_no_more_goes():
    written = merge_parents((), said(WEB).parents, 1, STAMP)
    worse = said(WEB, "[{backendRefs: [{name: x, port: 80}]}]").parents
    turned = merge_parents(tuple(written), worse, 1, LATER)
    assert [(one["status"], one["lastTransitionTime"]) for one in turned[0]["conditions"]] == [
        ("True", STAMP), ("True", STAMP), ("False", LATER),
    ]  # fmt: skip
    assert merge_parents(tuple(turned), (), 1, LATER) == []
    assert merge_parents((), (), 1, LATER) is None
