"""Claim 1: ready within a minute, by containers that have no more than they need, and say what they lack."""

from __future__ import annotations

import pytest

from tests.cluster.apps import Apps
from tests.cluster.cluster import Cluster, Object, wait_until
from tests.cluster.conftest import READY_SECONDS, SYSTEM, Mesh
from ztunnel.kernel.capability import LOADER, PROXY

pytestmark = pytest.mark.timeout(1800)

BYTES = 400_000_000
COMPILER = ("libLLVM", "libclang", "libbcc", "/bcc/__init__.py", "linux-headers")


def test_it_is_ready_in_under_a_minute(mesh: Mesh) -> None:
    print(f"ready after {mesh.ready_seconds:.1f} s; {mesh.cluster.took}")
    assert mesh.ready_seconds < READY_SECONDS


def test_every_node_has_a_proxy_and_nothing_was_restarted(mesh: Mesh) -> None:
    pods = mesh.pods("node")
    assert sorted(each["spec"]["nodeName"] for each in pods) == mesh.cluster.nodes()
    for each in [*pods, *mesh.pods("control")]:
        assert [one["restartCount"] for one in each["status"]["containerStatuses"]] == [0], mesh.describe()


def test_the_images_are_small_and_the_proxys_has_no_compiler(mesh: Mesh) -> None:
    repository, tag = mesh.cluster.image
    sizes = {
        name: image["sizeBytes"]
        for each in mesh.cluster.get("nodes")["items"]
        for image in each["status"].get("images") or ()
        for name in image.get("names") or ()
    }
    assert sizes[f"{repository}-loader:{tag}"] < BYTES, sizes
    assert sizes[f"{repository}:{tag}"] < BYTES / 2, sizes
    pod = mesh.pods("node")[0]["metadata"]["name"]
    # Some directories it may not read: it has no right to pass over their modes.
    find = ["find", "/usr", "/opt", "/lib", "-xdev"]
    files = mesh.cluster.call("-n", SYSTEM, "exec", pod, "--", *find, check=False)
    assert "/opt/ztunnel/bin/ztunnel" in files
    assert not [line for line in files.splitlines() if any(each in line for each in COMPILER)]


def test_the_proxy_has_exactly_what_it_asks_for(mesh: Mesh) -> None:
    pod = mesh.pods("node")[0]["metadata"]["name"]
    status = mesh.cluster.call(
        "-n", SYSTEM, "exec", pod, "--", "grep", "-E", "CapEff|Seccomp:", "/proc/self/status"
    )
    held = dict(line.split(":\t") for line in status.splitlines())
    assert int(held["CapEff"], 16) == sum(1 << each for each in PROXY)
    assert held["Seccomp"] == "2"  # a filter
    for path in ("/usr/x", "/opt/x", "/sys/fs/cgroup/x"):
        done = mesh.cluster.call("-n", SYSTEM, "exec", pod, "--", "touch", path, check=False)
        assert "Read-only file system" in done


def lacking(mesh: Mesh, apps: Apps, container: str, change: Object) -> str:
    """What that container of the node proxy's pod says, changed like this, when it has ended."""
    [node, *_] = mesh.cluster.nodes()
    template = mesh.cluster.get("daemonset", "ztunnel", SYSTEM)["spec"]["template"]["spec"]
    [one] = [
        each for each in [*template["initContainers"], *template["containers"]] if each["name"] == container
    ]
    one = {**one, **change}
    one.pop("readinessProbe", None)
    # Of another name, since this must not touch the node's own.
    one["env"] = [each for each in one["env"] if each["name"] != "NODE_NAME"] + [
        {"name": "NODE_NAME", "value": "none"}
    ]
    volumes = {each["name"] for each in one["volumeMounts"]}
    spec = {
        "nodeName": node,
        "restartPolicy": "Never",
        "hostPID": True,
        "containers": [one],
        "volumes": [each for each in template["volumes"] if each["name"] in volumes],
    }
    for each in spec["volumes"]:
        if "configMap" in each:
            each["configMap"]["optional"] = True
    name = f"lacking-{container}"
    mesh.cluster.call("-n", apps.namespace, "delete", "pod", name, "--ignore-not-found")
    mesh.cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": apps.namespace},
            "spec": spec,
        }
    )
    wait_until(
        f"{name} has ended", lambda: apps.pod(name)["status"].get("phase") in ("Succeeded", "Failed"), 60, 0.3
    )
    assert apps.pod(name)["status"]["phase"] == "Failed"
    return mesh.cluster.call("-n", apps.namespace, "logs", name)


@pytest.mark.parametrize("container", ["loader", "proxy"])
def test_a_container_says_which_capability_it_lacks(mesh: Mesh, apps: Apps, container: str) -> None:
    wanted = {"loader": LOADER, "proxy": PROXY}[container]
    for each in wanted:
        added = [one.name for one in wanted if one is not each]
        context = {"readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"], "add": added}}
        said = lacking(mesh, apps, container, {"securityContext": context})
        assert f"lacks the capabilities {each.name}: with {each.name} it {wanted[each]}" in said


def test_a_container_says_which_mount_it_lacks(mesh: Mesh, apps: Apps) -> None:
    template = mesh.cluster.get("daemonset", "ztunnel", SYSTEM)["spec"]["template"]["spec"]
    [loader] = [each for each in template["initContainers"] if each["name"] == "loader"]
    for name, sentence in (
        ("cgroup", "mount the host's /sys/fs/cgroup at /sys/fs/cgroup (hostPath)"),
        ("bpffs", "/sys/fs/bpf"),
    ):
        mounts = [each for each in loader["volumeMounts"] if each["name"] != name]
        said = lacking(mesh, apps, "loader", {"volumeMounts": mounts})
        assert sentence in said


def test_nobody_else_is_touched(mesh: Mesh) -> None:
    cluster: Cluster = mesh.cluster
    for each in cluster.get("pods")["items"] + cluster.pods("kube-system"):
        assert "ambient.istio.io/redirection" not in each["metadata"].get("annotations", {})
