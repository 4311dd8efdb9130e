"""Finds a pod's network namespace on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ztunnel.kernel.cgroup import cgroup_id
from ztunnel.model.workload import Workload
from ztunnel.redirect.attach import CgroupBranch

_KUBELET = (
    "kubelet",
    "kubelet.service",
    "containerd",
    "containerd.service",
    "crio",
    "crio.service",
    "k3s.service",
)
_KUBEPODS = ("kubepods", "kubepods.slice")
_DEPTH = 4


@dataclass(frozen=True, slots=True)
class NamedNamespaces:
    """Namespaces that `ip netns` would list, one for each pod, named by a template.

    Attributes:
        template: a path with `{namespace}` and `{name}`, such as `/run/netns/lab-{namespace}-{name}`.
    """

    template: str

    def path_of(self, workload: Workload) -> str:
        """Where that pod's namespace is, if there is one."""
        return self.template.format(namespace=workload.namespace, name=workload.name)

    def inode_of(self, workload: Workload) -> int | None:
        """The namespace's inode; None where there is no such namespace, or not yet."""
        return inode_at(self.path_of(workload))


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


def find_kubelet(root: Path) -> list[int]:
    """The cgroups of the kubelet and the container runtime, whose probes reach pods; none where there is
    none."""
    found: list[int] = []
    for path, _ in _below(root):
        if path.name in _KUBELET:
            with suppress(OSError):  # it has just ended
                found.append(cgroup_id(path))
    return found


def find_kubepods(root: Path) -> CgroupBranch | None:
    """The cgroup below which all pods' are; None on a machine without a kubelet."""
    found = next(((path, level) for path, level in _below(root) if _is_kubepods(path)), None)
    return CgroupBranch(cgroup_id(found[0]), found[1]) if found else None


def _is_kubepods(path: Path) -> bool:
    """Also below a root of the kubelet's own, as kind has it: `kubelet-kubepods.slice`."""
    return path.name in _KUBEPODS or path.name.endswith("-kubepods.slice")


def _below(root: Path, level: int = 1) -> Iterator[tuple[Path, int]]:
    """The cgroups below `root` with their depth, not descending into those of pods; those that come and go
    meanwhile may be missing."""
    try:
        paths = sorted(each for each in root.iterdir() if each.is_dir())
    except OSError:
        return
    for path in paths:
        yield path, level
        if level < _DEPTH and not _is_kubepods(path):
            yield from _below(path, level + 1)
