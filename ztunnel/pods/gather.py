"""Gathers what a kubelet and its container runtime have made for pods: log directories, cgroups, and the
network namespaces of the processes in these. Everything here blocks, and belongs into a thread."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ztunnel.errors import Unsupported
from ztunnel.kernel.cgroup import find_root, hierarchies
from ztunnel.kernel.processes import began
from ztunnel.pods.find import below, processes_in
from ztunnel.pods.kubelet import PodCgroup, PodName, is_kubepods, is_qos, parse_log_directory, uid_of_cgroup
from ztunnel.redirect.classify import PodsBranch
from ztunnel.redirect.exempt import CgroupBranch

_DEPTH = 4
"""Of cgroups below a pod's: its containers, and what these make for themselves."""
_PROCESSES, _ALL_PROCESSES = 16, 256
"""Looked at in one cgroup, and in one pod."""

NO_PROCESSES = (
    "the processes of pods cannot be seen from here: the proxy has to see those of its node (hostPID: true)"
)
NO_NAMESPACES = (
    "the namespaces of pods' processes cannot be seen: the proxy needs the capability SYS_PTRACE, besides "
    "SYS_ADMIN and NET_ADMIN"
)


@dataclass(frozen=True, slots=True)
class Listing:
    """The pods that there are now.

    Attributes:
        names: by UID, of those with a log directory.
        cgroups: by UID.
        kubepods: the directories below which all cgroups of pods are.
        watched: the directories in which any of it comes and goes.
        branch: where the cgroups of the pods with log directories are in cgroup v2, None where they are not.
        trouble: why nothing can be found; empty if it can.
    """

    names: Mapping[str, PodName] = field(default_factory=dict)
    cgroups: Mapping[str, PodCgroup] = field(default_factory=dict)
    kubepods: tuple[str, ...] = ()
    watched: frozenset[str] = frozenset()
    branch: PodsBranch | None = None
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the processes of a pod are in.

    Attributes:
        namespaces: by inode a path to each network namespace, those of the earliest container first.
        began: by inode when the process of that path began, in seconds since the machine's start.
        elsewhere: whether one is in the node's own, as each is for a moment before it enters the pod's.
        trouble: why it cannot be told.
    """

    namespaces: Mapping[int, str] = field(default_factory=dict)
    began: Mapping[int, float] = field(default_factory=dict)
    elsewhere: bool = False
    trouble: str = ""


def find_kubepods(mounts: str = "/proc/mounts") -> tuple[str, ...]:
    """Where pods' cgroups are: in cgroup v2, or, where a runtime still has its containers in v1 only, in one
    of those hierarchies."""
    empty: tuple[str, ...] = ()
    for root in hierarchies(mounts):
        found = tuple(path for path, _ in below(root) if is_kubepods(path.rpartition("/")[2]))
        if any(_pods_below(path)[0] for path in found):
            return found
        empty = empty or found
    return empty


def list_pods(kubepods: Collection[str], logs: Path, mounts: str = "/proc/mounts") -> Listing:
    """The pods with a cgroup below one of `kubepods`, and those with a log directory in `logs`."""
    cgroups: dict[str, PodCgroup] = {}
    watched = {str(logs), *kubepods}
    below_each: dict[str, set[str]] = {}
    for path in kubepods:
        pods, places = _pods_below(path)
        below_each[path] = set(pods)
        cgroups |= pods
        watched |= places
    try:
        parsed = [parse_log_directory(each) for each in os.listdir(logs)]
    except OSError as error:
        trouble = (
            f"the kubelet's log directories of pods cannot be read: {logs}: {error.strerror or error}. "
            "Mount it, or name another place by ZTUNNEL_POD_LOGS"
        )
        return Listing({}, cgroups, tuple(kubepods), frozenset(watched), trouble=trouble)
    names = dict(each for each in parsed if each is not None)
    trouble = "" if kubepods else "no cgroup kubepods is there: does a kubelet run on this node?"
    own = [path for path in kubepods if below_each[path] & names.keys()] or list(kubepods)
    branch = _branch(own[0], mounts) if len(own) == 1 else None
    return Listing(names, cgroups, tuple(kubepods), frozenset(watched), branch, trouble)


def _branch(kubepods: str, mounts: str) -> PodsBranch | None:
    with suppress(OSError, Unsupported, ValueError):
        root = find_root(mounts)
        level = len(Path(kubepods).relative_to(root).parts)  # ValueError: it is in v1
        ids = dict.fromkeys(("burstable", "besteffort"), 0)
        for path, number in _directories(kubepods):
            name = path.rpartition("/")[2]
            if is_qos(name):
                ids["burstable" if "burstable" in name else "besteffort"] = number
        return PodsBranch(CgroupBranch(os.stat(kubepods).st_ino, level), **ids)
    return None


def look_into(cgroup: str, proc: Path, homes: Collection[int]) -> Seen:
    """The network namespaces of the processes in a pod's cgroup and below it.

    Args:
        homes: inodes of the node's own namespaces, which are no pod's.
    """
    namespaces: dict[int, str] = {}
    times: dict[int, float] = {}
    elsewhere, trouble, left = False, "", _ALL_PROCESSES
    for directory in _inner(cgroup):
        pids = processes_in(directory)
        if "0" in pids:
            trouble = NO_PROCESSES
        for pid in pids[: min(_PROCESSES, left)]:
            path = f"{proc}/{pid}/ns/net"
            left -= 1
            try:
                inode = os.stat(path).st_ino
            except PermissionError:
                trouble = NO_NAMESPACES
            except OSError:  # it has ended
                continue
            else:
                if inode in homes:
                    elsewhere = True
                elif inode not in namespaces:
                    namespaces[inode], times[inode] = path, began(path)
    return Seen(namespaces, times, elsewhere, "" if namespaces else trouble)


def own_namespaces(proc: Path) -> frozenset[int]:
    """Inodes of our own network namespace and of the node's."""
    found = set()
    for path in ("/proc/self/ns/net", f"{proc}/1/ns/net"):
        with suppress(OSError):
            found.add(os.stat(path).st_ino)
    return frozenset(found)


def _pods_below(kubepods: str) -> tuple[dict[str, PodCgroup], set[str]]:
    """The pods' cgroups by UID, and the directories they are in."""
    pods: dict[str, PodCgroup] = {}
    places: set[str] = set()
    for path, inode in _directories(kubepods):
        inner = _directories(path) if is_qos(path.rpartition("/")[2]) else ()
        if inner != ():
            places.add(path)
        for each, number in ((path, inode), *inner):
            if uid := uid_of_cgroup(each.rpartition("/")[2]):
                pods[uid] = PodCgroup(each, number)
    return pods, places


def _directories(path: str) -> list[tuple[str, int]]:
    """The cgroups in this one with their numbers, the earliest first."""
    try:
        with os.scandir(path) as entries:
            found = [(each.path, each.inode()) for each in entries if each.is_dir(follow_symlinks=False)]
    except OSError:
        return []
    return sorted(found, key=lambda each: each[1])


def _inner(cgroup: str, depth: int = _DEPTH) -> Iterator[str]:
    yield cgroup
    if depth:
        for path, _ in _directories(cgroup):
            yield from _inner(path, depth - 1)


def look_into_all(cgroups: Iterable[tuple[str, str]], proc: Path) -> dict[str, Seen]:
    """By UID what is seen in these cgroups, given by UID and path."""
    homes = own_namespaces(proc)
    return {uid: look_into(path, proc, homes) for uid, path in cgroups}
