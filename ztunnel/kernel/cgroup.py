"""Cgroup v2: where it is mounted, and the numbers by which the kernel's hooks know a cgroup."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ztunnel.errors import Unsupported


def find_root(mounts: str = "/proc/mounts") -> Path:
    """Where cgroup v2 is mounted; on a hybrid system that is e.g. `/sys/fs/cgroup/unified`.

    Raises:
        Unsupported: it is not mounted.
    """
    for place in _mounted(mounts, "cgroup2"):
        return place
    raise Unsupported(
        "cgroup v2 is not mounted: mount -t cgroup2 none /sys/fs/cgroup/unified; "
        "in a container, mount the host's /sys/fs/cgroup at /sys/fs/cgroup (hostPath)"
    )


def hierarchies(mounts: str = "/proc/mounts") -> tuple[Path, ...]:
    """Where the hierarchies of cgroups are mounted: v2 first, then those of v1."""
    return tuple(dict.fromkeys((*_mounted(mounts, "cgroup2"), *_mounted(mounts, "cgroup"))))


def _mounted(mounts: str, wanted: str) -> Iterator[Path]:
    for line in Path(mounts).read_text().splitlines():
        _, place, kind, *_ = line.split(" ")
        if kind == wanted:
            yield Path(place.encode().decode("unicode_escape"))


def is_view(root: Path) -> bool:
    """Whether what is mounted at `root` is a part of the machine's hierarchy, as a container sees it: only
    the root of all has no type (Documentation/admin-guide/cgroup-v2.rst)."""
    return (root / "cgroup.type").exists()


def cgroup_id(path: Path) -> int:
    """What `bpf_get_current_cgroup_id()` returns for a process in the cgroup at `path`: its inode number."""
    return path.stat().st_ino


def own_path(root: Path) -> Path:
    """The cgroup v2 directory that this process is in."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        if line.startswith("0::"):
            return root / line.removeprefix("0::").lstrip("/")
    raise Unsupported("this process is in no cgroup v2: /proc/self/cgroup has no line 0::")


def create(path: Path) -> Path:
    """Make the cgroup if it is not there. Raises OSError."""
    path.mkdir(exist_ok=True)
    return path


def join(path: Path, pid: int = 0) -> None:
    """Move a process (0: this one, all its threads) into the cgroup at `path`. Raises OSError."""
    (path / "cgroup.procs").write_text(str(pid or os.getpid()))


def remove(path: Path) -> None:
    """Remove an empty cgroup. Raises OSError while a process is in it."""
    path.rmdir()
