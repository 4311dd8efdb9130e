"""What the golden pairs (test_translation.py) do not show of services."""

from dataclasses import replace

import pytest

from ztunnel.control.services.service import convert_service, group_services, ports_of
from ztunnel.control.settings import MeshSettings
from ztunnel.model.service import AppProtocol, IpFamilies, LoadBalancing, Port, Scope
from ztunnel.state.kube import Namespace, Pod, Service, ServicePort
from ztunnel.state.meta import Meta

ANNOTATION = "networking.istio.io/traffic-distribution"


def meta(name, labels=None, annotations=None):
    return Meta(name, "shop", labels or {}, annotations or {})


def service(name, selector=None, annotations=None, distribution=""):
    ports = (ServicePort("http", 80, "web"), ServicePort("raw", 81, 8081))
    return Service(
        meta(name, annotations=annotations),
        "",
        selector or {},
        (),
        ports,
        False,
        distribution,
        False,
        IpFamilies.AUTOMATIC,
    )


def pod(name, labels, ports=None):
    return Pod(meta(name, labels), "n1", "default", False, ports or {}, (), "", True)


def test_a_pod_serves_what_selects_all_of_its_labels():
    group = group_services(
        [
            service("a", {"app": "web"}),
            service("b", {"app": "web", "tier": "x"}),
            service("c", {"app": "no"}),
        ],
        {},
    )
    served = group.of(pod("p", {"app": "web", "zone": "z"}))
    assert [one.meta.name for one, _ in served] == ["a"]
    served = group.of(pod("p", {"tier": "x", "app": "web"}))
    assert sorted(one.meta.name for one, _ in served) == ["a", "b"]


def test_an_alias_selects_nobody():
    group = group_services([replace(service("a", {"app": "web"}), kind="ExternalName")], {})
    assert list(group.of(pod("p", {"app": "web"}))) == []


def test_a_service_without_a_selector_selects_nobody():
    group = group_services([service("a")], {})
    assert list(group.of(pod("p", {"app": "web"}))) == []


def test_what_a_selector_says_goes_before_what_a_slice_does():
    both = service("a", {"app": "web"})
    group = group_services([both], {"p": {("shop", "a"): (both, (Port(80, 1),))}})
    (_, by_slice), (_, by_selector) = group.of(pod("p", {"app": "web"}, {"web": 8080}))
    assert (by_slice, by_selector) == ((Port(80, 1),), (Port(80, 8080), Port(81, 8081)))


def test_a_pod_may_serve_a_service_of_another_namespace():
    group = group_services([], {"p": {("away", "a"): (service("a"), (Port(80, 1),))}})
    assert [ports for _, ports in group.of(pod("p", {}))] == [(Port(80, 1),)]


def test_named_ports_are_the_pods_and_missing_ones_are_left_out():
    assert ports_of(service("a"), pod("p", {}, {"web": 8080})) == (Port(80, 8080), Port(81, 8081))
    assert ports_of(service("a"), pod("p", {})) == (Port(81, 8081),)


ZONES = (Scope.NETWORK, Scope.REGION, Scope.ZONE)


@pytest.mark.parametrize(
    ("field", "own", "inherited", "expected"),
    [
        ("", "", "", (LoadBalancing.STANDARD, ())),
        ("PreferClose", "", "", (LoadBalancing.FAILOVER, ZONES)),
        ("PreferSameZone", "PreferSameNode", "", (LoadBalancing.FAILOVER, ZONES)),
        ("", "prefersamenode", "", (LoadBalancing.FAILOVER, (*ZONES, Scope.SUBZONE, Scope.NODE))),
        ("", "Any", "PreferClose", (LoadBalancing.STANDARD, ())),
        ("", "", "PreferClose", (LoadBalancing.FAILOVER, ZONES)),
    ],
)
def test_the_nearest_distribution_counts(field, own, inherited, expected):
    one = service("a", annotations={ANNOTATION: own} if own else {}, distribution=field)
    namespace = Namespace(Meta("shop", "", {}, {ANNOTATION: inherited} if inherited else {}))
    made = convert_service(one, namespace, MeshSettings())
    assert (made.load_balancing, made.routing_preference) == expected


@pytest.mark.parametrize(
    ("name", "app_protocol", "expected"),
    [
        ("http", "", AppProtocol.HTTP),
        ("http2-web", "", AppProtocol.HTTP2),
        ("GRPC", "", AppProtocol.GRPC),
        ("tcp-http", "", AppProtocol.TCP),
        ("https", "", AppProtocol.TLS),
        ("web", "", None),
        ("", "", None),
        ("tcp", "http", AppProtocol.HTTP),
        ("", "kubernetes.io/h2c", AppProtocol.HTTP2),
        ("", "HTTP_PROXY", AppProtocol.TCP),
        ("http", "example.com/x", None),
    ],
)
def test_what_is_spoken_at_a_port_is_said_by_its_name_or_its_protocol(name, app_protocol, expected):
    one = replace(service("a"), ports=(ServicePort(name, 80, 8080, app_protocol),))
    assert convert_service(one, None, MeshSettings()).protocol(80) is expected
    assert convert_service(one, None, MeshSettings()).protocol(81) is None


@pytest.mark.parametrize(
    ("own", "inherited", "expected"),
    [
        ({}, None, False),
        ({}, {}, False),
        ({}, {"istio.io/ingress-use-waypoint": "true"}, True),
        ({"istio.io/ingress-use-waypoint": "true"}, None, True),
        ({"istio.io/ingress-use-waypoint": "false"}, {"istio.io/ingress-use-waypoint": "true"}, False),
        ({"istio.io/ingress-use-waypoint": "yes"}, None, False),
        ({"istio.io/ingress-use-waypoint": "True"}, None, True),
    ],
)
def test_gateways_use_its_waypoint_where_it_or_its_namespace_says_so(own, inherited, expected):
    space = Namespace(Meta("shop", "", inherited, {})) if inherited is not None else None
    one = service("web")
    made = convert_service(replace(one, meta=replace(one.meta, labels=own)), space, MeshSettings())
    assert made.ingress_uses_waypoint is expected
