"""Where a pod's namespace is, and which cgroups are the kubelet's and the pods'."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.builders import workload
from tests.kernel.lab import unique
from ztunnel.kernel import cgroup
from ztunnel.pods.find import Client, NamedNamespaces, cgroups_of, inode_at, survey
from ztunnel.pods.kubelet import Place
from ztunnel.redirect.exempt import CgroupBranch

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
    assert find.find(pod) is None
    assert find.missing(pod) == "its network namespace is not there yet"


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
        place = find.find(workload(name))
        assert place == Place(f"/run/netns/{name}", os.stat(f"/run/netns/{name}").st_ino)
        assert find.exists(place)
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)
    assert find.find(workload(name)) is None
    assert not find.exists(place)


NAMES = [
    "system.slice/kubelet.service",
    "system.slice/containerd.service",
    "system.slice/crio.service",
    "system.slice/docker.service",
    "system.slice/cri-docker.service",
    "system.slice/k3s.service",
    "system.slice/k3s-agent.service",
    "system.slice/rke2-server.service",
    "system.slice/rke2-agent.service",
    "system.slice/k0scontroller.service",
    "system.slice/k0sworker.service",
    "system.slice/microshift.service",
    "system.slice/snap.microk8s.daemon-kubelite.service",
    "system.slice/snap.microk8s.daemon-containerd.service",
    "system.slice/snap.k8s.kubelet.service",
    "system.slice/snap.kubelet-eks.daemon.service",
    "runtime.slice/kubelet.service",
    "podruntime/kubelet",
    "ztunnel-lab/node-1/kubelet",
    "system.slice/docker-0123.scope/system.slice/kubelet.service",
]


@pytest.mark.parametrize("name", NAMES)
def test_the_kubelet_and_the_container_runtime_are_found(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir(parents=True)
    (tmp_path / "system.slice/sshd.service").mkdir(parents=True)
    client = Client(name, cgroup.cgroup_id((tmp_path / name).parent))
    assert survey(tmp_path).clients == {client: cgroup.cgroup_id(tmp_path / name)}


def test_all_are_found_and_where_more_may_come(root: Path) -> None:
    found = survey(root)
    paths = {client.path for client in found.clients}
    assert paths == {"system.slice/containerd.service", "system.slice/kubelet.service"}
    places = ("", "system.slice", "user.slice", "user.slice/shell", *paths)
    assert found.parents == {str(root / place) for place in places}


@pytest.mark.root
def test_what_an_ordinary_user_calls_kubelet_is_not_the_kubelet(tmp_path: Path) -> None:
    place = tmp_path / "user.slice/user-1000.slice/user@1000.service/kubelet.service"
    place.mkdir(parents=True)
    os.chown(place, 1000, 1000)
    assert survey(tmp_path).clients == {}


def test_cgroups_are_found_by_the_processes_in_them(root: Path) -> None:
    """A kubelet in a cgroup of another name. Neither the root, which is everybody's, nor a pod's counts."""
    for place in (".", "user.slice/shell", "kubepods/besteffort/pod1", "system.slice/kubelet.service"):
        (root / place).mkdir(parents=True, exist_ok=True)
        (root / place / "cgroup.procs").write_text("0\n12\n7\n")
    found = {each.path: number for each, number in cgroups_of(root, {7}).items()}
    assert found == {
        name: cgroup.cgroup_id(root / name) for name in ("user.slice/shell", "system.slice/kubelet.service")
    }
    assert cgroups_of(root, {13}) == {}
    assert cgroups_of(root, ()) == {}


@pytest.mark.parametrize("name", KUBEPODS)
def test_the_cgroup_of_all_pods_is_found(root: Path, name: str) -> None:
    (root / name / "burstable" / "pod1").mkdir(parents=True)
    found = survey(root)
    assert found.kubepods == CgroupBranch(cgroup.cgroup_id(root / name), len(Path(name).parts))
    assert not [path for path in found.parents if "kubepods" in path]


@pytest.mark.parametrize("name", KUBEPODS)
def test_what_a_pod_calls_kubelet_is_not_the_kubelet(root: Path, name: str) -> None:
    before = survey(root).clients
    (root / name / "kubelet").mkdir(parents=True)
    assert survey(root).clients == before


def test_a_machine_without_a_kubelet_has_neither(tmp_path: Path) -> None:
    (tmp_path / "init.scope").mkdir()
    (tmp_path / "cgroup.procs").write_text("")
    found = survey(tmp_path)
    assert (found.clients, found.kubepods) == ({}, None)


def test_cgroups_that_are_gone_are_passed_over(tmp_path: Path) -> None:
    found = survey(tmp_path / "gone")
    assert (found.clients, found.kubepods) == ({}, None)
