"""Istio's entries are read strictly: every wrong thing is found, at its field."""

from ipaddress import ip_address, ip_network

import pytest

from ztunnel.model.workload import Locality
from ztunnel.state.manifest import Notes, compose
from ztunnel.state.networking import (
    EntryPort,
    Resolution,
    read_service_entry,
    read_workload_entry,
)


def read(reader, spec, more=""):
    notes = Notes()
    found = reader(compose(f"metadata: {{name: a, labels: {{app: meta}}}}\nspec: {spec}\n{more}\n", notes))
    return found, [fault.field for fault in notes.faults]


def test_a_service_entry_is_read():
    entry, faults = read(
        read_service_entry,
        """
  hosts: [Api.Example.com, "*.example.org"]
  addresses: [192.0.2.1, "2001:db8::/64", "::ffff:192.0.2.2"]
  ports: [{number: 443, name: tls, protocol: HTTPS, targetPort: 8443}, {number: 53, name: dns, protocol: UDP}]
  location: MESH_INTERNAL
  resolution: STATIC
  subjectAltNames: [spiffe://a/ns/b/sa/c]
  exportTo: ["."]
  endpoints: [{address: "fd00::1", ports: {tls: 9443, dns: 5353}, weight: 2}]
""",
        'status: {addresses: [{host: api.example.com, value: 240.240.0.1}, {host: "", value: "2001:2::1"}]}',
    )
    assert faults == []
    assert entry.hosts == ("api.example.com", "*.example.org")
    assert entry.addresses == (ip_network("192.0.2.1"), ip_network("2001:db8::/64"), ip_network("192.0.2.2"))
    assert entry.ports == (EntryPort("tls", 443, 8443, "https"),)
    assert (entry.resolution, entry.external, entry.selector) == (Resolution.STATIC, False, None)
    assert (entry.subject_alt_names, entry.export_to) == (("spiffe://a/ns/b/sa/c",), (".",))
    (endpoint,) = entry.endpoints
    assert (endpoint.ip, endpoint.ports, endpoint.weight) == (
        ip_address("fd00::1"),
        {"tls": 9443, "dns": 5353},
        2,
    )
    assert entry.allocated["api.example.com"] == (ip_address("240.240.0.1"),)


def test_a_workload_entry_is_read_and_its_metadatas_labels_come_first():
    entry, faults = read(
        read_workload_entry,
        "{address: 10.0.0.1, labels: {app: spec, x: y}, locality: r/z/s, network: n, serviceAccount: sa,"
        " weight: 7}",
    )
    assert faults == []
    assert entry.labels == {"app": "meta", "x": "y"}
    assert entry.endpoint.locality == Locality("r", "z", "s")
    assert (entry.endpoint.network, entry.endpoint.service_account, entry.endpoint.weight) == ("n", "sa", 7)
    assert entry.healthy


@pytest.mark.parametrize(
    ("address", "ip", "name"),
    [
        ("10.0.0.1", "10.0.0.1", ""),
        ("'::ffff:10.0.0.1'", "10.0.0.1", ""),
        ("vm.example.com", None, "vm.example.com"),
        ("unix:///run/x", None, ""),
    ],
)
def test_an_address_is_an_ip_a_name_or_a_socket(address, ip, name):
    entry, faults = read(read_workload_entry, f"{{address: {address}}}")
    assert faults == []
    assert entry.endpoint.ip == (ip and ip_address(ip))
    assert entry.endpoint.name == name


@pytest.mark.parametrize(("condition", "healthy"), [("False", False), ("True", True), ("Unknown", True)])
def test_health_comes_from_the_status(condition, healthy):
    status = f'status: {{conditions: [{{type: Healthy, status: "{condition}"}}]}}'
    assert read(read_workload_entry, "{address: 10.0.0.1}", status)[0].healthy is healthy


