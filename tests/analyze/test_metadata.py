"""Labels and annotations that say how something is in the mesh: in the wrong place, of an unknown value."""

from __future__ import annotations

import pytest

from tests.analyze.parts import AMBIENT, WEB, codes, findings

MODE = "istio.io/dataplane-mode"
GATEWAY = "gateway.networking.k8s.io/v1"


def thing(kind: str, meta: str, version: str = "v1") -> str:
    return f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: x, namespace: shop, {meta}}}\n"


SERVICE = """
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: shop, {meta}}}
spec: {{selector: {{app: web}}, ports: [{{name: http, port: 80}}]}}
"""


@pytest.mark.parametrize(
    ("text", "what", "said"),
    [
        (
            f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: bank, annotations: {{{MODE}: ambient}}}}\n",
            "Namespace bank",
            f"{MODE} does nothing here: it is a label",
        ),
        (
            WEB.replace(
                "name: web, namespace: shop}", f"name: web, namespace: shop, labels: {{{MODE}: none}}}}"
            ),
            "Deployment shop/web",
            f"the label {MODE} does nothing here: pods take it from spec.template.metadata.labels",
        ),
        (
            WEB.replace("metadata: {labels:", f"metadata: {{annotations: {{{MODE}: none}}, labels:"),
            "Deployment shop/web",
            f"{MODE} does nothing here: it is a label",
        ),
        (
            SERVICE.format(meta=f"labels: {{{MODE}: none}}"),
            "Service shop/web",
            f"the label {MODE} does nothing here: it is for Namespace, Pod",
        ),
        (
            SERVICE.format(meta="annotations: {istio.io/use-waypoint: w}"),
            "Service shop/web",
            "istio.io/use-waypoint does nothing here: it is a label",
        ),
        (
            WEB.replace(
                "name: web, namespace: shop}",
                "name: web, namespace: shop, annotations: {ztunnel.io/same-node: mtls}}",
            ),
            "Deployment shop/web",
            "the annotation ztunnel.io/same-node does nothing here: pods take it from "
            "spec.template.metadata.annotations",
        ),
        (
            WEB.replace("labels: {app: web,", "labels: {ztunnel.io/same-node: mtls, app: web,"),
            "Deployment shop/web",
            "ztunnel.io/same-node does nothing here: it is an annotation",
        ),
        (
            SERVICE.format(meta='annotations: {ztunnel.io/replicas: "2"}'),
            "Service shop/web",
            "the annotation ztunnel.io/replicas does nothing here: it is for Gateway",
        ),
    ],
)
def test_what_stands_in_the_wrong_place_does_nothing_and_that_is_said(
    text: str, what: str, said: str
) -> None:
    others = [each for each in (AMBIENT, WEB) if "Deployment" not in what or each is AMBIENT]
    found = [each for each in findings(*others, text) if each.code == "IST0107"]
    assert [(each.what, each.message) for each in found] == [(what, said)]


def test_what_stands_where_it_belongs_is_not_said() -> None:
    template = WEB.replace(
        "labels: {app: web,", f"labels: {{{MODE}: none, istio.io/use-waypoint: none, app: web,"
    )
    template = template.replace("{labels:", "{annotations: {ztunnel.io/same-node: mtls}, labels:", 1)
    service = SERVICE.format(
        meta="labels: {istio.io/use-waypoint: none, istio.io/ingress-use-waypoint: 'true'}"
    )
    assert [each for each in codes(AMBIENT, template, service) if each[0] in ("IST0107", "IST0125")] == []


def test_a_namespace_whose_pods_are_in_no_mesh_is_said() -> None:
    labelled = AMBIENT.replace("name: shop", "name: kube-system")
    (one,) = [each for each in findings(AMBIENT, labelled, WEB) if each.code == "IST0107"]
    assert one.what == "Namespace kube-system"
    assert one.message == f"the label {MODE} does nothing here: pods of kube-system are in no mesh"


@pytest.mark.parametrize("value", ["enabled", "Ambient", '"true"', '""'])
def test_a_mode_that_nobody_knows_is_said(value: str) -> None:
    namespace = AMBIENT.replace("ambient", value)
    pod = WEB.replace("labels: {app: web,", f"labels: {{{MODE}: {value}, app: web,")
    found = [(each.code, each.what) for each in findings(namespace, pod) if each.code == "IST0125"]
    assert found == [("IST0125", "Deployment shop/web"), ("IST0125", "Namespace shop")]
    (said,) = {each.message.partition(": ")[2] for each in findings(namespace, pod) if each.code == "IST0125"}
    assert said == f"{MODE} is ambient or none, not {value.strip(chr(34))!r}: it does nothing"


@pytest.mark.parametrize(
    ("labels", "is_said"),
    [
        ("istio-injection: enabled", True),
        ("istio.io/rev: canary", True),
        ("istio-injection: disabled", False),
        ("team: web", False),
    ],
)
def test_a_namespace_that_two_meshes_want_is_said(labels: str, is_said: bool) -> None:
    """istio/istio pull request 46348."""
    both = AMBIENT.replace("ambient}", f"ambient, {labels}}}")
    assert (("IST0123", "Namespace shop") in codes(both, WEB)) is is_said
    alone = AMBIENT.replace(f"{MODE}: ambient", labels)
    assert "IST0123" not in {code for code, _ in codes(alone, WEB)}


def test_labels_for_telemetry_are_missed_where_the_template_says_that_its_pods_are_in_the_mesh() -> None:
    """What a Deployment says of itself says nothing of its pods."""
    bare = WEB.replace(", version: v1", "")
    own = bare.replace(
        "name: web, namespace: shop}", f"name: web, namespace: shop, labels: {{{MODE}: none}}}}"
    )
    assert ("ZT0104", "Deployment shop/web") in codes(AMBIENT, own)
    out = bare.replace("labels: {app: web}}", f"labels: {{app: web, {MODE}: none}}}}")
    assert "ZT0104" not in {code for code, _ in codes(AMBIENT, out)}
