"""Claim 1, its end: what was installed leaves nothing, and pods that it redirected talk as before."""

from __future__ import annotations

import pytest

from tests.cluster.apps import Apps
from tests.cluster.cluster import Cluster, wait_until
from tests.cluster.conftest import Mesh

pytestmark = pytest.mark.timeout(300)

FREE_SECONDS = 10
GONE_SECONDS = 60
"""What carries open connections may take its time."""


def test_uninstalling_frees_every_pod_and_leaves_nothing(
    mesh: Mesh, cluster: Cluster, apps: Apps, nodes: tuple[str, str]
) -> None:
    apps.label("ambient")
    apps.start(apps.server("a", nodes[0]), apps.server("b", nodes[1]))
    [address, *_] = apps.addresses("b")
    assert apps.call("a", address)["pod"] == "b"
    definitions = cluster.call("get", "crd", "-o", "name")
    mesh.uninstall()
    wait_until("free", lambda: apps.call("a", address).get("pod") == "b", FREE_SECONDS)
    assert (
        cluster.get("namespace", apps.namespace)["metadata"]["labels"]["istio.io/dataplane-mode"] == "ambient"
    )
    assert cluster.call("get", "crd", "-o", "name") == definitions
    words = ("get", "all,role,rolebinding,networkpolicy", "-n", "ztunnel-system", "-o", "name")
    wait_until("nothing is left", lambda: not cluster.call(*words).split(), GONE_SECONDS)
    assert "ztunnel" not in cluster.call("get", "clusterrole,clusterrolebinding", "-o", "name")
    if cluster.kit:
        for node in cluster.nodes():
            assert (
                cluster.on_node(node, "sh", "-c", "ls /sys/fs/bpf/ztunnel 2>/dev/null || true").split() == []
            )
