"""Services, pods and kinds that are of no meaning here."""

from __future__ import annotations

import pytest

from tests.analyze.parts import AMBIENT, OUTSIDE, WEB, codes, findings

SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [%s]}
"""


@pytest.mark.parametrize(
    ("port", "found"),
    [
        ("{port: 80, name: http}", False),
        ("{port: 80, name: http-web}", False),
        ("{port: 80, name: web}", True),
        ("{port: 80, name: httpweb}", True),
        ("{port: 80}", True),
        ("{port: 80, appProtocol: http}", False),
        ("{port: 53, protocol: UDP}", False),
    ],
)
def test_a_port_says_its_protocol(port: str, found: bool) -> None:
    expected = [("IST0118", "Service shop/web")] if found else []
    assert codes(AMBIENT, WEB, SERVICE % port) == expected


def test_labels_for_telemetry_are_missed_in_the_mesh_only() -> None:
    bare = WEB.replace(", version: v1", "")
    assert codes(AMBIENT, bare) == [("ZT0104", "Deployment shop/web")]
    assert codes(AMBIENT, OUTSIDE.replace(", version: v1", "")) == []
    nameless = (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: shop}\nspec: {containers: [{name: c}]}\n"
    )
    (found,) = findings(AMBIENT, nameless)
    assert "without the label app and the label version" in found.message


def test_a_pod_that_something_made_is_told_of_that() -> None:
    owned = (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: shop, ownerReferences: "
        "[{apiVersion: apps/v1, kind: ReplicaSet, name: web, uid: u}]}\nspec: {containers: [{name: c}]}\n"
    )
    assert codes(AMBIENT, owned) == []


@pytest.mark.parametrize(
    ("group", "kind"),
    [
        ("networking.istio.io/v1alpha3", "EnvoyFilter"),
        ("networking.istio.io/v1", "Sidecar"),
        ("extensions.istio.io/v1alpha1", "WasmPlugin"),
    ],
)
def test_what_only_sidecars_read_does_nothing(group: str, kind: str) -> None:
    one = f"apiVersion: {group}\nkind: {kind}\nmetadata: {{name: x, namespace: shop}}\n"
    assert codes(AMBIENT, WEB, one) == [("ZT0105", f"{kind} shop/x")]


def test_a_sidecar_keeps_pods_out() -> None:
    injected = WEB.replace(
        "metadata: {labels:", 'metadata: {annotations: {sidecar.istio.io/status: "{}"}, labels:'
    )
    assert ("ZT0106", "Deployment shop/web") in codes(AMBIENT, injected)


def test_a_waypoint_that_is_not_there_is_found() -> None:
    labelled = AMBIENT.replace("ambient}", "ambient, istio.io/use-waypoint: way}")
    assert codes(labelled, WEB) == [("IST0101", "Namespace shop")]
    gateway = (
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: way, namespace: %s}\n"
        "spec: {gatewayClassName: istio-waypoint, listeners: [{port: 15008, protocol: HBONE, "
        "allowedRoutes: {namespaces: {from: All}}}]}\n"
    )
    assert codes(labelled, WEB, gateway % "shop") == []
    elsewhere = labelled.replace("way}", "way, istio.io/use-waypoint-namespace: infra}")
    assert codes(elsewhere, WEB, gateway % "shop") == [("IST0101", "Namespace shop")]
    assert codes(elsewhere, WEB, gateway % "infra") == []


ENTRY = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: e, namespace: shop}
spec: {hosts: [a.example], %s ports: [{number: 443, name: tls, protocol: TLS}]}
"""
MACHINE = """
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: vm, namespace: shop}
spec: {address: 192.0.2.1, labels: {app: vm}}
"""


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("addresses: [198.51.100.7],", []),
        ("", [("IST0134", "ServiceEntry shop/e")]),
        ("addresses: [198.51.100.7], workloadSelector: {labels: {app: vm}}, resolution: STATIC,", []),
        ("addresses: [198.51.100.7], workloadSelector: {labels: {app: web}}, resolution: STATIC,", []),
        (
            "addresses: [198.51.100.7], workloadSelector: {labels: {app: other}}, resolution: STATIC,",
            [("IST0127", "ServiceEntry shop/e")],
        ),
        ("addresses: [127.0.0.1], resolution: DNS,", [("ZT0100", "ServiceEntry shop/e")]),
    ],
)
def test_a_service_entry_can_be_told_and_is_served(spec: str, expected: list[tuple[str, str]]) -> None:
    assert codes(AMBIENT, WEB, MACHINE, ENTRY % spec) == expected
