"""What a policy's targets are bound to."""

import pytest

from tests.control.policies.test_guard import ALL
from ztunnel.control.policies.policy_targets import Target
from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.inventory import Inventory, gather
from ztunnel.control.translation import Translator
from ztunnel.state.meta import Meta

SETTINGS = MeshSettings()
USE = "istio.io/use-waypoint: wp"
LOST = """apiVersion: v1
kind: Service
metadata: {name: lost, namespace: shop, labels: {istio.io/use-waypoint: gone}}
spec: {ports: [{port: 80}]}
"""
WEB, OUT = "name: web, namespace: shop, labels: {", "name: out, namespace: shop"
OBJECTS = ALL.replace(WEB, WEB + USE).replace(OUT, f"{OUT}, labels: {{{USE}}}") + LOST
ROOT = "AuthorizationPolicy must be in the root namespace istio-system when referencing a GatewayClass"


def bound(target, namespace="shop"):
    translator = Translator(SETTINGS)
    translator.update(gather({"x.yaml": OBJECTS}, Inventory()).objects)
    meta = Meta("p", namespace, {}, {})
    (found,) = translator._at_waypoints.targets.of("AuthorizationPolicy", meta, [target])
    return found


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("Service web", Target("shop/wp")),
        ("ServiceEntry out", Target("shop/wp")),
        ("Gateway wp", Target("shop/wp")),
        ("Service no", Target("", "TargetNotFound", "Service shop/no was not found")),
        ("ServiceEntry no", Target("", "TargetNotFound", "ServiceEntry shop/no was not found")),
        ("Gateway no", Target("", "TargetNotFound", "Gateway shop/no was not found")),
        ("Gateway other", Target("", "AncestorNotBound", "Gateway shop/other is no waypoint")),
        ("Service other", Target("", "AncestorNotBound", "Service shop/other is not bound to a waypoint")),
        (
            "Service lost",
            Target(
                "",
                "AncestorNotBound",
                'Service shop/lost is not bound to a waypoint: waypoint "shop/gone" is not ready',
            ),
        ),
        ("Pod x", Target("", "Invalid", "Pod x: no waypoint stands before that")),
        (
            "GatewayClass istio-waypoint",
            Target(
                "",
                "Invalid",
                ROOT,
            ),
        ),
    ],
)
def test_a_target_is_bound_or_it_is_said_why_not(target, expected):
    assert bound(target) == expected


def test_a_class_is_bound_for_the_root_namespace():
    for name in ("istio-waypoint", "ztunnel-waypoint"):
        assert bound(f"GatewayClass {name}", "istio-system") == Target(name)
    found = bound("GatewayClass istio", "istio-system")
    assert found == Target("", "TargetNotFound", "GatewayClass istio is none of waypoints")
