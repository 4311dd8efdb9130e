"""Whose the endpoints of slices are: of pods by their addresses, and of nobody known."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from ztunnel.control.index import Index
from ztunnel.control.services import endpoint as endpoints
from ztunnel.control.services.endpoint import Attached, endpoint_workloads
from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.document import key_of
from ztunnel.model.service import IpFamilies, Port
from ztunnel.state.endpoints import EndpointSlice, SliceEndpoint
from ztunnel.state.kube import Pod, Service, ServicePort
from ztunnel.state.meta import Meta


def meta(name, namespace="shop"):
    return Meta(name, namespace, {}, {})


def service(name, selector=None, publish_not_ready=False, kind=""):
    ports = (ServicePort("http", 80, "web"), ServicePort("raw", 81, 8081))
    families = IpFamilies.AUTOMATIC
    return Service(meta(name), kind, selector or {}, (), ports, False, "", publish_not_ready, families)


def pod(name, *addresses, namespace="shop", host_network=False, phase=""):
    ips = tuple(map(ip_address, addresses))
    return Pod(meta(name, namespace), "n1", "default", host_network, {}, ips, phase, True)


def endpoint(address, pod_name="", ready=True, draining=False):
    return SliceEndpoint((ip_address(address),), ready, pod_name, draining)


def slice_of(name, *endpoints, ports=None, generated=False):
    return EndpointSlice(meta(f"{name}-1"), name, ports or {"http": 8888}, endpoints, generated)


def attach(slices, service, pods):
    index = Index()
    for one in pods:
        index.put(key_of(one), None, one)
    return endpoints.attach(service, slices, index)


def others(attached):
    return [str(endpoint.addresses[0]) for _, endpoint in attached.others]


WEB = pod("web", "10.0.1.1", "fd00::1")


@pytest.mark.parametrize("address", ["10.0.1.1", "fd00::1"])
@pytest.mark.parametrize("named", ["", "web", "another"])
def test_an_address_that_is_a_pods_is_that_pod_whatever_is_named_beside_it(address, named):
    attached = attach([slice_of("db", endpoint(address, named))], service("db"), [WEB, pod("another")])
    assert attached.pods == {("shop", "web"): (Port(80, 8888),)}
    assert attached.others == ()


def test_a_pod_of_another_namespace_is_found_too():
    away = pod("web", "10.0.1.9", namespace="away")
    attached = attach([slice_of("db", endpoint("10.0.1.9"))], service("db"), [WEB, away])
    assert attached.pods == {("away", "web"): (Port(80, 8888),)}


def test_an_address_that_is_nobodys_is_an_endpoint_of_its_own():
    ended = pod("ended", "10.0.1.7", phase="Succeeded")
    slices = [slice_of("db", endpoint("203.0.113.1", "web"), endpoint("10.0.1.7"))]
    attached = attach(slices, service("db"), [WEB, ended])
    assert (attached.pods, others(attached)) == ({}, ["203.0.113.1", "10.0.1.7"])


def test_a_hosts_address_is_its_pods_only_where_that_is_named():
    on_host = pod("agent", "192.168.0.1", host_network=True)
    for named, found in (("agent", {("shop", "agent"): (Port(80, 8888),)}), ("", {}), ("web", {})):
        attached = attach([slice_of("db", endpoint("192.168.0.1", named))], service("db"), [WEB, on_host])
        assert attached.pods == found
        assert len(attached.others) == (not found)


def test_slices_of_one_service_add_up():
    slices = [
        slice_of("db", endpoint("10.0.1.1"), ports={"http": 1}),
        slice_of("db", endpoint("fd00::1"), endpoint("10.0.1.2"), ports={"http": 1, "raw": 2}),
    ]
    attached = attach(slices, service("db"), [WEB, pod("two", "10.0.1.2")])
    ports = (Port(80, 1), Port(81, 2))
    assert attached.pods == {("shop", "web"): ports, ("shop", "two"): ports}


@pytest.mark.parametrize(
    ("selector", "generated", "joins"),
    [({}, False, True), ({}, True, True), ({"app": "x"}, False, True), ({"app": "x"}, True, False)],
)
def test_only_slices_that_repeat_a_selection_are_left_to_it(selector, generated, joins):
    one = slice_of("db", endpoint("10.0.1.1"), endpoint("203.0.113.1"), generated=generated)
    attached = attach([one], service("db", selector), [WEB])
    assert (bool(attached.pods), bool(attached.others)) == (joins, joins)


@pytest.mark.parametrize(
    ("conditions", "other_ready", "publish", "serves"),
    [
        ((True, False), False, False, True),
        ((False, False), False, False, False),
        ((False, False), False, True, True),
        ((False, True), False, False, True),
        ((False, True), True, False, False),
        ((False, True), True, True, True),
    ],
)
def test_a_pod_serves_by_a_slice_as_the_slice_says(conditions, other_ready, publish, serves):
    slices = [slice_of("db", endpoint("10.0.1.1", "", *conditions), endpoint("10.0.1.2", "", other_ready))]
    attached = attach(slices, service("db", publish_not_ready=publish), [WEB, pod("two", "10.0.1.2")])
    assert (("shop", "web") in attached.pods) == serves


def test_an_endpoint_of_its_own_is_a_workload_once_and_keeps_its_conditions():
    one = slice_of(
        "a",
        endpoint("203.0.113.1", ready=False, draining=True),
        endpoint("203.0.113.1"),
        endpoint("203.0.113.2"),
    )
    second, first = endpoint_workloads(service("a"), attach([one], service("a"), []), MeshSettings())
    assert first.uid == "Kubernetes/discovery.k8s.io/EndpointSlice/shop/a-1/203.0.113.1"
    assert (first.healthy, first.draining, second.healthy, second.draining) == (False, True, True, False)
    assert first.host_network
    assert not first.enrolled


def test_where_there_are_no_slices_nothing_is_attached():
    assert attach([], service("a"), [WEB]) == Attached()


@pytest.mark.parametrize("address", ["203.0.113.1", "2001:db8::1"])
def test_an_address_and_port_that_two_slices_have_counts_once_by_the_one_in_which_it_is_ready(address):
    """As with kube-proxy: a second entry would get the address twice its share of calls."""
    first, second = (replace(slice_of("db", endpoint(address)), meta=meta(f"db-{one}")) for one in "12")
    more = replace(second, ports={"http": 8888, "raw": 9}, endpoints=(endpoint(address, ready=False),))
    unready = replace(first, endpoints=(endpoint(address, ready=False),))
    for slices, expected in (
        ((first, second), {"db-1": (True, [8888])}),
        ((unready, second), {"db-2": (True, [8888])}),
        ((first, more), {"db-1": (True, [8888]), "db-2": (False, [9])}),
    ):
        found = endpoint_workloads(service("db"), attach(slices, service("db"), []), MeshSettings())
        ports = {
            one.name: (one.healthy, [each.target for [some] in [one.services.values()] for each in some])
            for one in found
        }
        assert ports == expected
