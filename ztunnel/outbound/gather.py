"""Reads what the kernel reports through a ring buffer, as it comes and a few milliseconds' worth at a time;
and knows of which pod it speaks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from select import EPOLLIN

from ztunnel.flow.engine import Engine
from ztunnel.redirect.enroll import PodNetwork

RECORDS = 128
"""Read in one go: a pod that runs against a refusal must not keep established flows waiting."""

_PAUSE_SECONDS = 1.0
_GATHER_SECONDS = 0.004


class Gatherer:
    """One ring buffer. `pull` reads up to `RECORDS`, and returns how many there were."""

    def __init__(self, engine: Engine, fd: int, pull: Callable[[], int]) -> None:
        self._engine = engine
        self._fd = fd
        self._pull = pull
        self._watching = False

    def watch(self) -> None:
        """From now on."""
        self._watching = True
        self._engine.watch(self._fd, EPOLLIN, self._woken, lambda bug: None)

    def stop(self) -> None:
        """No more: there is one reader at a time, and somebody else is it."""
        if self._watching:
            self._watching = False
            self._engine.unwatch(self._fd)

    def _woken(self, mask: int) -> None:
        """The first record wakes us up; while more come, they are gathered."""
        self._engine.rewatch(self._fd, 0)
        self._gather()

    def _gather(self) -> None:
        if not self._watching:
            return
        try:
            count = self._pull()
        except BaseException:
            self._engine.after(_PAUSE_SECONDS, self._gather)  # the engine reports it: no other before that
            raise
        if count:
            self._engine.after(_GATHER_SECONDS if count < RECORDS else 0.0, self._gather)
        else:
            self._engine.rewatch(self._fd, EPOLLIN)


class Namespaces:
    """The enrolled pods by the cookies of their namespaces."""

    def __init__(self, pods: Mapping[str, PodNetwork]) -> None:
        """`pods` are the enrolled ones by uid, kept by `pods/`."""
        self._pods = pods
        self._uids: dict[int, str] = {}

    def pod_of(self, cookie: int) -> str:
        """The uid of the pod, empty where it is none. Pods come and go: what is remembered may be old."""
        uid = self._uids.get(cookie, "")
        if uid not in self._pods or self._pods[uid].cookie != cookie:
            self._uids = {network.cookie: each for each, network in self._pods.items()}
            uid = self._uids.get(cookie, "")
        return uid
