"""Claim 1, its end: what was installed leaves nothing, and pods that it redirected talk as before."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import pytest

from tests.cluster.apps import PORT, Apps
from tests.cluster.cluster import Cluster, Object, wait_until
from tests.cluster.conftest import READY_SECONDS, SYSTEM, VALUES, Mesh
from tests.cluster.kit import kernel_objects
from tests.cluster.test_3_policy import allow

pytestmark = pytest.mark.timeout(300)

FREE_SECONDS = 10
GONE_SECONDS = 60
"""What carries open connections may take its time."""


HOLD = "holder.env.ZTUNNEL_HOLD_TIMEOUT=3s"
"""What is called while no proxy runs is refused after that, where a minute is the default."""
BRIEF = "holder.terminationGracePeriodSeconds=10"
"""A namespace is deleted half of the longest of these after its pods were told to end."""

BROKEN = {
    "crashes": {"args": ["node", "--no-such-flag"]},
    "is not there": {"image": "localhost/ztunnel-test/none:none", "imagePullPolicy": "Never"},
}


def leave_by_helm(mesh: Mesh) -> None:
    mesh.cluster.call_helm("uninstall", "ztunnel", "-n", SYSTEM)


def leave_by_daemon_set(mesh: Mesh) -> None:
    mesh.cluster.call("-n", SYSTEM, "delete", "daemonset", "ztunnel", "--wait=false")


def leave_by_namespace(mesh: Mesh) -> None:
    mesh.cluster.call("delete", "namespace", SYSTEM, "--wait=false")


def break_proxies(mesh: Mesh, change: Object) -> None:
    """As by a change that passes no rollout: each is replaced by one that does not run."""
    container = {"name": "proxy", **change}
    strategy = {"type": "OnDelete", "rollingUpdate": None}
    spec = {"updateStrategy": strategy, "template": {"spec": {"containers": [container]}}}
    cluster = mesh.cluster
    cluster.call("-n", SYSTEM, "patch", "daemonset", "ztunnel", "-p", json.dumps({"spec": spec}))
    cluster.call("-n", SYSTEM, "delete", "pods", "-l", "app.kubernetes.io/component=node", timeout=120)
    waiting = ("CrashLoopBackOff", "ErrImageNeverPull")
    wait_until("it does not run", lambda: all(reason(each) in waiting for each in mesh.pods("node")), 120)


@pytest.mark.parametrize(
    ("proxy", "leave"),
    [
        ("crashes", leave_by_helm),
        ("is not there", leave_by_daemon_set),
        ("crashes", leave_by_namespace),
        ("runs", leave_by_namespace),
    ],
)
def test_pods_are_freed_also_where_no_proxy_can_do_it(
    mesh: Mesh,
    cluster: Cluster,
    apps: Apps,
    nodes: tuple[str, str],
    proxy: str,
    leave: Callable[[Mesh], None],
) -> None:
    """What is left of an installation without its DaemonSet is brought back by the next one."""
    mesh.install(HOLD, BRIEF)
    apps.label("ambient")
    apps.start(
        *(apps.server(name, node) for pair in ("ab", "cd") for name, node in zip(pair, nodes, strict=True))
    )
    address = apps.addresses("b")[0]
    wait_until("in the mesh", lambda: apps.call("a", address).get("pod") == "b", 30)
    if proxy in BROKEN:
        break_proxies(mesh, BROKEN[proxy])
        refused = apps.call("a", address, seconds=90)  # as long as connections wait for the next proxy
        assert "error" in refused, refused
    if (proxy, leave) == ("crashes", leave_by_helm) and cluster.kit:
        free_by_hand(cluster, apps, nodes)
        assert "error" in apps.call("a", address), "the others stay captured"
    began = time.monotonic()
    leave(mesh)
    wait_until("free", lambda: apps.call("a", address, seconds=1).get("pod") == "b", FREE_SECONDS)
    print(f"{proxy}, {leave.__name__}: free after {time.monotonic() - began:.1f} s")
    # A proxy that runs gives what stands the time to end, and removes what is pinned then.
    seconds = FREE_SECONDS if proxy in BROKEN else GONE_SECONDS
    if cluster.kit:
        for node in cluster.nodes():
            wait_until(f"nothing is pinned on {node}", lambda node=node: not pinned(cluster, node), seconds)
    if leave is leave_by_namespace:
        words = ("wait", "--for=delete", f"namespace/{SYSTEM}", "--timeout=120s")
        cluster.call(*words, timeout=130, check=False)  # it may be gone already


def free_by_hand(cluster: Cluster, apps: Apps, nodes: tuple[str, str]) -> None:
    """Pods c and d, by `ztunnel detach` on their nodes, where no proxy runs."""
    address = apps.addresses("d")[0]
    assert "error" in apps.call("c", address)
    for pod, node in zip("cd", nodes, strict=True):
        words = ("-m", "ztunnel", "detach", "--node", node, "--pod", f"{apps.namespace}/{pod}")
        assert "1 freed now" in cluster.on_node(node, sys.executable, *words)
    wait_until("free", lambda: apps.call("c", address, seconds=1).get("pod") == "d", FREE_SECONDS)


def reason(pod: Object) -> str:
    """Why its proxy waits; empty where it does not."""
    found = [each for each in pod["status"].get("containerStatuses", []) if each["name"] == "proxy"]
    return str(found[0]["state"].get("waiting", {}).get("reason", "")) if found else ""


def pinned(cluster: Cluster, node: str) -> list[str]:
    return cluster.on_node(node, "sh", "-c", "ls /sys/fs/bpf/ztunnel 2>/dev/null || true").split()


def test_uninstalling_frees_every_pod_and_leaves_nothing(
    mesh: Mesh, cluster: Cluster, apps: Apps, nodes: tuple[str, str]
) -> None:
    """By the program's own commands: installed within a minute, brought to a version that is the same, and
    taken away."""
    before = kernel_objects() if cluster.kit else set()
    repository, tag = cluster.image
    values = (
        f"image.repository={repository},image.tag={tag}",
        f"control.replicas={len(set(nodes))}",
        *VALUES,
    )
    sets = [word for each in values for word in ("--set", each)]
    began = time.monotonic()
    done = cluster.ztunnel("install", *sets, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr + mesh.describe()
    took = time.monotonic() - began
    print(f"ztunnel install: ready after {took:.1f} s")
    assert took < READY_SECONDS
    apps.label("ambient")
    apps.start(apps.server("a", nodes[0]), apps.server("b", nodes[1]))
    cluster.apply(allow(apps, "default"))
    [address, *_] = apps.addresses("b")
    wait_until("it is allowed", lambda: apps.call("a", address).get("pod") == "b", FREE_SECONDS)
    proxies = {each["metadata"]["uid"] for each in mesh.pods("node")}
    done = cluster.ztunnel("upgrade", *sets, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {each["metadata"]["uid"] for each in mesh.pods("node")} == proxies
    if cluster.kit:
        assert kernel_objects() - before, "there is something to be left"
    definitions = cluster.call("get", "crd", "-o", "name")
    policy = cluster.get("authorizationpolicy.security.istio.io", "callers", apps.namespace)
    done = cluster.ztunnel("uninstall", timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    wait_until("free", lambda: apps.call("a", address).get("pod") == "b", FREE_SECONDS)
    kept = cluster.get("authorizationpolicy.security.istio.io", "callers", apps.namespace)
    assert (kept["metadata"]["uid"], kept["spec"]) == (policy["metadata"]["uid"], policy["spec"])
    assert (
        cluster.get("namespace", apps.namespace)["metadata"]["labels"]["istio.io/dataplane-mode"] == "ambient"
    )
    assert cluster.call("get", "crd", "-o", "name") == definitions
    words = ("get", "all,role,rolebinding,networkpolicy", "-n", "ztunnel-system", "-o", "name")
    wait_until("nothing is left", lambda: not cluster.call(*words).split(), GONE_SECONDS)
    assert "ztunnel" not in cluster.call("get", "clusterrole,clusterrolebinding", "-o", "name")
    if cluster.kit:
        for node in cluster.nodes():
            assert pinned(cluster, node) == []
        wait_until("the kernel has nothing of it", lambda: not kernel_objects() - before, GONE_SECONDS)
    look = "import sys; print(open('/proc/net/tcp').read(), open('/proc/net/tcp6').read())"
    listening = [line.split() for line in apps.python("b", look).splitlines() if " 0A " in line]
    assert {int(words[1].rpartition(":")[2], 16) for words in listening} == {PORT}
