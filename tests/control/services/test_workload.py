"""What the golden pairs (test_translation.py) do not show of pods."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from tests.control.services.test_service import service
from ztunnel.control.services.service import group_services
from ztunnel.control.services.workload import Surroundings, convert_pod, is_gateway, opted_in
from ztunnel.control.settings import MeshSettings
from ztunnel.model.workload import LeftTo, SameNode, TunnelProtocol, WorkloadKind
from ztunnel.state.kube import Namespace, Pod
from ztunnel.state.meta import Meta, Owner


def namespace(mode=None, same_node=None, forwards=None):
    labels = {"istio.io/dataplane-mode": mode} if mode else {}
    return Namespace(Meta("shop", "", labels, {}, same_node=same_node, forwards=forwards))


def pod(labels=None, owners=(), same_node=None, forwards=None, **fields):
    meta = Meta(
        "web-0", "shop", labels or {}, {}, owners=tuple(owners), same_node=same_node, forwards=forwards
    )
    given = {"phase": "", "addresses": (ip_address("10.0.0.1"),)} | fields
    return Pod(meta, "n1", "default", False, {}, given["addresses"], given["phase"], True)


def convert(one, around=None):
    return convert_pod(one, None, Surroundings(MeshSettings(), around))


@pytest.mark.parametrize(
    ("of_namespace", "of_pod", "enrolled"),
    [
        (None, None, False),
        ("ambient", None, True),
        ("ambient", "none", False),
        ("ambient", "strange", True),
        ("none", "ambient", True),
        (None, "ambient", True),
        ("strange", None, False),
    ],
)
def test_the_pods_own_label_wins(of_namespace, of_pod, enrolled):
    labels = {"istio.io/dataplane-mode": of_pod} if of_pod else {}
    assert opted_in(pod(labels), namespace(of_namespace)) is enrolled


ISTIO = {"ambient.istio.io/redirection": "enabled"}
OURS = {**ISTIO, "ztunnel.io/redirection": "enabled"}
SIDECAR = {"sidecar.istio.io/status": "{}"}


@pytest.mark.parametrize(
    ("annotations", "mode", "left", "protocol", "enrolled"),
    [
        ({}, "ambient", LeftTo.NOBODY, TunnelProtocol.HBONE, True),
        (OURS, "ambient", LeftTo.NOBODY, TunnelProtocol.HBONE, True),
        (OURS, None, LeftTo.NOBODY, TunnelProtocol.NONE, False),
        (SIDECAR, "ambient", LeftTo.SIDECAR, TunnelProtocol.NONE, False),
        (SIDECAR, None, LeftTo.NOBODY, TunnelProtocol.NONE, False),
        (ISTIO, "ambient", LeftTo.ISTIO, TunnelProtocol.HBONE, False),
        (ISTIO, None, LeftTo.NOBODY, TunnelProtocol.HBONE, False),
        ({**ISTIO, **SIDECAR}, "ambient", LeftTo.SIDECAR, TunnelProtocol.HBONE, False),
        ({"ambient.istio.io/redirection": "pending"}, "ambient", LeftTo.ISTIO, TunnelProtocol.HBONE, False),
        ({"ambient.istio.io/redirection": "disabled"}, "ambient", LeftTo.NOBODY, TunnelProtocol.HBONE, True),
    ],
)
def test_a_pod_that_others_serve_is_left_to_them(annotations, mode, left, protocol, enrolled):
    """That of Istio's ambient mesh is called over HBONE all the same."""
    one = pod()
    made = convert(replace(one, meta=replace(one.meta, annotations=annotations)), namespace(mode))
    assert (made.left_to, made.protocol, made.enrolled) == (left, protocol, enrolled)


def test_a_pod_with_its_node_s_network_is_nobody_s():
    one = replace(pod(), host_network=True)
    made = convert(replace(one, meta=replace(one.meta, annotations=ISTIO)), namespace("ambient"))
    assert (made.left_to, made.protocol) == (LeftTo.NOBODY, TunnelProtocol.NONE)


STATIC = {"kubernetes.io/config.mirror": "24dc7a2d", "kubernetes.io/config.hash": "24dc7a2d"}


