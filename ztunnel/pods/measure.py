"""Measures the pods of a node: connections that are older than the mesh, pods that wait for it, how long one
waited."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from typing import Protocol

from ztunnel.kernel.processes import since_boot
from ztunnel.model.workload import Workload
from ztunnel.pods.enroll import outside_of
from ztunnel.pods.hold import Held
from ztunnel.pods.kubelet import Place
from ztunnel.pods.lifecycle import cause_of
from ztunnel.state.world import World
from ztunnel.telemetry.component import PodFigures
from ztunnel.telemetry.export import Log
from ztunnel.telemetry.figures import Figures, Read, Sample


class Starts(Protocol):
    """The part of `classify.Starting` that is needed."""

    def enrolled(self, pod: str) -> bool: ...


def outside(held: Mapping[str, Held], world: Callable[[], World]) -> Iterator[Sample]:
    """For each pod, how many of its connections were made before it was enrolled and still live.

    Others may run between two pods: each costs a system call.
    """
    for uid, each in tuple(held.items()):
        workload = world().workload(uid)
        if workload is not None:
            try:
                live = outside_of(each.enrolled)
            except OSError:
                continue
            each.enrolled.outside = frozenset(one.cookie for one in live)
            yield (workload.namespace, workload.name), len(live)


def pending(reasons: Mapping[str, str], world: World) -> list[Sample]:
    """The pods that are wanted in the mesh and are not in it, or not as they have to be; `reasons` by uid."""
    known = ((world.workload(uid), why) for uid, why in reasons.items())
    return [((workload.namespace, workload.name, cause_of(why)), 1.0) for workload, why in known if workload]


def unenrolled(seconds: Mapping[str, float], world: World) -> list[Sample]:
    """The pods that ran outside of the mesh though they were opted in, and for how long; by uid."""
    known = ((world.workload(uid), ran) for uid, ran in seconds.items())
    return [((workload.namespace, workload.name), ran) for workload, ran in known if workload]


def register(figures: Figures, outside: Read, pending: Read, unenrolled: Read) -> None:
    """Bring what the functions above say to the register."""
    figures.gauge(
        "ztunnel_connections_outside_mesh",
        "Connections of enrolled pods that were made before they were enrolled",
        outside,
        ["namespace", "pod"],
    )
    figures.gauge(
        "ztunnel_pods_pending",
        "Pods that are wanted in the mesh and are not in it: nothing leaves or reaches them meanwhile",
        pending,
        ["namespace", "pod", "reason"],
    )
    figures.gauge(
        "ztunnel_pod_unenrolled_seconds",
        "For how long at the most a pod ran before it was enrolled, though it was opted in",
        unenrolled,
        ["namespace", "pod"],
    )


def waited(place: Place) -> float | None:
    """For how many seconds the first process of a pod has run, or had it not ended; None where there is none,
    as in the laboratory."""
    return max(0.0, since_boot() - place.began) if place.pod else None


class Entries:
    """Measures pods as they come into the mesh.

    Attributes:
        figures: where they are counted; None: nowhere.
        outside: by uid the pods that ran outside of the mesh though they were opted in, and for how many
            seconds at the most: they are older than the proxy, or were quicker. Where they are opted in
            while the proxy runs, or were refused meanwhile, they are not among them.
    """

    def __init__(self, starting: Starts, log: Log) -> None:
        self.figures: PodFigures | None = None
        self.outside: dict[str, float] = {}
        self._starting, self._log = starting, log
        self._began = since_boot()
        self._seen: dict[str, int] = {}
        self._excused: set[str] = set()

    def begin(self) -> None:
        """From now on pods are served: what starts later is younger than we are."""
        self._began = since_boot()

    def excuse(self, uids: Iterable[str]) -> None:
        """It is right that these are not in the mesh now."""
        self._excused.update(uids)

    def changed(self, uid: str, before: Workload | None, after: Workload | None) -> None:
        """The world says otherwise of a pod of this node."""
        if after is None:
            self._excused.discard(uid)
        elif before is not None and not before.enrolled:
            self._excused.add(uid)

    def only(self, uids: Container[str]) -> None:
        """Other pods are not wanted any more."""
        self._seen = {uid: inode for uid, inode in self._seen.items() if uid in uids}
        self.outside = {uid: seconds for uid, seconds in self.outside.items() if uid in uids}

    def refused(self, uid: str, place: Place, *, is_known: bool) -> None:
        """From now on the pod is refused, until it is enrolled; `is_known`: the kernel has had it before."""
        after = waited(place)
        if after is not None and self._is_new(uid, place) and not is_known and self._is_older(after):
            self.outside[uid] = after

    def enrolled(self, workload: Workload, place: Place, *, is_known: bool) -> None:
        """From now on the pod is in the mesh."""
        after, missed = waited(place), self._starting.enrolled(place.pod)
        is_new = self._is_new(workload.uid, place)
        self._excused.discard(workload.uid)
        if after is None:
            return
        if is_new and (missed or (self._is_older(after) and not is_known)):
            self.outside[workload.uid] = after
        if self.figures is not None and not self._is_older(after):
            self.figures.enrolled(after)
        if missed:
            self.missed(f"{workload.namespace}/{workload.name}", after)

    def missed(self, pod: str, seconds: float | None = None) -> None:
        """A process of that pod was quicker than we were; it was enrolled so long after its first process, or
        has ended before."""
        if self.figures is not None:
            self.figures.missed()
        fields = {} if seconds is None else {"seconds": round(seconds, 2)}
        self._log.warn("pod called before it was enrolled", pod=pod, **fields)

    def show(self, uid: str) -> dict[str, object]:
        """For the configuration dump."""
        seconds = self.outside.get(uid)
        return {} if seconds is None else {"unenrolledSeconds": round(seconds, 1)}

    def _is_older(self, after: float) -> bool:
        return after > since_boot() - self._began

    def _is_new(self, uid: str, place: Place) -> bool:
        """Whether this is the first that we do about that pod, and it should have been done before."""
        before, self._seen[uid] = self._seen.get(uid), place.inode
        return before != place.inode and uid not in self._excused
