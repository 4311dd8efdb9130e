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


def image_sizes(mesh: Mesh) -> dict[str, int]:
    """By name, of all that nodes say they have."""
    return {
        name: image["sizeBytes"]
        for each in mesh.cluster.get("nodes")["items"]
        for image in each["status"].get("images") or ()
        for name in image.get("names") or ()
    }


def test_the_images_are_small_and_the_proxys_has_no_compiler(mesh: Mesh) -> None:
    repository, tag = mesh.cluster.image
    wanted = {f"{repository}:{tag}", f"{repository}-loader:{tag}"}
    # A kubelet looks which images it has twice a minute.
    wait_until("a node tells of both", lambda: wanted <= image_sizes(mesh).keys(), 90, 0.5)
    sizes = image_sizes(mesh)
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


def lacking(mesh: Mesh, apps: Apps, container: str, changes: dict[str, Object]) -> dict[str, str]:
    """What that container of the node proxy's pod says, changed like each of these, when it has ended: by the
    name of the change. All at once, each in a pod of its own."""
    template = mesh.cluster.get("daemonset", "ztunnel", SYSTEM)["spec"]["template"]["spec"]
    [one] = [
        each for each in [*template["initContainers"], *template["containers"]] if each["name"] == container
    ]
    pods = {name: f"lacking-{container}-{number}" for number, name in enumerate(changes)}
    mesh.cluster.apply(*(changed(mesh, apps, pods[name], one, changes[name]) for name in pods))

    def over() -> bool:
        phases = [each["status"].get("phase") for each in mesh.cluster.pods(apps.namespace)]
        assert "Succeeded" not in phases
        return phases == ["Failed"] * len(pods)

    wait_until(f"{container} has ended", over, 120, 0.3)
    return {name: mesh.cluster.call("-n", apps.namespace, "logs", pod) for name, pod in pods.items()}


def changed(mesh: Mesh, apps: Apps, name: str, container: Object, change: Object) -> Object:
    [node, *_] = mesh.cluster.nodes()
    template = mesh.cluster.get("daemonset", "ztunnel", SYSTEM)["spec"]["template"]["spec"]
    one = {**container, **change}
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
    meta = {"name": name, "namespace": apps.namespace}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


@pytest.mark.parametrize("container", ["loader", "proxy"])
def test_a_container_says_which_capability_it_lacks(mesh: Mesh, apps: Apps, container: str) -> None:
    wanted = {"loader": LOADER, "proxy": PROXY}[container]
    changes: dict[str, Object] = {}
    for each in wanted:
        added = [one.name for one in wanted if one is not each]
        capabilities = {"drop": ["ALL"], "add": added}
        changes[each.name] = {
            "securityContext": {"readOnlyRootFilesystem": True, "capabilities": capabilities}
        }
    said = lacking(mesh, apps, container, changes)
    for each in wanted:
        assert f"lacks the capabilities {each.name}: with {each.name} it {wanted[each]}" in said[each.name], (
            said[each.name]
        )


def test_a_container_says_which_mount_it_lacks(mesh: Mesh, apps: Apps) -> None:
    template = mesh.cluster.get("daemonset", "ztunnel", SYSTEM)["spec"]["template"]["spec"]
    [loader] = [each for each in template["initContainers"] if each["name"] == "loader"]
    sentences = {
        "cgroup": "mount the host's /sys/fs/cgroup at /sys/fs/cgroup (hostPath)",
        "bpffs": "/sys/fs/bpf",
    }
    mounts = {name: [each for each in loader["volumeMounts"] if each["name"] != name] for name in sentences}
    said = lacking(mesh, apps, "loader", {name: {"volumeMounts": some} for name, some in mounts.items()})
    for name, sentence in sentences.items():
        assert sentence in said[name]


def test_nobody_else_is_touched(mesh: Mesh) -> None:
    cluster: Cluster = mesh.cluster
    for each in cluster.get("pods")["items"] + cluster.pods("kube-system"):
        assert "ambient.istio.io/redirection" not in each["metadata"].get("annotations", {})
