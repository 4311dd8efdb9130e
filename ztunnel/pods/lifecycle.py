"""Which pods to enroll and which to remove: wanted against enrolled, as a pure comparison.

A pod is wanted when the world says that it runs on this node and speaks HBONE. It is enrolled when its
network namespace carries our listeners and programs. A namespace is known by its inode: a pod that was
recreated under the same name has another one, and what we hold belongs to a namespace that is going away.

    wanted, not enrolled            -> enroll, or wait for the namespace
    wanted, enrolled elsewhere      -> withdraw, then enroll
    enrolled, not wanted            -> withdraw: its connections live on
    enrolled, namespace gone        -> drop: its connections are dead
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ztunnel.model.workload import Workload

STARTS_SECONDS = 5.0
"""So long nothing is said of a pod without a namespace: it starts."""

_SHOWN = 20
NO_NAMESPACE: Final = "its network namespace is not there yet"
NO_ADDRESSES: Final = "its network namespace has no address"
OTHER_MESH: Final = "another mesh is in it, or was"
NO_SOCKETS: Final = "its traffic comes from no socket of its namespace"
_CAUSES = (
    (NO_NAMESPACE, "no namespace"),
    (NO_ADDRESSES, "no address"),
    (NO_SOCKETS, "no sockets"),
    (OTHER_MESH, "another mesh"),
    ("has the addresses", "other addresses"),
    (" is taken by ", "port taken"),
    ("cannot be removed", "not removed"),
    ("cannot be repaired", "not repaired"),
)


def cause_of(reason: str) -> str:
    """A reason in one of a few words, for a label; what is not known by its words is the kernel's."""
    return next((cause for words, cause in _CAUSES if words in reason), "kernel")


def summary(reasons: Mapping[str, str]) -> str:
    """The pods that are pending and why, by uid, for one line; of many, some."""
    shown = sorted(reasons.items())[:_SHOWN]
    more = [f"and {len(reasons) - _SHOWN} more"] if len(reasons) > _SHOWN else []
    return "; ".join([*(f"{uid}: {why}" for uid, why in shown), *more])


class Spaces:
    """The namespaces of which all pods that are known are to be in the mesh: a label has brought the
    namespace there, and so, mostly, the pods that it will have. Pods with their node's network do not
    count."""

    def __init__(self) -> None:
        self._inside: Counter[str] = Counter()
        self._outside: Counter[str] = Counter()

    def __contains__(self, namespace: object) -> bool:
        return bool(self._inside.get(namespace)) and not self._outside.get(namespace)  # type: ignore[call-overload]

    def change(self, before: Workload | None, after: Workload | None) -> None:
        """A workload has come, gone or changed."""
        for workload, by in ((before, -1), (after, 1)):
            if workload is not None and not workload.host_network:
                counts = self._inside if workload.enrolled else self._outside
                counts[workload.namespace] += by
                if not counts[workload.namespace]:
                    del counts[workload.namespace]


class Told:
    """Which reasons have been told: each once, and that a pod only starts when that has lasted."""

    def __init__(self) -> None:
        self._told: dict[str, str] = {}
        self._since: dict[str, float] = {}

    def fresh(self, reasons: Mapping[str, str], now: float) -> list[tuple[str, str]]:
        """Of the pods that are pending, by uid, those whose reason has to be told now."""
        self._since = {uid: self._since.get(uid, now) for uid in reasons}
        told = {
            uid: why
            for uid, why in reasons.items()
            if not why.startswith(NO_NAMESPACE) or now - self._since[uid] >= STARTS_SECONDS
        }
        fresh = [(uid, why) for uid, why in told.items() if self._told.get(uid) != why]
        self._told = told
        return fresh


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, by workload uid. `drop` and `withdraw` come first."""

    enroll: tuple[str, ...]
    withdraw: tuple[str, ...]
    drop: tuple[str, ...]
    waiting: tuple[str, ...]


def plan(wanted: Mapping[str, int | None], enrolled: Mapping[str, tuple[int, bool]]) -> Plan:
    """Compare what should be with what is.

    Args:
        wanted: uid to the inode of the pod's network namespace, None where it is not found.
        enrolled: uid to the inode that we hold and whether that namespace still exists.
    """
    gone = {uid for uid, (_, exists) in enrolled.items() if not exists}
    unwanted = {uid for uid in enrolled if uid not in wanted}
    moved = {
        uid for uid, (inode, _) in enrolled.items() if uid in wanted and wanted[uid] not in (None, inode)
    }
    leaving = gone | unwanted | moved
    return Plan(
        enroll=tuple(
            sorted(uid for uid, inode in wanted.items() if inode and (uid not in enrolled or uid in leaving))
        ),
        withdraw=tuple(sorted((unwanted | moved) - gone)),
        drop=tuple(sorted(gone)),
        waiting=tuple(sorted(uid for uid, inode in wanted.items() if inode is None)),
    )
