"""New nodes: their taint goes when their proxy is ready, and pods come only then. Nodes that the DaemonSet
does not select any more: their pods are let go."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.cluster.apps import Apps
from tests.cluster.cluster import Cluster, is_ready, wait_until
from tests.cluster.conftest import SYSTEM, TAINT, Mesh
from tests.cluster.test_9_uninstall import pinned

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
    apps.start(apps.server("a", nodes[0]), apps.server("b", node))
    [address, *_] = apps.addresses("b")
    assert apps.call("a", address).get("pod") == "b"
    proxy = cluster.proxy_on(node)
    # No node is selected, as where one is given to another mesh: its pods talk as before.
    # Then as a node that is new: without a proxy, whose readiness takes the taint off, and then tainted.
    change = {"spec": {"template": {"spec": {"nodeSelector": {"ztunnel.io/none": "yes"}}}}}
    cluster.call("-n", SYSTEM, "patch", "daemonset", "ztunnel", "-p", json.dumps(change))
    wait_until("no proxy", lambda: proxy not in [each["metadata"]["name"] for each in mesh.pods("node")], 90)
    assert apps.call("a", address).get("pod") == "b"
    if cluster.kit:
        wait_until("nothing is pinned", lambda: not any(pinned(cluster, each) for each in nodes), 30)
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

    def opened() -> float:
        return mesh.count(node, "istio_tcp_connections_opened_total", reporter="destination")

    before = opened()
    assert apps.call("a", address).get("pod") == "b"
    # A page of metrics is kept for a second.
    wait_until("it is counted", lambda: opened() > before, 10, 0.3)
