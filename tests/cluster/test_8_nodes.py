"""New nodes: their taint goes when their proxy is ready, and pods come only then."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.cluster.apps import Apps
from tests.cluster.cluster import Cluster, is_ready, wait_until
from tests.cluster.conftest import SYSTEM, TAINT, Mesh

pytestmark = pytest.mark.timeout(300)


def taints(cluster: Cluster, node: str) -> list[str]:
    return [each["key"] for each in cluster.get("node", node)["spec"].get("taints", [])]


@pytest.fixture
def untainted(cluster: Cluster) -> Iterator[None]:
    """No node keeps it."""
    yield
    for node in cluster.nodes():
        cluster.call("taint", "node", node, f"{TAINT}-", check=False)


def test_a_node_takes_pods_once_its_proxy_is_ready(
    mesh: Mesh, cluster: Cluster, apps: Apps, nodes: tuple[str, str], untainted: None
) -> None:
    node = nodes[1]
    apps.label("ambient")
    proxy = cluster.proxy_on(node)
    # As a node that is new: without a proxy, whose readiness takes the taint off, and then tainted.
    change = {"spec": {"template": {"spec": {"nodeSelector": {"ztunnel.io/none": "yes"}}}}}
    cluster.call("-n", SYSTEM, "patch", "daemonset", "ztunnel", "-p", json.dumps(change))
    wait_until("no proxy", lambda: proxy not in [each["metadata"]["name"] for each in mesh.pods("node")], 90)
    cluster.call("taint", "node", node, f"{TAINT}:NoSchedule", "--overwrite")
    server = apps.server("new", node)
    server["spec"]["nodeSelector"] = {"kubernetes.io/hostname": server["spec"].pop("nodeName")}
    cluster.apply(server)
    wait_until(
        "the scheduler keeps it away",
        lambda: any(
            TAINT in each.get("message", "") for each in apps.pod("new")["status"].get("conditions", [])
        ),
        30,
    )
    assert taints(cluster, node) == [TAINT]
    change["spec"]["template"]["spec"]["nodeSelector"] = {"ztunnel.io/none": None}  # type: ignore[dict-item]
    cluster.call("-n", SYSTEM, "patch", "daemonset", "ztunnel", "-p", json.dumps(change))
    wait_until("the taint goes", lambda: not taints(cluster, node), 120)
    assert is_ready(cluster.get("pod", cluster.proxy_on(node), SYSTEM))
    wait_until("it runs", lambda: is_ready(apps.pod("new")), 60)
    came = cluster.get("pod", cluster.proxy_on(node), SYSTEM)
    times = {each["type"]: each["lastTransitionTime"] for each in came["status"]["conditions"]}
    print("a proxy that comes to a node:", came["status"]["startTime"], times)
    mesh.wait()