PORTS = "ports: [{number: 80, name: http}]"


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ("~", ""),
        ("{}", "spec"),
        ("{hosts: []}", "spec"),
        ("{hosts: [a.b], host: x}", "spec.host"),
        ("{hosts: ['*']}", "spec.hosts[0]"),
        ("{hosts: ['a.*.b']}", "spec.hosts[0]"),
        ("{hosts: ['a.b.']}", "spec.hosts[0]"),
        ("{hosts: ['http://a.b']}", "spec.hosts[0]"),
        ("{hosts: ['*.b'], resolution: DNS}", "spec.hosts[0]"),
        ("{hosts: [a.b], resolution: DYNAMIC_DNS}", "spec.hosts[0]"),
        ("{hosts: [a.b], resolution: static}", "spec.resolution"),
        ("{hosts: [a.b], location: MESH}", "spec.location"),
        ("{hosts: [a.b], addresses: [x]}", "spec.addresses[0]"),
        ("{hosts: [a.b], addresses: [10.0.0.1/8]}", "spec.addresses[0]"),
        ("{hosts: [a.b], addresses: [10.0.0.0/8], resolution: DNS}", "spec.addresses[0]"),
        ("{hosts: [a.b], ports: [{name: a}]}", "spec.ports[0]"),
        ("{hosts: [a.b], ports: [{number: 0, name: a}]}", "spec.ports[0].number"),
        ("{hosts: [a.b], ports: [{number: 1}]}", "spec.ports[0]"),
        ("{hosts: [a.b], ports: [{number: 1, name: a, protocol: SCTP}]}", "spec.ports[0]"),
        ("{hosts: [a.b], ports: [{number: 1, name: a}, {number: 1, name: b}]}", "spec.ports[1].number"),
        ("{hosts: [a.b], ports: [{number: 1, name: a}, {number: 2, name: a}]}", "spec.ports[1]"),
        ("{hosts: [a.b], ports: [{number: 1, name: a, targetPort: 70000}]}", "spec.ports[0].targetPort"),
        ("{hosts: [a.b], ports: [{number: 1, name: a, port: 2}]}", "spec.ports[0].port"),
        ("{hosts: [a.b], endpoints: [{address: 10.0.0.1}]}", "spec"),
        ("{hosts: [a.b], resolution: STATIC, endpoints: [{address: x.y}]}", "spec.endpoints[0]"),
        (
            "{hosts: [a.b], resolution: STATIC, endpoints: [{address: 10.0.0.1, ports: {x: 1}}]}",
            "spec.endpoints[0]",
        ),
        (f"{{hosts: [a.b], {PORTS}, resolution: STATIC, endpoints: [{{}}]}}", "spec.endpoints[0]"),
        ("{hosts: [a.b], resolution: STATIC, endpoints: [{address: 1.1.1.1}], workloadSelector: {}}", "spec"),
        ("{hosts: [a.b], resolution: DNS_ROUND_ROBIN, endpoints: [{address: a}, {address: b}]}", "spec"),
        ("{hosts: [a.b], workloadSelector: {app: x}}", "spec.workloadSelector.app"),
        ("{hosts: [a.b], workloadSelector: {labels: {app: '*'}}}", "spec.workloadSelector.labels.app"),
    ],
)
def test_a_fault_of_a_service_entry_is_at_its_field(spec, field):
    assert read(read_service_entry, spec)[1] == [field]


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ("~", ""),
        ("{}", "spec"),
        ("{address: '*.b'}", "spec"),
        ("{address: 'fe80::1%eth0'}", "spec"),
        ("{address: 'unix://run/x'}", "spec"),
        ("{address: 'unix:///run/x', ports: {a: 1}}", "spec"),
        ("{address: 10.0.0.1, ports: {a: 0}}", "spec.ports.a"),
        ("{address: 10.0.0.1, ports: {a_b: 1}}", "spec.ports.a_b"),
        ("{address: 10.0.0.1, weight: -1}", "spec.weight"),
        ("{address: 10.0.0.1, serviceAccount: a/../b}", "spec"),
        ("{address: 10.0.0.1, serviceaccount: a}", "spec.serviceaccount"),
    ],
)
def test_a_fault_of_a_workload_entry_is_at_its_field(spec, field):
    assert read(read_workload_entry, spec)[1] == [field]
