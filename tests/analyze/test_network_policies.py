"""NetworkPolicies that shut the mesh's own port."""

from __future__ import annotations

import pytest

from tests.analyze.parts import AMBIENT, OUTSIDE, WEB, codes, findings


def policy(spec: str, name: str = "np", namespace: str = "shop") -> str:
    return (
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n"
        f"metadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )


@pytest.mark.parametrize(
    "spec",
    [
        "{podSelector: {}, ingress: [{ports: [{port: 8080}]}]}",
        "{podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: http}]}]}",
        "{podSelector: {}, ingress: [{ports: [{port: 15008, protocol: UDP}, {port: 1}]}]}",
        "{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 5432}]}]}",
        "{podSelector: {}, egress: [{ports: [{port: 80}]}], ingress: [{}]}",
        "{podSelector: {matchExpressions: [{key: app, operator: In, values: [web]}]}, "
        "ingress: [{ports: [{port: 1, endPort: 15007}]}]}",
    ],
)
def test_one_that_names_ports_and_not_ours_is_found(spec: str) -> None:
    (found,) = findings(AMBIENT, WEB, policy(spec))
    assert (found.code, found.what) == ("ZT0103", "NetworkPolicy shop/np")
    assert "TCP 15008" in found.message
    assert "shop/web-" in found.message


@pytest.mark.parametrize(
    "spec",
    [
        "{podSelector: {}, ingress: [{ports: [{port: 8080}, {port: 15008}]}]}",
        "{podSelector: {}, ingress: [{ports: [{port: 8080}]}, {from: [{podSelector: {}}]}]}",
        "{podSelector: {}, ingress: [{ports: [{port: 15000, endPort: 15100}]}]}",
        "{podSelector: {}, ingress: [{ports: [{protocol: TCP}]}]}",
        "{podSelector: {}, ingress: []}",
        "{podSelector: {matchLabels: {app: other}}, ingress: [{ports: [{port: 8080}]}]}",
        "{podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [web]}]}, "
        "ingress: [{ports: [{port: 8080}]}]}",
        "{podSelector: {matchExpressions: [{key: app, operator: DoesNotExist}]}, "
        "ingress: [{ports: [{port: 8080}]}]}",
        "{podSelector: {}, ingress: [{ports: [{port: 53, protocol: UDP}]}]}",
    ],
)
def test_one_that_admits_our_port_or_shuts_everything_is_not(spec: str) -> None:
    assert codes(AMBIENT, WEB, policy(spec)) == []


def test_policies_of_one_pod_add_up() -> None:
    narrow = policy("{podSelector: {}, ingress: [{ports: [{port: 8080}]}]}")
    ours = policy("{podSelector: {}, ingress: [{ports: [{port: 15008}]}]}", "ours")
    assert codes(AMBIENT, WEB, narrow, ours) == []


def test_pods_outside_of_the_mesh_need_no_port() -> None:
    narrow = policy("{podSelector: {}, ingress: [{ports: [{port: 8080}]}]}", namespace="bank")
    assert codes(AMBIENT, OUTSIDE, narrow) == []
