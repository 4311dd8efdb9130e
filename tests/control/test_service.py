"""What the golden pairs (test_translation.py) do not show of services."""

from ipaddress import ip_address

import pytest

from ztunnel.control.service import convert_service, group_services, ports_of, slice_workloads
from ztunnel.control.settings import MeshSettings
from ztunnel.model.service import IpFamilies, LoadBalancing, Port, Scope
from ztunnel.state.kube import EndpointSlice, Namespace, Pod, Service, ServicePort, SliceEndpoint
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


def endpoint(address, pod_name=""):
    return SliceEndpoint((ip_address(address),), True, pod_name)


def test_a_pod_serves_what_selects_all_of_its_labels():
    groups = group_services(
        [
            service("a", {"app": "web"}),
            service("b", {"app": "web", "tier": "x"}),
            service("c", {"app": "no"}),
        ],
        [],
    )
    served = groups["shop"].of(pod("p", {"app": "web", "zone": "z"}))
    assert [one.meta.name for one, _ in served] == ["a"]
    served = groups["shop"].of(pod("p", {"tier": "x", "app": "web"}))
    assert sorted(one.meta.name for one, _ in served) == ["a", "b"]


def test_a_service_without_a_selector_selects_nobody():
    groups = group_services([service("a")], [])
    assert list(groups["shop"].of(pod("p", {"app": "web"}))) == []


def test_slices_join_pods_only_to_services_without_a_selector():
    slices = [
        EndpointSlice(meta(f"{name}-1"), name, {"http": 8888}, (endpoint("10.0.0.1", "p"),))
        for name in ("free", "selecting", "unknown")
    ]
    groups = group_services([service("free"), service("selecting", {"app": "no"})], slices)
    joined = [(one.meta.name, ports) for one, ports in groups["shop"].of(pod("p", {}))]
    assert joined == [("free", (Port(80, 8888),))]


def test_named_ports_are_the_pods_and_missing_ones_are_left_out():
    assert ports_of(service("a"), pod("p", {}, {"web": 8080})) == (Port(80, 8080), Port(81, 8081))
    assert ports_of(service("a"), pod("p", {})) == (Port(81, 8081),)


def test_the_address_of_an_endpoint_without_a_pod_counts_once():
    one = EndpointSlice(
        meta("a-1"), "a", {"raw": 1}, (endpoint("10.0.0.1"), endpoint("10.0.0.1"), endpoint("10.0.0.2", "p"))
    )
    (workload,) = slice_workloads(one, service("a"), MeshSettings())
    assert workload.uid == "Kubernetes/discovery.k8s.io/EndpointSlice/shop/a-1/10.0.0.1"
    assert workload.host_network
    assert not workload.enrolled


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
