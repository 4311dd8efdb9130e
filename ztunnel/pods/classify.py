"""Says of each pod that starts on this node whether its processes have to wait, before its namespace is
known.

A kubelet makes a pod's cgroup and log directory before the first process of the pod runs, and the world names
the pod when it is scheduled. From then until it is enrolled the kernel refuses its calls by its cgroup:
between the two, a container might be quicker than we are. It is refused for a bounded time: one that cannot
be enrolled is refused by its namespace as soon as that is found.

- `off`: nobody waits.
- `optedIn`: the pods that the world says are in the mesh, until they are enrolled. A control plane may be
  slower than a kubelet: a pod that it has not named waits for that if all others of its namespace are in the
  mesh.
- `all`: all pods, until they are enrolled or known not to be in the mesh; those that start without a proxy,
  too.

Pods of kube-system and of our own namespace, and those with their node's network, never wait. Nor do those
that run outside of the mesh when a label brings them into it: their calls go as before until they are
enrolled, which for the last one of many may take a second.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Container, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import trio

from ztunnel.config import StrictStart
from ztunnel.model.workload import Workload
from ztunnel.pods.find import Finder
from ztunnel.pods.kubelet import PodName, Started
from ztunnel.redirect.classify import PodsBranch, Starts
from ztunnel.redirect.layout import StartRule

BOUND_SECONDS = 60.0
"""So long a pod waits at most once one of its processes was seen."""

NOT_IN_V2: Final = (
    "the containers of pods are not in cgroup v2, or in several places of it: pods that start do not wait "
    "until they are enrolled (strictStart). Have the kubelet and the container runtime use cgroup v2"
)

_BOUND_NS = round(BOUND_SECONDS * 1e9)

NEVER: Final = frozenset({"kube-system"})


_RULES = {StrictStart.OPTED_IN: StartRule.NAMED, StrictStart.ALL: StartRule.ALL_PODS}


@dataclass(slots=True)
class _Waits:
    """When the pod's time is up, and whether that stands, because a process of it runs."""

    until_ns: int
    runs: bool