@pytest.mark.parametrize(
    ("annotations", "uid"),
    [({}, "0e78bcdb"), (STATIC, "24dc7a2d"), ({"kubernetes.io/config.hash": "24dc7a2d"}, "0e78bcdb")],
)
def test_the_kubelet_knows_a_static_pod_by_its_hash(annotations, uid):
    one = pod()
    made = convert(replace(one, meta=replace(one.meta, uid="0e78bcdb", annotations=annotations)))
    assert made.pod_uid == uid


def test_a_pod_of_a_namespace_that_nobody_described_is_not_enrolled():
    assert not opted_in(pod(), None)


@pytest.mark.parametrize(
    ("fields", "changes"),
    [
        ({"phase": "Succeeded"}, {}),
        ({"phase": "Failed"}, {}),
        ({"addresses": ()}, {"node": ""}),
        ({"addresses": ()}, {"host_network": True}),
    ],
)
def test_pods_that_cannot_be_reached_are_none(fields, changes):
    assert convert(replace(pod(**fields), **changes)) is None


def test_a_pod_that_starts_is_known_to_its_node_and_serves_nobody():
    """Its namespace may be there before the API knows its address."""
    web = service("web", {"app": "web"})
    around = Surroundings(MeshSettings(), namespace("ambient"), group_services([web], {}))
    made = convert_pod(pod({"app": "web"}), None, around)
    assert made.healthy
    assert made.services
    starting = convert_pod(pod({"app": "web"}, addresses=()), None, around)
    assert starting.enrolled
    assert (starting.addresses, starting.services) == ((), {})
    assert not starting.healthy
    assert not starting.draining


@pytest.mark.parametrize(
    ("of_namespace", "of_pod", "expected"),
    [
        (None, None, SameNode.AUTO),
        (SameNode.DIRECT, None, SameNode.DIRECT),
        (SameNode.DIRECT, SameNode.AUTO, SameNode.AUTO),
        (SameNode.MTLS, SameNode.DIRECT, SameNode.MTLS),
        (SameNode.DIRECT, SameNode.MTLS, SameNode.MTLS),
    ],
)
def test_tls_at_either_wins(of_namespace, of_pod, expected):
    assert convert(pod(same_node=of_pod), namespace(same_node=of_namespace)).same_node is expected


@pytest.mark.parametrize(
    ("of_namespace", "of_pod", "expected"),
    [(None, None, False), (True, None, True), (True, False, False), (False, True, True), (None, True, True)],
)
def test_the_pods_own_word_on_forwarding_wins(of_namespace, of_pod, expected):
    assert convert(pod(forwards=of_pod), namespace(forwards=of_namespace)).forwards is expected


@pytest.mark.parametrize(
    ("kind", "name", "labels", "expected"),
    [
        ("ReplicaSet", "web-abc", {"pod-template-hash": "abc"}, (WorkloadKind.DEPLOYMENT, "web")),
        ("ReplicaSet", "web-5d4f8c7b9", {}, (WorkloadKind.DEPLOYMENT, "web")),
        ("ReplicaSet", "web", {}, (WorkloadKind.POD, "web")),
        ("Deployment", "web", {}, (WorkloadKind.DEPLOYMENT, "web")),
        ("Job", "report-28391040", {}, (WorkloadKind.CRONJOB, "report")),
        ("Job", "report-2839", {}, (WorkloadKind.JOB, "report-2839")),
        ("StatefulSet", "db", {}, (WorkloadKind.POD, "db")),
        ("Node", "kn1", {}, (WorkloadKind.POD, "web-0")),
    ],
)
def test_the_owner_is_told_by_its_name(kind, name, labels, expected):
    made = convert(pod(labels, [Owner("Other", "x", False), Owner(kind, name, True)]))
    assert (made.kind, made.workload_name) == expected


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({}, False),
        ({"gateway.networking.k8s.io/gateway-name": "front"}, True),
        ({"gateway.networking.k8s.io/gateway-name": "wp", "networking.istio.io/tunnel": "http"}, False),
        ({"ztunnel.io/ingress": "true"}, True),
        ({"ztunnel.io/ingress": "false"}, False),
    ],
)
def test_a_pod_of_a_gateway_that_is_no_waypoint_brings_calls_from_outside(labels, expected):
    assert is_gateway(labels) is expected
