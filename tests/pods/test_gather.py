"""What is found of a kubelet's pods in directories and processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pods.machine import OTHER, UID, Kubelet
from tests.pods.parts import Scratch
from ztunnel.kernel.processes import since_boot
from ztunnel.pods.gather import (
    NO_PROCESSES,
    find_kubepods,
    list_pods,
    look_into,
    look_into_all,
    own_namespaces,
)
from ztunnel.pods.kubelet import PodCgroup, PodName

ESCAPED = UID.replace("-", "_")
LAYOUTS = {
    "cgroupfs": ("kubepods", f"burstable/pod{UID}"),
    "cgroupfs guaranteed": ("kubepods", f"pod{UID}"),
    "systemd": ("kubepods.slice", f"kubepods-besteffort.slice/kubepods-besteffort-pod{ESCAPED}.slice"),
    "systemd guaranteed": ("kubepods.slice", f"kubepods-pod{ESCAPED}.slice"),
    "kind": (
        "kubelet.slice/kubelet-kubepods.slice",
        f"kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod{ESCAPED}.slice",
    ),
    "kind cgroupfs": ("kubelet/kubepods", f"burstable/pod{UID}"),
    "k3s in a container": ("docker/0123/kubepods", f"besteffort/pod{UID}"),
}


@pytest.fixture
def kubelet(tmp_path: Path) -> Iterator[Kubelet]:
    with Kubelet(tmp_path) as made:
        yield made


def mounts(place: Path, *hierarchies: tuple[str, str]) -> str:
    """The hierarchies (name of a directory, file system) in a file like /proc/mounts, the tmpfs first."""
    lines = [f"tmpfs {place} tmpfs rw 0 0"]
    for name, kind in hierarchies:
        (place / name).mkdir(exist_ok=True)
        lines.append(f"cgroup {place / name} {kind} rw,nosuid 0 0")
    (place / "mounts").write_text("\n".join(lines))
    return str(place / "mounts")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("version", ["v1", "v2", "hybrid"])
def test_pods_are_found_in_every_layout(tmp_path: Path, layout: str, version: str) -> None:
    """In a hybrid one, v2 is there and may be without containers."""
    kinds = {"v2": ["cgroup2"], "v1": ["cgroup", "cgroup"], "hybrid": ["cgroup", "cgroup2"]}[version]
    table = mounts(tmp_path, *((f"h{number}", kind) for number, kind in enumerate(kinds)))
    where = tmp_path / "h0"
    kubepods, pod = LAYOUTS[layout]
    (where / kubepods / pod / "c1").mkdir(parents=True)
    (where / "system.slice/sshd.service").mkdir(parents=True)
    if version == "hybrid":
        (tmp_path / "h1" / kubepods).mkdir(parents=True)
    logs = tmp_path / "logs"
    (logs / f"shop_web_{UID}").mkdir(parents=True)
    found = find_kubepods(table)
    assert found == (str(where / kubepods),)
    listing = list_pods(found, logs)
    directory = where / kubepods / pod
    assert listing.cgroups == {UID: PodCgroup(str(directory), directory.stat().st_ino)}
    assert listing.names == {UID: PodName("shop", "web")}
    assert listing.trouble == ""
    assert {str(logs), str(where / kubepods), str(directory.parent)} == listing.watched


def test_v2_counts_where_containers_are_in_both(tmp_path: Path) -> None:
    table = mounts(tmp_path, ("memory", "cgroup"), ("unified", "cgroup2"))
    for name in ("memory", "unified"):
        (tmp_path / name / "kubepods/burstable" / f"pod{UID}").mkdir(parents=True)
    assert find_kubepods(table) == (str(tmp_path / "unified/kubepods"),)


def test_before_the_first_pod_it_is_known_where_pods_will_be(tmp_path: Path) -> None:
    table = mounts(tmp_path, ("unified", "cgroup2"))
    assert find_kubepods(table) == ()
    (tmp_path / "unified/kubepods.slice").mkdir()
    assert find_kubepods(table) == (str(tmp_path / "unified/kubepods.slice"),)


def test_a_node_without_log_directories_or_pods_says_so(tmp_path: Path) -> None:
    assert "ZTUNNEL_POD_LOGS" in list_pods(["/c"], tmp_path / "none").trouble
    assert str(tmp_path / "none") in list_pods(["/c"], tmp_path / "none").trouble
    assert "kubelet" in list_pods([], tmp_path).trouble
    assert list_pods(["/c"], tmp_path).trouble == ""


@pytest.mark.root
def test_processes_say_which_namespace_is_the_pods(kubelet: Kubelet) -> None:
    homes = own_namespaces(Path("/proc"))
    assert os.stat("/proc/self/ns/net").st_ino in homes
    pod = kubelet.pod("shop", "web")
    assert look_into(str(pod), Path("/proc"), homes).namespaces == {}
    with Scratch() as scratch:
        process = kubelet.start(pod, scratch.path)
        seen = look_into(str(pod), Path("/proc"), homes)
        assert (seen.namespaces, seen.elsewhere, seen.trouble) == ({}, True, "")
        process.enter()
        seen = look_into(str(pod), Path("/proc"), homes)
        assert seen.namespaces == {scratch.place.inode: f"/proc/{process.pid}/ns/net"}
        assert not seen.elsewhere
        assert 0 <= since_boot() - seen.began[scratch.place.inode] < 4
        assert look_into_all([("u", str(pod))], Path("/proc")) == {"u": seen}


@pytest.mark.root
def test_the_sandbox_comes_before_what_containers_make_for_themselves(kubelet: Kubelet) -> None:
    """Docker in a pod, and CRI-O's crun, which nests a cgroup."""
    pod = kubelet.pod("shop", "builder")
    with Scratch() as sandbox, Scratch() as inner:
        kubelet.start(pod, sandbox.path, "zz-sandbox").enter()
        (pod / "aa-container/docker").mkdir(parents=True)
        kubelet.start(pod, inner.path, "aa-container/docker/1234").enter()
        seen = look_into(str(pod), Path("/proc"), own_namespaces(Path("/proc")))
        assert list(seen.namespaces) == [sandbox.place.inode, inner.place.inode]


def test_processes_that_cannot_be_seen_are_told(tmp_path: Path) -> None:
    """In a PID namespace of its own, cgroup.procs has zeros."""
    (tmp_path / "cgroup.procs").write_text("0\n0\n")
    assert look_into(str(tmp_path), Path("/proc"), ()).trouble == NO_PROCESSES


def test_what_is_gone_is_nothing(tmp_path: Path) -> None:
    seen = look_into(str(tmp_path / OTHER), Path("/proc"), ())
    assert (seen.namespaces, seen.elsewhere, seen.trouble) == ({}, False, "")
    (tmp_path / "cgroup.procs").write_text("999999999\n")
    assert look_into(str(tmp_path), Path("/proc"), ()).namespaces == {}
