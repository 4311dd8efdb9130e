"""What entries become; golden/entries holds the rest."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from ztunnel.control.services.entry import (
    EntryResources,
    convert_service_entry,
    convert_workload_entry,
    entry_services,
)
from ztunnel.control.services.ownership import Standing
from ztunnel.control.services.workload import Surroundings
from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.document import Key
from ztunnel.model.service import AppProtocol, LoadBalancing, Port, Service
from ztunnel.model.workload import TunnelProtocol, Workload
from ztunnel.state.meta import Meta
from ztunnel.state.networking import EntryEndpoint, EntryPort, Resolution, ServiceEntry, WorkloadEntry

AROUND = Surroundings(MeshSettings())
META = Meta("e", "shop", {}, {})
PORTS = (EntryPort("tls", 443, 8443), EntryPort("http", 80, 80))
ONE = EntryEndpoint("192.0.2.1", ip_address("192.0.2.1"), {"tls": 9443}, {})
HOSTS = Standing(hosts=("a.example", "b.example"), canonical=frozenset(["a.example"]), endpoints=(ONE,))
ENTRY = ServiceEntry(META, ("a.example", "b.example"), (), PORTS, Resolution.STATIC, endpoints=(ONE,))


def converted(entry, standing=HOSTS):
    made = list(convert_service_entry(entry, standing, AROUND))
    return [one for one in made if isinstance(one, Service)], [
        one for one in made if isinstance(one, Workload)
    ]


def test_each_host_is_a_service_and_each_endpoint_serves_all_of_them():
    services, (workload,) = converted(ENTRY)
    assert [(one.hostname, one.canonical) for one in services] == [("a.example", True), ("b.example", False)]
    assert services[0].ports == (Port(443, 8443), Port(80, 80))
    assert [str(name) for name in workload.services] == ["shop/a.example", "shop/b.example"]
    assert set(workload.services.values()) == {(Port(443, 9443), Port(80, 80))}
    assert workload.uid == "Kubernetes/networking.istio.io/ServiceEntry/shop/e/192.0.2.1"


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        ("https", AppProtocol.TLS),
        ("http", AppProtocol.HTTP),
        ("grpc", AppProtocol.GRPC),
        ("mysql", AppProtocol.TCP),
        ("", None),
        ("auto", None),
    ],
)
def test_what_is_spoken_at_a_port_is_said_by_its_protocol(protocol, expected):
    ports = (EntryPort("tcp", 443, 8443, protocol),)
    services, _ = converted(replace(ENTRY, ports=ports))
    assert {one.protocol(443) for one in services} == {expected}


def test_of_an_entry_without_a_host_of_its_own_nothing_is_made():
    assert converted(ENTRY, replace(HOSTS, hosts=())) == ([], [])
    assert entry_services(replace(ENTRY, selector={"a": "b"}), replace(HOSTS, hosts=())) is None


@pytest.mark.parametrize("selector", [None, {}])
def test_an_empty_selector_selects_nothing(selector):
    assert entry_services(replace(ENTRY, selector=selector), HOSTS) is None


def test_resolution_none_leaves_calls_where_they_want_to_go():
    services, workloads = converted(replace(ENTRY, resolution=Resolution.NONE), replace(HOSTS, endpoints=()))
    assert {one.load_balancing for one in services} == {LoadBalancing.PASSTHROUGH}
    assert workloads == []


def test_by_dns_the_hosts_are_the_endpoints_where_none_are_named():
    entry = replace(ENTRY, resolution=Resolution.DNS, endpoints=())
    _, workloads = converted(entry, replace(HOSTS, endpoints=()))
    assert [(one.hostname, one.addresses, [str(name) for name in one.services]) for one in workloads] == [
        ("a.example", (), ["shop/a.example"]),
        ("b.example", (), ["shop/b.example"]),
    ]
    wild = replace(HOSTS, hosts=("*.example",), endpoints=())
    assert converted(replace(entry, resolution=Resolution.DYNAMIC_DNS), wild)[1] == []


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, 1),
        ({"resolution": Resolution.NONE}, 0),
        ({"meta": replace(META, labels={"networking.istio.io/enable-autoallocate-ip": "false"})}, 0),
    ],
)
def test_addresses_that_were_allocated_count_where_none_are_written(more, expected):
    standing = replace(HOSTS, allocated={"a.example": (ip_address("240.240.0.1"),)})
    services, _ = converted(replace(ENTRY, **more), standing)
    assert [len(one.addresses) for one in services] == [expected, 0]


def test_a_virtual_address_is_the_services_at_its_ports_only():
    services, _ = converted(ENTRY, replace(HOSTS, addresses=(ip_address("192.0.2.9"),)))
    assert services[0].is_at(ip_address("192.0.2.9"), 443)
    assert not services[0].is_at(ip_address("192.0.2.9"), 22)


@pytest.mark.parametrize("tunnel", [True, False])
def test_a_workload_in_plaintext_has_its_address_for_nobody_else(tunnel):
    labels = {"networking.istio.io/tunnel": "http"} if tunnel else {}
    entry = WorkloadEntry(replace(META, labels=labels), ONE, labels)
    workload = convert_workload_entry(entry, Standing(endpoints=(ONE,)), AROUND)
    assert workload.protocol is (TunnelProtocol.HBONE if tunnel else TunnelProtocol.NONE)
    assert (workload.native_tunnel, workload.host_network) == (tunnel, not tunnel)


def test_a_workload_whose_address_is_another_ones_is_none():
    assert convert_workload_entry(WorkloadEntry(META, ONE, {}), Standing(), AROUND) is None


A, B = Key("ServiceEntry", "shop", "a"), Key("ServiceEntry", "shop", "b")


def test_an_entry_takes_over_what_was_anothers_whatever_the_order():
    services = {one.hostname: one for one in converted(ENTRY)[0]}
    x, y = services["a.example"], services["b.example"]
    for first, second in ((A, B), (B, A)):
        resources = EntryResources()
        assert dict(resources.replace({A: {"x": x, "y": y}})) == {"x": x, "y": y}
        changes = {A: {"y": y}, B: {"x": y}}
        assert dict(resources.replace({first: changes[first], second: changes[second]})) == {"x": y, "y": y}
        assert "x" in resources
        assert dict(resources.replace({B: {}})) == {"x": None}
        assert "x" not in resources
        assert dict(resources.replace({A: {}})) == {"y": None}
