"""Slices and Endpoints: what they say of addresses is read, and what is wrong in that is found."""

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.state.endpoints import SliceEndpoint, read_endpoint_slice, read_endpoints
from ztunnel.state.manifest import Notes, compose

A, B = IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2")


def read(reader, body, metadata="name: a"):
    notes = Notes()
    found = reader(compose(f"metadata: {{{metadata}}}\n{body}", notes))
    return found, [fault.field for fault in notes.faults]


def test_a_slice_is_read():
    found, faults = read(
        read_endpoint_slice,
        """
addressType: IPv4
ports: [{name: http, port: 80}, {name: dns, port: 53, protocol: UDP}, {port: 81}]
endpoints:
- {addresses: [10.0.0.1], targetRef: {kind: Pod, name: p}}
- {addresses: [10.0.0.2], conditions: {ready: false}}
""",
    )
    assert faults == []
    assert found.ports == {"http": 80, "": 81}
    assert found.endpoints == (SliceEndpoint((A,), True, "p"), SliceEndpoint((B,), False))


@pytest.mark.parametrize(
    ("conditions", "ready", "draining"),
    [
        ("{}", True, False),
        ("{ready: ~}", True, False),
        ("{ready: true, serving: true, terminating: false}", True, False),
        ("{ready: false}", False, False),
        ("{ready: false, serving: true, terminating: true}", False, True),
        ("{ready: false, terminating: true}", False, False),
        ("{ready: false, serving: false, terminating: true}", False, False),
        ("{ready: false, serving: true}", False, False),
        ("{ready: true, serving: true, terminating: true}", True, False),
    ],
)
def test_conditions_say_whether_an_endpoint_is_ready_or_still_serves(conditions, ready, draining):
    found, _ = read(read_endpoint_slice, f"endpoints: [{{addresses: [10.0.0.1], conditions: {conditions}}}]")
    assert found.endpoints == (SliceEndpoint((A,), ready, draining=draining),)


@pytest.mark.parametrize(
    ("who", "generated"), [("endpointslice-controller.k8s.io", True), ("me", False), ("''", False)]
)
def test_a_slice_that_kubernetes_makes_is_known_by_its_label(who, generated):
    label = f"endpointslice.kubernetes.io/managed-by: {who}"
    found, _ = read(read_endpoint_slice, "", f"name: a, labels: {{{label}, kubernetes.io/service-name: s}}")
    assert (found.service, found.generated) == ("s", generated)


def test_a_slice_of_names_has_no_endpoints():
    found, faults = read(read_endpoint_slice, "addressType: FQDN\nendpoints: [{addresses: [example.com]}]")
    assert (found.endpoints, faults) == ((), [])


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ("endpoints: [{addresses: [x]}]", "endpoints[0].addresses[0]"),
        ("endpoints: [{address: x}]", "endpoints[0].address"),
        ("ports: [{port: -1}]", "ports[0].port"),
        ("ports: [{port: 1, protocl: TCP}]", "ports[0].protocl"),
        ("ports: [{port: 1, protocol: tcp}]", "ports[0].protocol"),
        ("addressType: IPv5", "addressType"),
    ],
)
def test_what_is_wrong_in_a_slice_is_found(body, field):
    assert read(read_endpoint_slice, body)[1][0] == field


SUBSETS = """
subsets:
- addresses: [{ip: 10.0.0.1, targetRef: {kind: Pod, name: p}}]
  notReadyAddresses: [{ip: 10.0.0.2}]
  ports: [{name: http, port: 80}, {name: dns, port: 53, protocol: UDP}]
- addresses: [{ip: 10.0.0.2}]
  ports: [{port: 81}]
"""


def test_endpoints_are_the_slices_that_they_are_mirrored_into():
    found, faults = read(read_endpoints, SUBSETS)
    assert faults == []
    first, second = found.slices
    assert (first.service, first.ports, first.generated) == ("a", {"http": 80}, False)
    assert first.endpoints == (SliceEndpoint((A,), True, "p"), SliceEndpoint((B,), False))
    assert (second.ports, second.endpoints) == ({"": 81}, (SliceEndpoint((B,), True),))
    label = "name: a, labels: {endpointslice.kubernetes.io/skip-mirror: 'true'}"
    assert read(read_endpoints, SUBSETS, label)[0].slices == ()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ("subsets: [{addresses: [{}]}]", "subsets[0].addresses[0]"),
        ("subsets: [{addresses: [{ip: x}]}]", "subsets[0].addresses[0].ip"),
        ("subsets: [{adresses: []}]", "subsets[0].adresses"),
    ],
)
def test_what_is_wrong_in_endpoints_is_found(body, field):
    assert read(read_endpoints, body)[1][0] == field


@given(st.text("{}[]:, \nabport10.ddreseslin", max_size=80))
def test_any_text_is_read_or_has_faults(body):
    notes = Notes()
    root = compose(f"metadata: {{name: a}}\nendpoints: {body}\n", notes)
    if root is not None and root.is_mapping():
        read_endpoint_slice(root)
        read_endpoints(root)
