"""Routes of services follow what they are made of, and cost what has changed."""

from dataclasses import replace

import pytest

from tests.control.objects import manifest, read, service
from ztunnel.control.routes.route_parts import Why
from ztunnel.control.routes.routing import ServiceRoutes
from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.document import Key
from ztunnel.model.route_policy import Retry, RetryDefault, RetryOn
from ztunnel.state.route_filter import Reference

TO = "backendRefs: [{name: web, port: 80}]"
PARENT = "parentRefs: [{group: '', kind: Service, name: web%s}]"
WEB = "shop/web.shop.svc.cluster.local"


class Mesh:
    """The routes of services and objects that come one by one."""

    def __init__(self, *services):
        self.routes = ServiceRoutes(MeshSettings())
        self.objects = {}
        self.services = {}
        for one in services:
            self.serve(one)
        self.routes.update()

    def serve(self, one):
        self.routes.put_service(self.services.get(one.key), one)
        self.services[one.key] = one
        return self.routes.update()

    def close(self, one):
        self.routes.put_service(self.services.pop(one.key), None)
        return self.routes.update()

    def apply(self, *texts):
        for key, one in read(*texts).items():
            self.routes.put(key, self.objects.get(key), one)
            self.objects[key] = one
        return self.routes.update()

    def delete(self, kind, name, namespace="shop"):
        key = Key(kind, namespace, name)
        self.routes.put(key, self.objects.pop(key), None)
        return self.routes.update()

    def names(self, service=WEB):
        return (
            [rule.name for rule in self.routes.routes[service].rules] if service in self.routes.routes else []
        )


def route(name, parent="", namespace="shop", rules=f"[{{{TO}}}]"):
    return manifest("HTTPRoute", name, f"{{{PARENT % parent}, rules: {rules}}}", namespace=namespace)


def virtual(name, hosts="web", namespace="shop", more=""):
    text = f"{{hosts: [{hosts!r}], http: [{{name: {name}, route: [{{destination: {{host: web}}}}]}}]{more}}}"
    return manifest("VirtualService", name, text, namespace=namespace)


def test_rules_that_say_nothing_of_retries_have_those_of_the_mesh():
    mesh = Mesh(service("web"))
    mesh.apply(route("r"), virtual("v"), virtual("mine").replace("route:", "retries: {attempts: 1}, route:"))
    said = RetryDefault(Retry(5, frozenset((RetryOn.RESET,))), 2.5)
    for counts in (RetryDefault(), said, RetryDefault(None)):
        mesh.routes.put_retries(counts)
        mesh.routes.update()
        found = {rule.name: (rule.retry, rule.try_timeout_seconds) for rule in mesh.routes.routes[WEB].rules}
        assert found.pop("mine")[0].attempts == 1
        assert set(found) == {"shop.r.0", "v"}
        assert set(found.values()) == {(counts.retry, counts.try_seconds)}
    mesh.routes.put_retries(RetryDefault(None))
    assert mesh.routes.update() == ({}, set())


def test_a_route_is_there_from_when_its_service_is_until_either_goes():
    mesh = Mesh()
    assert mesh.apply(route("r")) == ({}, {Key("HTTPRoute", "shop", "r")})
    changed, unsettled = mesh.serve(service("web"))
    assert list(changed) == [WEB]
    assert unsettled == {Key("HTTPRoute", "shop", "r")}
    assert mesh.names() == ["shop.r.0"]
    assert mesh.close(service("web"))[0] == {WEB: None}
    assert mesh.routes.routes == {}
    mesh.serve(service("web"))
    assert mesh.delete("HTTPRoute", "r")[0] == {WEB: None}
    assert mesh.routes.converted(Key("HTTPRoute", "shop", "r")).rules == ()


def test_a_backend_that_comes_changes_the_routes_that_name_it_and_no_others():
    mesh = Mesh(service("web"), service("db"))
    other = manifest(
        "HTTPRoute",
        "other",
        "{parentRefs: [{group: '', kind: Service, name: db}], "
        "rules: [{backendRefs: [{name: db, port: 80}]}]}",
    )
    mesh.apply(route("r", rules="[{backendRefs: [{name: late, port: 80}]}]"), other)
    before = mesh.routes.routes["shop/db.shop.svc.cluster.local"]
    changed, _ = mesh.serve(service("late"))
    assert list(changed) == [WEB]
    assert changed[WEB].rules[0].action.destinations[0].refusal is None
    assert mesh.routes.routes["shop/db.shop.svc.cluster.local"] is before


