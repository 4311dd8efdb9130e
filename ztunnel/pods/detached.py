"""Pods that are not enrolled although the world wants them: an operator has taken them out of the mesh, or
the mesh ends on this node."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from typing import Final, Protocol

from ztunnel.model.workload import LeftTo, Workload
from ztunnel.pods.lifecycle import summary
from ztunnel.telemetry.readiness import Readiness

_DETACHED, _LEFT = "detached pods", "pods of other meshes"
_SIDECAR: Final = "it has a sidecar"


class Exceptions(Protocol):
    """Which pods an operator has taken out, by `namespace/name`, and where those that are in the mesh are
    written down (`run.detach.Detachments`)."""

    def read(self) -> Container[str]: ...
    def remember(self, names: Mapping[int, str]) -> None: ...


class _Nobody:
    def read(self) -> Container[str]:
        return ()

    def remember(self, names: Mapping[int, str]) -> None:
        """Nobody asks."""


NOBODY: Exceptions = _Nobody()


class LeftOut:
    """Says which pods are to be enrolled.

    Attributes:
        ends: none any more.
        apart: by uid those that the world wants and that are left out, as of the last look.
        left: by uid those that another mesh serves, and why that is so.
    """

    def __init__(self, readiness: Readiness, warn: Callable[..., None]) -> None:
        self.exceptions = NOBODY
        self.ends = False
        self.apart: frozenset[str] = frozenset()
        self.left: dict[str, str] = {}
        self._readiness = readiness
        self._warn = warn
        self._told: list[str] = []
        self._left_told: dict[str, str] = {}

    def wanted(self, workloads: Iterable[Workload]) -> dict[str, Workload]:
        """Those of these that are to be enrolled, by uid; who is left out is said. Of those that are said to
        be Istio's it has to be found out."""
        known = list(workloads)
        enrolled = {each.uid: each for each in known if each.may_be_enrolled}
        self.left = {each.uid: _SIDECAR for each in known if each.left_to is LeftTo.SIDECAR}
        detached = self.exceptions.read()
        named = {uid: name for uid in enrolled if (name := name_of(uid)) in detached}
        self.apart = frozenset(enrolled if self.ends else named)
        told = sorted(named.values())
        if told != self._told:
            self._told = told
            self._warn("pods detached", pods=", ".join(told) or "none any more")
        self._readiness.detail(_DETACHED, f"{', '.join(told)}: by `ztunnel detach`" if told else "")
        return {uid: each for uid, each in enrolled.items() if uid not in self.apart}

    def leave(self, alone: Mapping[str, str]) -> None:
        """These are another mesh's as well, by uid and with the reason; who is, is said."""
        before = self._left_told
        self.left.update(alone)
        self._left_told = {name_of(uid): why for uid, why in sorted(self.left.items())}
        for name in self._left_told.keys() - before.keys():
            self._warn("pod left alone", pod=name, reason=self._left_told[name])
        self._readiness.detail(_LEFT, summary(self._left_told))

    def remember(self, cookies: Mapping[str, int]) -> None:
        """The pods that the kernel redirects or refuses now, by uid: for `ztunnel detach`, where nobody else
        knows which pod is which."""
        self.exceptions.remember({cookie: name_of(uid) for uid, cookie in cookies.items()})


def name_of(uid: str) -> str:
    """`namespace/name` of a pod, of its workload's uid."""
    return "/".join(uid.split("/")[-2:])
