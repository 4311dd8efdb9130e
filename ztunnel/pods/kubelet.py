"""How a kubelet names what it keeps of pods, and what is known of its pods on this machine.

A kubelet makes a pod's log directory, `/var/log/pods/<namespace>_<name>_<uid>`, and the pod's cgroup before
it starts the first process of the pod (kubernetes pkg/kubelet/kuberuntime: `BuildPodLogsDirectory`; pkg/
kubelet/cm: `podContainerManagerImpl`), whatever the container runtime. The two together say which network
namespaces are whose: the directory joins the pod's name to its UID, the UID stands in the name of the cgroup,
and processes below the cgroup are in the namespace. No address has part in that, so one that was another
pod's a moment ago cannot lend a pod that pod's identity; and no control plane, so it works with any.

| driver | a pod's cgroup |
|---|---|
| cgroupfs | `kubepods/burstable/pod<uid>`, `kubepods/pod<uid>` |
| systemd | `kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid>.slice`, `-` written `_` |
| below a root of the kubelet's own (kind) | `kubelet.slice/kubelet-kubepods.slice/...-pod<uid>.slice` |
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

LINGER_SECONDS = 2.0
"""So long a namespace counts as its pod's after the last process of the pod was seen in it: while a container
is started again, a pod of CRI-O has none."""

_UID = r"([0-9a-fA-F]{8}[0-9a-fA-F_-]{0,56})"  # a static pod's has no dashes
_POD_CGROUP = re.compile(rf"pod{_UID}|(?:[^/]+-)?pod{_UID}\.slice")
_QOS = re.compile(r"(?:[^/]+-)?(?:burstable|besteffort)(?:\.slice)?")


class PodName(NamedTuple):
    """A pod's namespace and name."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where a pod's network namespace is.

    Attributes:
        path: by which it can be opened; for a moment only where it is a process'.
        inode: the namespace's, by which it is known.
        pod: the pod's UID, empty where it has none.
        began: when the first process that was seen in it began, in seconds since the machine's start.
    """

    path: str
    inode: int
    pod: str = ""
    began: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class PodCgroup:
    """A pod's cgroup: its directory, and its number in cgroup v2."""

    path: str
    number: int


@dataclass(frozen=True, slots=True)
class Started:
    """A pod that a kubelet has begun with. `runs`: a process of it was seen."""

    name: PodName
    uid: str
    cgroup: PodCgroup
    runs: bool


def is_kubepods(name: str) -> bool:
    """Whether all pods' cgroups are below one of this name; `kubelet-kubepods.slice` is kind's."""
    return name in ("kubepods", "kubepods.slice") or name.endswith("-kubepods.slice")


def is_qos(name: str) -> bool:
    """Whether the pods of one quality of service are below a cgroup of this name."""
    return _QOS.fullmatch(name) is not None


def uid_of_cgroup(name: str) -> str:
    """The UID of the pod whose cgroup has this name; empty where it is none."""
    match = _POD_CGROUP.fullmatch(name)
    return "" if match is None else (match[1] or match[2]).replace("_", "-")


def parse_log_directory(name: str) -> tuple[str, PodName] | None:
    """The UID and the pod of a directory in /var/log/pods; None where it is no pod's. Neither of the three
    has an underscore."""
    parts = name.split("_")
    return (parts[2], PodName(parts[0], parts[1])) if len(parts) == 3 and all(parts) else None


class _Seen(NamedTuple):
    path: str
    left: float | None
    """Since when nobody is in it any more."""
    began: float


@dataclass(slots=True)
class _Pod:
    cgroup: PodCgroup
    seen: dict[int, _Seen] = field(default_factory=dict)


class Sightings:
    """The pods of one kubelet, by UID, and the network namespaces that their processes were seen in."""

    def __init__(self) -> None:
        self._names: Mapping[str, PodName] = {}
        self._uids: dict[PodName, list[str]] = {}
        self._pods: dict[str, _Pod] = {}

    def name(self, names: Mapping[str, PodName]) -> bool:
        """These are the pods by UID, as their log directories have it. Whether that is new."""
        if names == self._names:
            return False
        self._names = dict(names)
        self._uids = {}
        for uid, name in names.items():
            self._uids.setdefault(name, []).append(uid)
        return True

    def only(self, cgroups: Mapping[str, PodCgroup]) -> bool:
        """These are the pods' cgroups now; what is known of others is forgotten. Whether that is new."""
        before = {uid: pod.cgroup for uid, pod in self._pods.items()}
        if before == cgroups:
            return False
        self._pods = {
            uid: self._pods[uid] if before.get(uid) == cgroup else _Pod(cgroup)
            for uid, cgroup in cgroups.items()
        }
        return True

    def see(
        self, uid: str, namespaces: Mapping[int, str], now: float, began: Mapping[int, float] | None = None
    ) -> bool:
        """Processes of the pod are in these namespaces (inode to path) and in no others; one of each began
        then, in seconds since the machine's start. Whether that is new, or one of them is no more the
        pod's."""
        pod = self._pods.get(uid)
        if pod is None:
            return False
        before = {inode: seen.path for inode, seen in pod.seen.items()}
        firsts = {inode: seen.began for inode, seen in pod.seen.items()}
        for inode, first in (began or {}).items():
            firsts[inode] = min(first, firsts.get(inode, first))
        here = {inode: _Seen(path, None, firsts.get(inode, 0.0)) for inode, path in namespaces.items()}
        for inode, seen in pod.seen.items():
            since = now if seen.left is None else seen.left
            if inode not in here and now - since < LINGER_SECONDS:
                here[inode] = seen._replace(left=since)
        pod.seen = here
        return {inode: seen.path for inode, seen in here.items()} != before

    def leaving(self) -> dict[str, float]:
        """By UID the pods that have left a namespace, and when it stops being theirs."""
        found = {
            uid: [each.left + LINGER_SECONDS for each in pod.seen.values() if each.left is not None]
            for uid, pod in self._pods.items()
        }
        return {uid: min(ends) for uid, ends in found.items() if ends}

    def places(self, name: PodName, uid: str = "") -> list[Place]:
        """The namespaces of the pods of this name; with `uid`, of that one alone. One that nobody is in any
        more is told only where there is no other."""
        found = [
            (Place(seen.path, inode, each, seen.began), seen.left is None)
            for each in self.uids(name)
            if each in self._pods and uid in ("", each)
            for inode, seen in self._pods[each].seen.items()
        ]
        return [place for place, lives in found if lives] or [place for place, _ in found]

    def uids(self, name: PodName) -> Collection[str]:
        """The UIDs of the pods of this name: of the one before, too, until the kubelet has removed its
        log."""
        return self._uids.get(name, ())

    def holds(self, place: Place) -> bool:
        """Whether that namespace is still that pod's."""
        pod = self._pods.get(place.pod)
        return pod is not None and place.inode in pod.seen

    def has_cgroup(self, name: PodName, uid: str = "") -> bool:
        """Whether a pod of this name has a cgroup."""
        return any(each in self._pods and uid in ("", each) for each in self.uids(name))

    def started(self, running: Collection[str]) -> list[Started]:
        """The pods that have a name and a cgroup; `running` are those of which a process was seen, by UID."""
        return [
            Started(self._names[uid], uid, pod.cgroup, uid in running)
            for uid, pod in self._pods.items()
            if uid in self._names
        ]

    @property
    def cgroups(self) -> dict[str, PodCgroup]:
        """The pods' cgroups by UID."""
        return {uid: pod.cgroup for uid, pod in self._pods.items()}
