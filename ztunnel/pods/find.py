"""Finds a pod's network namespace on this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import trio

from ztunnel.kernel.cgroup import cgroup_id
from ztunnel.model.workload import Workload
from ztunnel.pods.kubelet import Place, Started, is_kubepods
from ztunnel.pods.lifecycle import NO_NAMESPACE
from ztunnel.redirect.classify import PodsBranch
from ztunnel.redirect.exempt import CgroupBranch

_CLIENTS = frozenset(
    name + ending
    for name in (
        "kubelet",
        "containerd",
        "crio",
        "docker",
        "cri-docker",
        "k3s",
        "k3s-agent",
        "rke2-server",
        "rke2-agent",
        "k0scontroller",
        "k0sworker",
        "microshift",
        "snap.microk8s.daemon-kubelite",
        "snap.microk8s.daemon-containerd",
        "snap.k8s.kubelet",
        "snap.k8s.containerd",
        "snap.kubelet-eks.daemon",
    )
    for ending in ("", ".service")
)
"""The kubelet and the container runtime, by the names that distributions give their units: kubeadm, k3s,
RKE2, k0s, MicroShift, MicroK8s, Canonical Kubernetes, EKS on Ubuntu; without `.service` where no systemd
runs (Talos, containers)."""

CLIENT_PROCESSES = frozenset(
    {"kubelet", "containerd", "crio", "dockerd", "cri-dockerd", "k3s-server", "k3s-agent", "rke2", "k0s",
     "kubelite", "microshift", "hyperkube"}
)  # fmt: skip
"""Their processes by name, where a distribution runs them in a cgroup of another name."""

_DEPTH = 4


class Finder(Protocol):
    """Says where the network namespaces of pods are; never waits."""

    def find(self, workload: Workload) -> Place | None:
        """That pod's namespace; None where there is none, or not yet."""

    def exists(self, place: Place) -> bool:
        """Whether the namespace is still that of the pod for which it was found."""

    def missing(self, workload: Workload) -> str:
        """Why `find` does not find it."""

    def started(self) -> Sequence[Started]:
        """The pods that the kubelet has begun with, whether their namespaces are there or not."""

    def branch(self) -> PodsBranch | None:
        """Where their cgroups are in cgroup v2; None where they are not, or not yet."""

    async def follow(
        self, stirred: Callable[[], None], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Keep what the others answer true until cancelled, and tell when it has changed. Started when all
        that is there now is known."""


@dataclass(frozen=True, slots=True)
class NamedNamespaces:
    """Namespaces that `ip netns` would list, one for each pod, named by a template.

    Attributes:
        template: a path with `{namespace}` and `{name}`, such as `/run/netns/lab-{namespace}-{name}`.
    """

    template: str

    def find(self, workload: Workload) -> Place | None:
        """That pod's namespace; None where there is none, or not yet."""
        path = self.template.format(namespace=workload.namespace, name=workload.name)
        inode = inode_at(path)
        return None if inode is None else Place(path, inode)

    def exists(self, place: Place) -> bool:
        """Whether the namespace is still where it was found."""
        return inode_at(place.path) == place.inode

    def missing(self, workload: Workload) -> str:
        """Why there is none."""
        return NO_NAMESPACE

    def started(self) -> Sequence[Started]:
        """None: no kubelet makes such pods."""
        return ()

    def branch(self) -> PodsBranch | None:
        """Nowhere."""
        return None

    async def follow(
        self, stirred: Callable[[], None], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Nothing to do: each question looks."""
        task_status.started()


def inode_at(path: str) -> int | None:
    """The inode of the namespace at `path`; None where there is none.

    Between `ip netns add` creating the file and mounting the namespace on it there is an ordinary file, which
    is none either. An inode may be another namespace's as soon as nobody holds the first one open.
    """
    try:
        found = os.stat(path)
        parent = os.stat(os.path.dirname(path))
    except OSError:
        return None
    return found.st_ino if found.st_dev != parent.st_dev else None


class Client(NamedTuple):
    """A cgroup whose processes reach pods: its path below the root, and the id of the one it is in."""

    path: str
    parent: int


@dataclass(frozen=True, slots=True)
class NodeCgroups:
    """The cgroups of a machine that matter here.

    Attributes:
        clients: those of the kubelet and the container runtime, whose probes reach pods, with their ids.
        kubepods: the one below which all pods' are; None on a machine without a kubelet.
        parents: the directories in which they may come and go.
    """

    clients: Mapping[Client, int]
    kubepods: CgroupBranch | None
    parents: frozenset[str]


def survey(root: Path) -> NodeCgroups:
    """Look through cgroup v2 at `root`; 10 ms where 300 services run.

    Only what belongs to root counts: an ordinary user of the machine may have a branch of their own, and
    call a cgroup in it as they like.
    """
    clients: dict[Client, int] = {}
    kubepods: CgroupBranch | None = None
    parents = {str(root)}
    for path, level in below(root):
        name = path.rpartition("/")[2]
        if is_kubepods(name):
            kubepods = kubepods or CgroupBranch(cgroup_id(Path(path)), level)
            continue
        parents.add(path)
        if name in _CLIENTS:
            clients |= _client(root, path)
    return NodeCgroups(clients, kubepods, frozenset(parents))


def cgroups_of(root: Path, processes: Collection[int]) -> dict[Client, int]:
    """The cgroups that these processes are in, with their ids, but for the root and those of pods."""
    wanted = set(map(str, processes))
    found: dict[Client, int] = {}
    for path, _ in below(root) if wanted else ():
        if not is_kubepods(path.rpartition("/")[2]) and not wanted.isdisjoint(processes_in(path)):
            found |= _client(root, path)
    return found


def _client(root: Path, path: str) -> dict[Client, int]:
    with suppress(OSError):  # it has just ended
        found = os.stat(path)
        if found.st_uid == 0:
            parent = os.stat(os.path.dirname(path)).st_ino
            return {Client(os.path.relpath(path, root), parent): found.st_ino}
    return {}


def processes_in(cgroup: str) -> list[str]:
    """The numbers of the processes in it; 0 is one that cannot be seen from here."""
    try:
        return Path(cgroup, "cgroup.procs").read_text().split()
    except OSError:
        return []


def below(root: str | Path, level: int = 1) -> Iterator[tuple[str, int]]:
    """The cgroups below `root` with their paths and depth, not descending into those of pods; those that come
    and go meanwhile may be missing."""
    try:
        with os.scandir(root) as entries:
            paths = sorted(each.path for each in entries if each.is_dir(follow_symlinks=False))
    except OSError:
        return
    for path in paths:
        yield path, level
        if level < _DEPTH and not is_kubepods(path.rpartition("/")[2]):
            yield from below(path, level + 1)
