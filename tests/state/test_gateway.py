"""Gateways are read as far as the mesh needs them, and those of others are left alone."""

import pytest

from ztunnel.state.gateway import (
    Infrastructure,
    LabelSelector,
    Listener,
    Requirement,
    read_gateway,
    read_gateway_class,
    read_reference_grant,
)
from ztunnel.state.manifest import Notes, compose


def read(reader, text):
    notes = Notes()
    found = reader(compose(f"metadata: {{name: a, namespace: shop}}\n{text}\n", notes))
    return found, [fault.field for fault in notes.faults]


def test_a_waypoint_is_read():
    gateway, faults = read(
        read_gateway,
        """
spec:
  gatewayClassName: istio-waypoint
  infrastructure: {parametersRef: {}}
  listeners:
  - {name: mesh, port: 15008, protocol: HBONE, allowedRoutes: {namespaces: {from: Selector, selector: {
      matchLabels: {a: b}, matchExpressions: [{key: c, operator: In, values: [d]}]}}}}
  - {name: other, port: 80, protocol: HTTP, hostname: x, tls: {mode: Terminate}}
status: {addresses: [{type: Hostname, value: wp.shop.svc.cluster.local}, {value: 10.96.0.9}]}
""",
    )
    assert faults == []
    selector = LabelSelector({"a": "b"}, (Requirement("c", "In", ("d",)),))
    assert gateway.listeners == (
        Listener(15008, "HBONE", "Selector", selector, name="mesh"),
        Listener(80, "HTTP", name="other"),
    )
    assert gateway.addresses == (("Hostname", "wp.shop.svc.cluster.local"), ("IPAddress", "10.96.0.9"))
    assert (gateway.class_name, gateway.meta.full_name) == ("istio-waypoint", ("shop", "a"))


def test_what_is_said_of_the_objects_made_for_it_is_read():
    gateway, faults = read(
        read_gateway,
        """
spec:
  gatewayClassName: ztunnel-waypoint
  addresses: [{type: Hostname, value: own.example}]
  infrastructure:
    labels: {a: b}
    annotations: {c: "1"}
    parametersRef: {group: "", kind: ConfigMap, name: more}
""",
    )
    assert faults == []
    assert gateway.infrastructure == Infrastructure({"a": "b"}, {"c": "1"}, "ConfigMap more")
    assert gateway.by_hand


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("", ""),
        ("spec: {}", "spec"),
        ("spec: {gatewayClasName: x}", "spec.gatewayClasName"),
        ("spec: {gatewayClassName: x, something: new}", None),
        ("spec: {gatewayClassName: x, listeners: [{port: 0}]}", "spec.listeners[0].port"),
        (
            "spec: {gatewayClassName: x, listeners: [{port: 1, allowedRoutes: {namespaces: {from: Any}}}]}",
            "spec.listeners[0].allowedRoutes.namespaces.from",
        ),
        (
            "spec: {gatewayClassName: x, listeners: [{port: 1, allowedRoutes: {namespaces: "
            "{from: Selector}}}]}",
            "spec.listeners[0].allowedRoutes.namespaces",
        ),
    ],
)
def test_what_makes_no_sense_is_at_its_field(text, field):
    assert (read(read_gateway, text)[1] or [None])[0] == field


def test_classes_and_grants_are_read():
    found, faults = read(read_gateway_class, "spec: {controllerName: a/b, description: x}")
    assert (found.controller, found.meta.namespace, faults) == ("a/b", "", [])
    assert read(read_gateway_class, "spec: {}")[1] == [""]
    grant, faults = read(
        read_reference_grant,
        "spec: {from: [{group: g, kind: K, namespace: n}], to: [{group: '', kind: Secret}]}",
    )
    assert (grant.sources, grant.targets, faults) == ((("g", "K", "n"),), (("", "Secret", ""),), [])
    assert read(read_reference_grant, "spec: {from: []}")[1] == [""]


@pytest.mark.parametrize(
    ("requirement", "admitted"),
    [
        (Requirement("a", "In", ("b", "c")), [False, True, False]),
        (Requirement("a", "NotIn", ("b",)), [True, False, True]),
        (Requirement("a", "Exists", ()), [False, True, True]),
        (Requirement("a", "DoesNotExist", ()), [True, False, False]),
    ],
)
def test_requirements_are_those_of_kubernetes(requirement, admitted):
    assert [requirement.admits(labels) for labels in ({}, {"a": "b"}, {"a": "x"})] == admitted


def test_a_selector_needs_all_and_an_empty_one_nothing():
    assert LabelSelector({}).selects({})
    both = LabelSelector({"a": "b"}, (Requirement("c", "Exists", ()),))
    assert both.selects({"a": "b", "c": "d"})
    assert not both.selects({"a": "b"})
    assert not both.selects({"c": "d"})