class Starting:
    """The pods of one node that wait.

    Attributes:
        misses: pods of the mesh of which a process called somebody before the pod was enrolled.
    """

    def __init__(
        self, starts: Starts, mode: StrictStart, find: Finder, exempt: Collection[str] = NEVER
    ) -> None:
        """`exempt` are namespaces whose pods never wait."""
        self.misses = 0
        self._starts, self._mode, self._find, self._exempt = starts, mode, find, exempt
        self._branch: PodsBranch | None = None
        self._waits: dict[int, _Waits] = {}
        self._passes: set[int] = set()
        self._numbers: dict[str, int] = {}
        self._names: dict[int, PodName] = {}
        self._older: frozenset[int] | None = None
        self._outside: set[int] = set()
        self._joins: set[int] = set()
        self._quicker: list[PodName] = []

    def look(
        self, workloads: Iterable[Workload], enrolled: Collection[str], spaces: Container[str] = ()
    ) -> None:
        """Tell the kernel who has to wait now. Takes 2 us a pod, and waits for nothing.

        Args:
            workloads: all of this node.
            enrolled: by uid those that are in the mesh.
            spaces: the namespaces of which all pods are to be in the mesh, as far as the world knows them.

        Raises:
            OSError: the kernel refuses; it may be called again.
        """
        pods = self._find.started()
        if self._older is None:
            self._older = self._begin({pod.cgroup.number for pod in pods})
        if self._mode is StrictStart.OFF:
            return
        known = {(each.namespace, each.name, each.pod_uid): each for each in workloads}
        self._miss_ended({pod.cgroup.number for pod in pods})
        self._names = {pod.cgroup.number: pod.name for pod in pods}
        self._numbers = {pod.uid: pod.cgroup.number for pod in pods}
        wait: dict[int, bool] = {}
        for pod in pods:
            workload = known.get((*pod.name, pod.uid)) or known.get((*pod.name, ""))
            if workload is None:
                waits = self._waits_for_the_world(pod, spaces)
            else:
                waits = self._waits_to_be_enrolled(pod, workload, enrolled)
            if waits and pod.name.namespace not in self._exempt:
                wait[pod.cgroup.number] = pod.runs
        self._hold(wait)
        self._let_go(wait, set(self._numbers.values()))
        branch = self._find.branch()
        if branch is not None and branch != self._branch:
            self._starts.rule(_RULES[self._mode], branch)
            self._branch = branch

    @property
    def trouble(self) -> str:
        """Why pods cannot be made to wait; empty where they can, need not, or none is there."""
        if self._mode is StrictStart.OFF or not self._numbers or self._find.branch() is not None:
            return ""
        return NOT_IN_V2

    async def until(self, known: trio.Event) -> None:
        """Until the world is known: pods that never wait are let pass all the same. The control plane from
        which the world comes may be one of them, and have started while no proxy ran."""

        def look() -> None:
            with suppress(OSError):  # it is tried again
                self.look((), ())

        async with trio.open_nursery() as nursery:
            await nursery.start(self._find.follow, look)
            look()
            await known.wait()
            nursery.cancel_scope.cancel()

    def enrolled(self, pod: str) -> bool:
        """The pod of this UID has just been enrolled: whether a process of it, which was in the mesh from its
        start, was quicker."""
        number = self._numbers.get(pod)
        return number is not None and self._was_quicker(number)

    def ended(self) -> list[PodName]:
        """The pods of the mesh that have called somebody and ended before they were enrolled; each is told
        once."""
        ended, self._quicker = self._quicker, []
        return ended

    def _miss_ended(self, numbers: Container[int]) -> None:
        """Of those that wait, or did until their time was up, some are not there any more."""
        for number in self._waits:
            if number not in numbers and self._was_quicker(number):
                self._quicker.append(self._names[number])

    def _was_quicker(self, number: int) -> bool:
        if not self._starts.called_early(number):
            return False
        early = number not in self._outside and number not in (self._older or ())
        self.misses += early
        return early

    def _begin(self, numbers: set[int]) -> frozenset[int]:
        """What a predecessor has left, where it is to stay, stays. Which pods are older than we are."""
        is_all = self._mode is StrictStart.ALL
        lasting = is_all and self._starts.refuses_unknown()
        if not is_all:
            self._starts.rule(None)
        for number in self._starts.known() - (numbers if lasting else set()):
            self._starts.forget(number)
        return frozenset(self._starts.known() if lasting else numbers)

    def _waits_for_the_world(self, pod: Started, spaces: Container[str]) -> bool:
        if pod.cgroup.number in (self._older or ()):
            return False
        return self._mode is StrictStart.ALL or pod.name.namespace in spaces

    def _waits_to_be_enrolled(self, pod: Started, workload: Workload, enrolled: Collection[str]) -> bool:
        number = pod.cgroup.number
        if not workload.enrolled:
            self._outside.add(number)
            if pod.runs:
                self._joins.add(number)
        elif workload.uid in enrolled:
            self._joins.discard(number)
            return False
        return workload.enrolled and number not in self._joins

    def _hold(self, wait: Mapping[int, bool]) -> None:
        now_ns = time.monotonic_ns()
        for number, runs in wait.items():
            before = self._waits.get(number)
            if before is None or (not before.runs and (runs or before.until_ns - now_ns < _BOUND_NS // 2)):
                self._waits[number] = _Waits(now_ns + _BOUND_NS, runs)
                self._starts.hold(number, now_ns + _BOUND_NS)

    def _let_go(self, wait: Mapping[int, bool], numbers: set[int]) -> None:
        passes = numbers - wait.keys() if self._mode is StrictStart.ALL else set()
        for number in passes - self._passes:
            self._starts.let_pass(number)
        for number in (self._waits.keys() | self._passes) - wait.keys() - passes:
            self._starts.forget(number)
        self._waits = {number: each for number, each in self._waits.items() if number in wait}
        self._passes = passes
        self._outside &= numbers
        self._joins &= numbers