def test_a_change_of_nothing_that_counts_changes_nothing():
    mesh = Mesh(service("web"))
    mesh.apply(route("r"))
    assert mesh.serve(replace(service("web"), addresses=(), guards=("shop/p",)))[0] == {}
    assert mesh.apply(route("r")) == ({}, set())


@pytest.mark.parametrize(
    ("parent", "at"),
    [("", {80: True, 81: True}), (", port: 80", {80: True, 81: False}), (", sectionName: x", {80: False})],
)
def test_a_route_is_at_the_ports_that_its_parent_names(parent, at):
    mesh = Mesh(service("web", 80, 81))
    mesh.apply(route("r", parent))
    found = mesh.routes.routes.get(WEB)
    assert {port: bool(found and found.at(port)) for port in at} == at


@pytest.mark.parametrize(
    ("waypoint", "namespace", "counts"),
    [("", "shop", True), ("shop", "shop", True), ("edge", "shop", True), ("edge", "edge", True),
     ("", "edge", False), ("shop", "edge", False), ("edge", "third", False)],
)  # fmt: skip
def test_routes_count_of_the_services_namespace_and_of_its_waypoints(waypoint, namespace, counts):
    mesh = Mesh(service("web", waypoint=waypoint))
    mesh.apply(
        route("r", ", namespace: shop", namespace), virtual("v", "web.shop.svc.cluster.local", namespace)
    )
    assert bool(mesh.names()) is counts
    assert len(mesh.names()) in (0, 2)


@pytest.mark.parametrize(
    ("export", "counts"), [("", True), (", exportTo: ['.']", False), (", exportTo: [edge]", True)]
)
def test_a_virtual_service_is_exported_to_the_waypoint(export, counts):
    mesh = Mesh(service("web", waypoint="edge"))
    mesh.apply(virtual("v", more=export))
    assert bool(mesh.names()) is counts


def test_a_waypoint_in_another_namespace_brings_that_ones_routes():
    mesh = Mesh(service("web"))
    mesh.apply(route("a"), route("b", ", namespace: shop", "edge"))
    assert mesh.names() == ["shop.a.0"]
    mesh.serve(service("web", waypoint="edge"))
    assert mesh.names() == ["edge.b.0", "shop.a.0"]


def test_wild_hosts_are_those_of_services_that_come_later_too():
    mesh = Mesh(service("web"))
    mesh.apply(virtual("v", "*.shop.svc.cluster.local"))
    mesh.serve(service("db"))
    assert sorted(mesh.routes.routes) == ["shop/db.shop.svc.cluster.local", WEB]
    mesh.apply(virtual("v", "db"))
    assert list(mesh.routes.routes) == ["shop/db.shop.svc.cluster.local"]


@pytest.mark.parametrize("kind", ["HTTPRoute", "GRPCRoute"])
def test_a_mirrors_backend_that_comes_is_found(kind):
    """envoyproxy/gateway#8541: of a GRPCRoute mirrors were not among what it depends on."""
    mesh = Mesh(service("web"))
    mirror = "filters: [{type: RequestMirror, requestMirror: {backendRef: {name: late, port: 80}}}]"
    mesh.apply(manifest(kind, "r", f"{{{PARENT % ''}, rules: [{{{TO}, {mirror}}}]}}"))
    assert mesh.routes.routes[WEB].rules[0].mirrors[0].destination.refusal is not None
    mesh.serve(service("late"))
    assert mesh.routes.routes[WEB].rules[0].mirrors[0].destination.refusal is None


@pytest.mark.parametrize(
    ("namespace", "hosts", "nowhere"),
    [
        ("shop", "web", ""),
        ("edge", "web.shop.svc.cluster.local", ""),
        ("shop", "nobody", "none of them is that of a service"),
        ("istio-system", "web.shop.svc.cluster.local",
         "their services are of other namespaces: it counts only in theirs, or in their waypoints'"),
    ],
)  # fmt: skip
def test_a_virtual_service_that_is_for_no_service_says_why(namespace, hosts, nowhere):
    """istio/istio#58747: one of the root namespace is for that one's services, and nobody said so."""
    mesh = Mesh(service("web", waypoint="edge"))
    mesh.apply(virtual("v", hosts, namespace))
    found = mesh.routes.problems()
    hidden = Mesh(service("web", waypoint="edge"))
    hidden.apply(virtual("v", more=", exportTo: ['.']"))
    assert "not exported" in str(hidden.routes.problems())
    assert [str(one) for problems in found.values() for one in problems if one.why is Why.NOWHERE] == (
        [f"hosts: {nowhere}"] if nowhere else []
    )


