"""Follows the pods of a kubelet: which network namespace is whose, as pods, sandboxes and containers come and
go.

Inotify tells of every directory that a kubelet or a runtime makes or removes for a pod. A process is in the
pod's cgroup some milliseconds before it is in the pod's namespace, and of that nobody tells: so a pod in
which something has just come is looked at again, at growing intervals, until nothing of it is on its way any
more. Everything is looked at every few seconds besides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import trio

from ztunnel.kernel.inotify import Inotify
from ztunnel.kernel.netlink import addresses
from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.model.address import IPAddress
from ztunnel.model.workload import Workload
from ztunnel.pods.gather import Listing, Seen, find_kubepods, list_pods, look_into_all
from ztunnel.pods.kubelet import Place, PodName, Sightings, Started
from ztunnel.pods.lifecycle import NO_NAMESPACE
from ztunnel.redirect.classify import PodsBranch

SWEEP_SECONDS = 5.0
_COALESCE_SECONDS = 0.002
"""After the first of what changes: a container is several directories."""

AGAIN_SECONDS = (0.004, 0.008, 0.016, 0.03, 0.06, 0.12, 0.25, 0.5)
"""Until a pod in which something has come is looked at again; it takes a loaded machine that long."""

_CANDIDATES = 8
"""Namespaces of one pod whose addresses are looked at: the sandbox's is among the first."""


@dataclass(frozen=True, slots=True)
class _Looked:
    listing: Listing
    seen: Mapping[str, Seen]


@dataclass(slots=True)
class _Due:
    """What has to be looked at."""

    kubepods: bool = True
    listing: bool = True
    pods: set[str] | None = field(default_factory=set)
    """By UID; None is all."""


