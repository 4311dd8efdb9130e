"""Policies with targets: which services and entries tell their waypoint of them."""

import pytest

from tests.control.test_translation import translated
from ztunnel.control.settings import MeshSettings

GATEWAY = """apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: wp, namespace: shop}
spec:
  gatewayClassName: ztunnel-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
---
"""
ENTRY = """apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: out, namespace: shop}
spec: {hosts: [out.example], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS}
---
"""


def service(name, labels="", port=80):
    return (
        f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop, labels: {{{labels}}}}}\n"
        f"spec: {{clusterIP: None, ports: [{{port: {port}}}]}}\n---\n"
    )


def policy(targets, spec="action: DENY, rules: [{}]", namespace="shop", annotations=""):
    return (
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
        f"metadata: {{name: p, namespace: {namespace}, annotations: {{{annotations}}}}}\n"
        f"spec: {{{spec}, targetRefs: [{targets}]}}\n---\n"
    )


DOOR = """apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: other, namespace: shop}
spec: {gatewayClassName: istio, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
"""
ALL = (
    GATEWAY
    + DOOR
    + ENTRY
    + service("web")
    + service("other")
    + service("wp", port=15008)
    + service("door", "gateway.networking.k8s.io/gateway-name: wp", 15008)
    + service("gone", "gateway.networking.k8s.io/gateway-name: gone", 15008)
)


def guarded(text):
    found = translated(ALL + text, MeshSettings()).addresses.values()
    return {one.hostname.partition(".")[0] for one in found if getattr(one, "guards", ()) == ("shop/p",)}


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ("{kind: Service, name: web}", {"web"}),
        ("{kind: Service, name: web}, {kind: Service, name: other}", {"web", "other"}),
        ("{kind: ServiceEntry, name: out}", {"out"}),
        ("{kind: Gateway, name: wp}", {"wp", "door"}),
        ("{kind: Gateway, name: gone}", set()),
        ("{kind: Gateway, name: other}", set()),
        ("{kind: GatewayClass, name: ztunnel-waypoint}", set()),
        ("{kind: Pod, name: web}", set()),
    ],
)
def test_what_targets_name_is_guarded(targets, expected):
    assert guarded(policy(targets)) == expected


def test_those_of_a_class_are_in_the_root_namespace():
    text = policy("{kind: GatewayClass, name: ztunnel-waypoint}", namespace="istio-system")
    found = translated(ALL + text).addresses.values()
    assert {one.name for one in found if getattr(one, "guards", ()) == ("istio-system/p",)} == {"wp", "door"}


def test_every_action_is_the_waypoints_also_what_decides_nothing():
    target = "{kind: Service, name: web}"
    assert guarded(policy(target, "action: AUDIT")) == {"web"}
    assert guarded(policy(target, annotations='istio.io/dry-run: "true"')) == {"web"}
    assert guarded(policy(target, "action: CUSTOM, provider: {name: x}, rules: [{}]")) == {"web"}
    assert guarded(policy(target, "rules: []")) == {"web"}


@pytest.mark.parametrize(
    ("spec", "annotations", "decides"),
    [
        ("rules: [{}]", "", True),
        ("action: CUSTOM, provider: {name: x}, rules: [{}]", "", True),
        ("action: AUDIT", "", False),
        ("rules: [{}]", 'istio.io/dry-run: "true"', False),
    ],
)
def test_a_service_waits_for_its_waypoint_where_a_policy_decides(spec, annotations, decides):
    used = ALL.replace(
        "name: web, namespace: shop, labels: {",
        "name: web, namespace: shop, labels: {istio.io/use-waypoint: gone",
    )
    found = translated(used + policy("{kind: Service, name: web}", spec, annotations=annotations)).addresses
    (web,) = [one for one in found.values() if getattr(one, "name", "") == "web"]
    assert (web.waypoint is not None, web.guards) == (decides, ("shop/p",))