def test_a_delegate_changes_the_one_that_names_it():
    mesh = Mesh(service("web"))
    mesh.apply(manifest("VirtualService", "root", "{hosts: [web], http: [{delegate: {name: d}}]}"))
    assert mesh.names() == []
    mesh.apply(manifest("VirtualService", "d", "{http: [{name: below, redirect: {uri: /x}}]}"))
    assert mesh.names() == ["below"]
    mesh.delete("VirtualService", "d")
    assert mesh.names() == []


def test_a_subset_that_comes_ends_a_refusal():
    mesh = Mesh(service("web"))
    text = "{hosts: [web], http: [{route: [{destination: {host: web, subset: v1}}]}]}"
    mesh.apply(manifest("VirtualService", "v", text))
    assert mesh.routes.routes[WEB].rules[0].action.destinations[0].refusal is not None
    assert len(list(mesh.routes.texts())) == 1
    rule = manifest("DestinationRule", "d", "{host: web, subsets: [{name: v1, labels: {v: '1'}}]}")
    changed, unsettled = mesh.apply(rule)
    assert changed[WEB].rules[0].action.destinations[0].labels == (("v", "1"),)
    assert unsettled == {Key("VirtualService", "shop", "v")}
    assert list(mesh.routes.texts()) == []
    assert mesh.delete("DestinationRule", "d")[0][WEB].rules[0].action.destinations[0].refusal is not None


def test_the_services_that_a_parent_means_are_found():
    mesh = Mesh(service("web"))
    assert mesh.routes.parent(Reference("", "Service", "", "web"), "shop") == (service("web"),)
    assert mesh.routes.parent(Reference("", "Service", "", "web"), "other") == ()
    assert mesh.routes.parent(Reference("", "Service", "shop", "web"), "other") == (service("web"),)


def test_a_thousand_routes_cost_the_one_that_changes():
    services = [service(f"s{number}") for number in range(200)]
    mesh = Mesh(*services)
    texts = [
        manifest("HTTPRoute", f"r{number}",
                 f"{{parentRefs: [{{group: '', kind: Service, name: s{number}}}], rules: [{{{TO}}}]}}")
        for number in range(200)
    ]  # fmt: skip
    mesh.apply(*texts)
    before = dict(mesh.routes.routes)
    changed, _ = mesh.apply(texts[7].replace("{backendRefs", "{name: changed, backendRefs"))
    assert list(changed) == ["shop/s7.shop.svc.cluster.local"]
    assert all(mesh.routes.routes[name] is one for name, one in before.items() if name not in changed)


def of_kind(kind, name, parent="", namespace="shop"):
    return manifest(kind, name, f"{{{PARENT % parent}, rules: [{{{TO}}}]}}", namespace=namespace)


HTTP, GRPC = Key("HTTPRoute", "shop", "http"), "shop.grpc.0"


@pytest.mark.parametrize(
    ("parent", "asked"),
    [
        (", port: 80", {80: [GRPC], 90: ["shop.http.0"]}),
        ("", {80: [GRPC], 90: [GRPC]}),
        (", port: 81", {80: ["shop.http.0"], 90: ["shop.http.0"]}),
    ],
)
def test_where_two_kinds_are_bound_to_a_port_the_more_specific_one_is_asked(parent, asked):
    """GEP-1294, istio/istio#59204: which of both it was, was chance."""
    mesh = Mesh(service("web", 80, 90))
    mesh.apply(of_kind("HTTPRoute", "http"))
    _, unsettled = mesh.apply(of_kind("GRPCRoute", "grpc", parent))
    assert HTTP in unsettled  # something else is to be said of it
    found = {port: [rule.name for rule in mesh.routes.routes[WEB].at(port)] for port in (80, 90)}
    assert found == asked
    assert (HTTP in mesh.routes.problems()) is (GRPC in found[80])
    _, unsettled = mesh.delete("GRPCRoute", "grpc")
    assert HTTP in unsettled
    assert mesh.names() == ["shop.http.0"]
    assert mesh.routes.problems() == {}


def test_what_another_namespace_says_takes_no_port():
    mesh = Mesh(service("web"))
    mesh.apply(of_kind("HTTPRoute", "http"), of_kind("GRPCRoute", "grpc", ", namespace: shop", "far"))
    assert mesh.names() == ["shop.http.0"]


def test_a_tls_route_goes_before_a_tcp_route_and_neither_before_requests():
    mesh = Mesh(service("web"))
    mesh.apply(*(of_kind(f"{kind}Route", kind.lower()) for kind in ("TCP", "TLS", "HTTP")))
    routes = mesh.routes.routes[WEB]
    assert [rule.name for rule in routes.connections] == ["shop.tls.0"]
    assert [rule.name for rule in routes.rules] == ["shop.http.0"]