class KubeletPods:
    """The namespaces of the pods that a kubelet runs on this machine."""

    def __init__(self, logs: Path, proc: Path = Path("/proc"), mounts: str = "/proc/mounts") -> None:
        """`logs`: where the kubelet makes pods' log directories. `proc`: where the processes of the node are
        seen. `mounts`: where the cgroups' hierarchies are told."""
        self._logs, self._proc, self._mounts = logs, proc, mounts
        self._sightings = Sightings()
        self._listing = Listing()
        self._again: dict[str, tuple[float, int]] = {}
        self._troubles: dict[str, str] = {}
        self._running: set[str] = set()
        self._chosen: dict[str, tuple[tuple[IPAddress, ...], Place]] = {}

    # What others ask.

    def find(self, workload: Workload) -> Place | None:
        """That pod's namespace; None where there is none, not yet, or where it cannot be told which it is."""
        name = PodName(workload.namespace, workload.name)
        places = self._sightings.places(name, workload.pod_uid)
        if len(places) > 1:
            wanted, before = self._chosen.get(workload.uid, ((), None))
            if before in places and wanted == workload.addresses:
                return before
            places = self._with_address(places, workload.addresses)
        self._chosen.pop(workload.uid, None)
        if len(places) != 1:
            return None
        self._chosen[workload.uid] = workload.addresses, places[0]
        return places[0]

    def exists(self, place: Place) -> bool:
        """Whether the namespace is still that of its pod: while processes of the pod are in it, and for
        `LINGER_SECONDS` more while the pod has a cgroup."""
        return self._sightings.holds(place)

    def missing(self, workload: Workload) -> str:
        """Why it is not found."""
        name = PodName(workload.namespace, workload.name)
        places = self._sightings.places(name, workload.pod_uid)
        if len(places) > 1:
            return f"{NO_NAMESPACE}: {len(places)} are, and it cannot be told yet which of them is the pod's"
        if self._listing.trouble:
            return f"{NO_NAMESPACE}: {self._listing.trouble}"
        if not self._sightings.has_cgroup(name, workload.pod_uid):
            return f"{NO_NAMESPACE}: the kubelet has not begun with the pod"
        troubles = filter(None, map(self._troubles.get, self._sightings.uids(name)))
        return f"{NO_NAMESPACE}: {next(troubles, 'none of its processes runs')}"

    def started(self) -> Sequence[Started]:
        """The pods that the kubelet has begun with, whether their namespaces are there or not."""
        return self._sightings.started(self._running)

    def branch(self) -> PodsBranch | None:
        """Where their cgroups are in cgroup v2; None where they are not, or not yet."""
        return self._listing.branch

    def _with_address(self, places: list[Place], wanted: tuple[IPAddress, ...]) -> list[Place]:
        return [place for place in places[:_CANDIDATES] if set(wanted).intersection(_addresses_at(place))]

    # Following.

    async def follow(
        self, stirred: Callable[[], None], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Until cancelled; `stirred` is called when a namespace was found or is no pod's any more. Started
        when everything was looked at once."""
        due = _Due(pods=None)
        sweep_at = trio.current_time() + SWEEP_SECONDS
        with ExitStack() as stack:
            inotify: Inotify | None = None
            with suppress(OSError):  # without it, only every few seconds
                inotify = stack.enter_context(Inotify())
            while True:
                looked = await trio.to_thread.run_sync(self._look, due, inotify)
                if self._apply(looked, trio.current_time()):
                    stirred()
                task_status.started()
                task_status = trio.TASK_STATUS_IGNORED
                due = await self._wait(inotify, sweep_at)
                if trio.current_time() >= sweep_at:
                    sweep_at = trio.current_time() + SWEEP_SECONDS
                    due = _Due(pods=None)

    def _look(self, due: _Due, inotify: Inotify | None) -> _Looked:
        """In a thread; nothing is changed here. What comes in a directory that is not watched yet is seen by
        listing once more after it is."""
        listing = self._listing
        if due.listing:
            kubepods = listing.kubepods
            if due.kubepods or not kubepods:
                kubepods = find_kubepods(self._mounts)
            watched: frozenset[str] = frozenset()
            while True:
                listing = list_pods(kubepods, self._logs, self._mounts)
                places = listing.watched | {each.path for each in listing.cgroups.values()}
                if inotify is None or places <= watched:
                    break
                with suppress(OSError):  # too many watches: found by looking now and then
                    inotify.watch_only(places)
                watched = places
        known = self._sightings.cgroups
        wanted = [
            (uid, each.path)
            for uid, each in listing.cgroups.items()
            if due.pods is None or uid in due.pods or known.get(uid) != each
        ]
        return _Looked(listing, look_into_all(wanted, self._proc))

    def _apply(self, looked: _Looked, now: float) -> bool:
        """Whether anything is new."""
        listing, self._listing = self._listing, looked.listing
        known = self._sightings.cgroups
        changed = self._sightings.name(looked.listing.names)
        changed |= self._sightings.only(looked.listing.cgroups)
        changed |= (listing.trouble, listing.branch) != (looked.listing.trouble, looked.listing.branch)
        self._running &= looked.listing.cgroups.keys()
        self._again = {uid: each for uid, each in self._again.items() if uid in looked.listing.cgroups}
        self._troubles = {uid: each for uid, each in self._troubles.items() if uid in looked.listing.cgroups}
        for uid, seen in looked.seen.items():
            changed |= self._sightings.see(uid, seen.namespaces, now, seen.began)
            self._troubles[uid] = seen.trouble
            if seen.namespaces or seen.elsewhere:
                self._running.add(uid)
            if uid not in known:
                self._again[uid] = now, 0
            self._settle(uid, seen.elsewhere or not seen.namespaces, now)
        return changed

    def _settle(self, uid: str, on_its_way: bool, now: float) -> None:
        """Look again at a pod in which something may be on its way, unless that has lasted."""
        _, tries = self._again.pop(uid, (0.0, len(AGAIN_SECONDS)))
        if on_its_way and tries < len(AGAIN_SECONDS):
            self._again[uid] = now + AGAIN_SECONDS[tries], tries + 1

    async def _wait(self, inotify: Inotify | None, sweep_at: float) -> _Due:
        """Until something has changed, or has to be looked at again."""
        leaving = self._sightings.leaving()
        times = {uid: at for uid, (at, _) in self._again.items()}
        until = min((sweep_at, *leaving.values(), *times.values()))
        changed: frozenset[str] | None = frozenset()
        with trio.move_on_at(until):
            if inotify is None:
                await trio.sleep_forever()
            else:
                await trio.lowlevel.wait_readable(inotify)
                await trio.sleep(_COALESCE_SECONDS)
        if inotify is not None:
            changed = inotify.changed()
        now = trio.current_time()
        again = {uid for uid, at in (*times.items(), *leaving.items()) if at <= now}
        if changed is None:
            return _Due(pods=None)
        by_path = {each.path: uid for uid, each in self._sightings.cgroups.items()}
        pods = {by_path[path] for path in changed if path in by_path}
        self._again.update(dict.fromkeys(pods, (now, 0)))
        return _Due(kubepods=False, listing=bool(changed - by_path.keys()), pods=pods | again)


def _addresses_at(place: Place) -> tuple[IPAddress, ...]:
    """Nothing where the namespace is not there any more."""
    with suppress(OSError), NetworkNamespace.open(place.path) as netns:
        if netns.inode == place.inode:
            return addresses(netns)
    return ()
