"""Whether a cluster can take a mesh: each thing that is looked at, well and not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.deploy.chart import render
from ztunnel.analyze.checks import Check, State
from ztunnel.analyze.nodes import NodeState
from ztunnel.analyze.preflight import RIGHTS, Cluster, cluster_checks

pytestmark = pytest.mark.timeout(60)

CUSTOM = ("authorizationpolicies.security.istio.io", "gateways.gateway.networking.k8s.io")


def node(name: str, labels: dict[str, str] | None = None, **said: str) -> dict[str, Any]:
    info = {"kernelVersion": "6.1.0-18-amd64", "operatingSystem": "linux", "architecture": "amd64", **said}
    return {"metadata": {"name": name, "labels": labels or {}}, "status": {"nodeInfo": info}}


def workload(kind: str, namespace: str, name: str, **labels: str) -> dict[str, Any]:
    return {"kind": kind, "metadata": {"name": name, "namespace": namespace, "labels": labels}}


def namespace(name: str, enforced: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {"pod-security.kubernetes.io/enforce": enforced}}}


GOOD = Cluster(
    "ztunnel-system",
    "v1.33.1+k3s1",
    nodes=(node("n1"), node("n2", architecture="arm64")),
    workloads=(workload("Deployment", "shop", "web", app="web"),),
    namespaces=(namespace("ztunnel-system", "privileged"), namespace("shop", "restricted")),
    definitions=CUSTOM,
    rights=dict.fromkeys(RIGHTS, True),
)
PROXY = NodeState("n1", "ztunnel-a", ready=True, restarts=0, version="0.1.0", up=3)


def bad(found: Cluster) -> list[Check]:
    return [each for each in cluster_checks(found) if each.state is not State.OK]


def test_a_cluster_that_can_take_it_is_all_well() -> None:
    checks = cluster_checks(GOOD)
    assert [each for each in checks if each.state is not State.OK] == []
    assert [(each.category, each.name, each.found) for each in checks] == [
        ("cluster", "version", "v1.33.1+k3s1"),
        ("cluster", CUSTOM[0], "there"),
        ("cluster", CUSTOM[1], "there"),
        ("nodes", "can run a proxy", "2 of 2"),
        ("your rights", "to install", "held"),
        ("other meshes", "in this cluster", "none is known"),
    ]


OTHERS = (
    workload("DaemonSet", "istio-system", "ztunnel", app="ztunnel"),
    workload("DaemonSet", "kube-system", "istio-cni-node"),
    workload("Deployment", "istio-system", "istiod-1-27", app="istiod"),
    workload("DaemonSet", "ztunnel-system", "ztunnel", **{"app.kubernetes.io/part-of": "ztunnel"}),
    workload("DaemonSet", "linkerd-cni", "linkerd-cni"),
)
ON = {"bpf-lb-sock": "true", "bpf-lb-sock-hostns-only": "false"}
CASES: dict[str, tuple[dict[str, Any], list[tuple[str, State, str, str]]]] = {
    "an old cluster": (
        {"version": "v1.28.9"},
        [("version", State.FAIL, "v1.28.9", "Kubernetes 1.29 or newer")],
    ),
    "no custom resources": (
        {"definitions": ()},
        [
            (CUSTOM[0], State.WARN, "not there", "policies cannot be written"),
            (CUSTOM[1], State.WARN, "not there", "waypoints cannot be asked for"),
        ],
    ),
    "a namespace that admits no privileged pods": (
        {"namespaces": (namespace("ztunnel-system", "baseline"),)},
        [
            (
                "namespace ztunnel-system",
                State.FAIL,
                "admits baseline pods only",
                "kubectl label --overwrite namespace ztunnel-system "
                "pod-security.kubernetes.io/enforce=privileged",
            )
        ],
    ),
    "nodes that cannot run a proxy": (
        {
            "nodes": (
                node("old", kernelVersion="5.15.0-1034-gke"),
                node("new", kernelVersion="5.19.0"),
                node("win", operatingSystem="windows", kernelVersion="10.0.17763"),
                node("ibm", architecture="s390x"),
                node("virtual", {"type": "virtual-kubelet"}, kernelVersion=""),
                node("fargate", {"eks.amazonaws.com/compute-type": "fargate"}),
            )
        },
        [
            ("old", State.FAIL, "Linux 5.15.0-1034-gke", "Linux 5.19 or newer"),
            ("win", State.WARN, "windows", "cannot be in the mesh"),
            ("ibm", State.FAIL, "s390x", "amd64 and arm64"),
            ("virtual", State.WARN, "no machine of its own", "cannot be in the mesh"),
            ("fargate", State.WARN, "no machine of its own", "cannot be in the mesh"),
        ],
    ),
    "rights that are missing": (
        {"rights": {**GOOD.rights, RIGHTS[0]: False, RIGHTS[-1]: False}},
        [
            (
                "to install",
                State.WARN,
                "missing: create namespaces, escalate clusterroles.rbac.authorization.k8s.io",
                "cluster-admin",
            )
        ],
    ),
    "other meshes": (
        {"workloads": OTHERS},
        [
            ("Istio's ztunnel", State.WARN, "DaemonSet istio-system/ztunnel", "left to it"),
            ("istio-cni-node", State.WARN, "DaemonSet kube-system/istio-cni-node", "left to it"),
            ("istiod", State.WARN, "Deployment istio-system/istiod-1-27", "--profile istiod"),
            ("linkerd-cni", State.WARN, "DaemonSet linkerd-cni/linkerd-cni", "stay out"),
        ],
    ),
    "a socket load balancer in pods": (
        {"cilium": ON},
        [("Cilium", State.FAIL, "ConfigMap kube-system/cilium-config", "socketLB.hostNamespaceOnly=true")],
    ),
    "one that is a part of Cilium's kube-proxy": (
        {"cilium": {"kube-proxy-replacement": "true"}},
        [("Cilium", State.FAIL, "ConfigMap kube-system/cilium-config", "socketLB.hostNamespaceOnly=true")],
    ),
    "one that is kept out of pods": ({"cilium": {**ON, "bpf-lb-sock-hostns-only": "true"}}, []),
    "Cilium without it": ({"cilium": {"bpf-lb-sock": "false", "kube-proxy-replacement": "false"}}, []),
    "what may not be looked at": (
        {"workloads": (), "unread": {"workloads": "kubectl get: forbidden"}},
        [("workloads", State.WARN, "kubectl get: forbidden", "somebody who may")],
    ),
}


@pytest.mark.parametrize(("change", "expected"), CASES.values(), ids=CASES.keys())
def test_what_is_in_the_way_is_said_with_what_to_do(
    change: dict[str, Any], expected: list[tuple[str, State, str, str]]
) -> None:
    found = bad(replace(GOOD, **change))
    assert [(each.name, each.state, each.found) for each in found] == [each[:3] for each in expected]
    for each, (*_, fix) in zip(found, expected, strict=True):
        assert fix in each.fix


def test_where_others_are_not_to_be_seen_nobody_says_that_there_are_none() -> None:
    checks = cluster_checks(replace(GOOD, workloads=(), unread={"workloads": "forbidden"}))
    assert "in this cluster" not in {each.name for each in checks}


def test_each_node_is_told_where_there_is_a_mesh() -> None:
    proxies = (
        PROXY,
        replace(PROXY, node="n2", pod="ztunnel-b", pending={"shop/web": "port 15008 is taken"}),
        replace(PROXY, node="n3", pod="ztunnel-c", ready=False, version="", detail=("pending: world",)),
    )
    nodes = tuple(node(f"n{number}") for number in range(1, 5))
    found = cluster_checks(replace(GOOD, nodes=nodes, proxies=proxies))
    assert [(each.name, each.state, each.found) for each in found if each.category == "node proxies"] == [
        ("n1", State.OK, "ready, 3 pods in the mesh"),
        ("n2", State.FAIL, "pods are not in the mesh: shop/web: port 15008 is taken"),
        ("n3", State.FAIL, "not ready: pending: world"),
        ("n4", State.WARN, "has none"),
    ]


def test_a_mesh_that_makes_no_proxies_says_why() -> None:
    why = "DaemonSet ztunnel-system/ztunnel cannot make its pods: quota"
    [found] = bad(replace(GOOD, refusal=why))
    assert (found.category, found.state, found.found) == ("node proxies", State.FAIL, why)
    assert bad(replace(GOOD, refusal=why, nodes=(node("n1"),), proxies=(PROXY,))) == []


def test_the_rights_are_for_what_the_chart_makes() -> None:
    """And for Helm's own Secret."""
    versions = ("gateway.networking.k8s.io/v1",)
    made = render("--include-crds", *(f"--api-versions={each}" for each in versions))
    kinds = {(each["apiVersion"].rpartition("/")[0], f"{each['kind'].lower()}") for each in made}
    held = {(each.group, each.resource) for each in RIGHTS if each.verb == "create"}
    assert [each for each in kinds if not {(each[0], f"{each[1]}{end}") for end in ("s", "es")} & held] == []
    assert ("", "secrets") in held
