"""Where a pod's namespace is, and which cgroups are the kubelet's and the pods'."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.builders import workload
from tests.kernel.lab import unique
from ztunnel.kernel import cgroup
from ztunnel.pods.find import NamedNamespaces, find_kubelet, find_kubepods, inode_at
from ztunnel.redirect.attach import CgroupBranch

KUBEPODS = ["kubepods", "kubepods.slice", "kubelet.slice/kubelet-kubepods.slice"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder that stands for cgroup v2: an id is an inode in both."""
    for name in ("system.slice/kubelet.service", "system.slice/containerd.service", "user.slice/shell"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def test_a_namespace_is_found_by_the_name_of_its_pod() -> None:
    find = NamedNamespaces("/run/netns/lab-{namespace}-{name}")
    pod = workload("web", "shop")
    assert find.path_of(pod) == "/run/netns/lab-shop-web"
    assert find.inode_of(pod) is None


def test_a_file_is_no_namespace(tmp_path: Path) -> None:
    (tmp_path / "pod").write_text("")
    assert inode_at(str(tmp_path / "pod")) is None
    assert inode_at(str(tmp_path / "none")) is None


def test_a_namespace_has_an_inode() -> None:
    assert inode_at("/proc/self/ns/net") == os.stat("/proc/self/ns/net").st_ino


@pytest.mark.root
def test_a_namespace_is_there_from_its_mount_to_its_end() -> None:
    name = unique()
    find = NamedNamespaces("/run/netns/{name}")
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        assert find.inode_of(workload(name)) == os.stat(f"/run/netns/{name}").st_ino
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)
    assert find.inode_of(workload(name)) is None


def test_the_kubelet_and_the_container_runtime_are_found(root: Path) -> None:
    services = ("system.slice/containerd.service", "system.slice/kubelet.service")
    assert find_kubelet(root) == [cgroup.cgroup_id(root / name) for name in services]


@pytest.mark.parametrize("name", KUBEPODS)
def test_the_cgroup_of_all_pods_is_found(root: Path, name: str) -> None:
    (root / name / "burstable" / "pod1").mkdir(parents=True)
    assert find_kubepods(root) == CgroupBranch(cgroup.cgroup_id(root / name), len(Path(name).parts))


@pytest.mark.parametrize("name", KUBEPODS)
def test_what_a_pod_calls_kubelet_is_not_the_kubelet(root: Path, name: str) -> None:
    before = find_kubelet(root)
    (root / name / "kubelet").mkdir(parents=True)
    assert find_kubelet(root) == before


def test_a_machine_without_a_kubelet_has_neither(tmp_path: Path) -> None:
    (tmp_path / "init.scope").mkdir()
    (tmp_path / "cgroup.procs").write_text("")
    assert find_kubelet(tmp_path) == []
    assert find_kubepods(tmp_path) is None


def test_cgroups_that_are_gone_are_passed_over(tmp_path: Path) -> None:
    assert find_kubelet(tmp_path / "gone") == []
    assert find_kubepods(tmp_path / "gone") is None
