"""Policies that judge who calls, at pods that a waypoint calls."""

from __future__ import annotations

import pytest

from tests.analyze.parts import AMBIENT, WEB, findings

SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop%s}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
"""
GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: wp, namespace: shop}
spec: {gatewayClassName: ztunnel-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
"""
POLICY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: shop}
spec: {%s}
"""
BEHIND = SERVICE % ", labels: {istio.io/use-waypoint: wp}"
CALLER = "{from: [{source: {principals: [cluster.local/ns/shop/sa/caller]}}]}"
SHOP = "{from: [{source: {namespaces: [shop]}}]}"
WAYPOINT = "{from: [{source: {principals: [cluster.local/ns/shop/sa/wp]}}]}"


def seen(spec: str, *texts: str) -> list[str]:
    found = findings(*(texts or (AMBIENT, BEHIND)), WEB, GATEWAY, POLICY % spec)
    return [one.message for one in found if one.code == "ZT0109"]


@pytest.mark.parametrize("selector", ["", "selector: {matchLabels: {app: web}}, "])
@pytest.mark.parametrize(
    ("action", "rule", "effect"),
    [
        ("ALLOW", CALLER, "it lets nothing through that comes from the waypoint"),
        ("ALLOW", SHOP, "it lets through whoever calls through the waypoint"),
        ("DENY", CALLER, "it refuses nobody who calls through the waypoint"),
        ("DENY", SHOP, "it refuses all that comes from the waypoint"),
    ],
)
def test_what_a_policy_makes_of_the_waypoint_is_said_before_it_is_attached(
    selector: str, action: str, rule: str, effect: str
) -> None:
    (message,) = seen(f"{selector}action: {action}, rules: [{rule}]")
    assert f"called by its waypoint, cluster.local/ns/shop/sa/wp: {effect}. " in message


def test_a_namespaces_label_attaches_as_well() -> None:
    used = AMBIENT.replace("labels: {", "labels: {istio.io/use-waypoint: wp, ")
    assert len(seen(f"rules: [{CALLER}]", used, SERVICE % "")) == 1
    assert seen(f"rules: [{CALLER}]", used, SERVICE % ", labels: {istio.io/use-waypoint: none}") == []


@pytest.mark.parametrize(
    "spec",
    [
        "rules: [{}]",
        "rules: [{to: [{operation: {ports: ['8080']}}]}]",
        f"rules: [{WAYPOINT}]",
        f"selector: {{matchLabels: {{app: other}}}}, rules: [{CALLER}]",
        f"targetRefs: [{{kind: Service, group: '', name: web}}], rules: [{CALLER}]",
    ],
)
def test_what_says_nothing_about_callers_is_as_before(spec: str) -> None:
    assert seen(spec) == []


def test_without_a_waypoint_callers_are_who_they_are() -> None:
    assert seen(f"rules: [{CALLER}]", AMBIENT, SERVICE % "") == []
