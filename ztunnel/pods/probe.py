"""Looks whether a pod is in another mesh already: then it is that one's, and is left alone.

Istio's ztunnel listens in the pod's namespace, from a cgroup that is none of the pod's: that proves it, and
no process of the pod can pretend it. The rules of Istio's CNI agent alone prove nothing: a process of the
pod may have made them, or the agent may have left them behind. A pod that has them is not let out of this
mesh, and not enrolled either, as they would lead its traffic past us."""

from __future__ import annotations

import os
from collections.abc import Container
from typing import Final, NamedTuple

from ztunnel.kernel import istio
from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.model.workload import LeftTo, Workload
from ztunnel.pods.enroll import open_namespace
from ztunnel.pods.find import Finder
from ztunnel.pods.kubelet import Place
from ztunnel.pods.lifecycle import OTHER_MESH
from ztunnel.pods.listen import CannotEnroll

SERVED: Final = "Istio's ztunnel serves it (it listens on 15001, 15006 and 15008 in the pod)"
ANNOTATED: Final = "Istio's CNI agent has enrolled it (annotation ambient.istio.io/redirection)"


class Alone(NamedTuple):
    """A pod that is left alone, by the inode of its namespace, and why."""

    inode: int
    reason: str


class Neighbours:
    """The pods of one node that are another mesh's.

    Attributes:
        alone: those that are left alone, by uid.
    """

    def __init__(self, find: Finder) -> None:
        self.alone: dict[str, Alone] = {}
        self._find = find

    def look(self, workload: Workload, place: Place) -> bool:
        """Whether this pod is left alone. Once it is, it stays so while the other mesh's rules are there: its
        proxy may just be replaced. An annotation that says so counts no longer than these: Istio may have
        been taken away, or the machine started anew, without it. Takes some 400 us.

        Raises:
            CannotEnroll: only rules are there. OSError: the namespace is not there any more.
        """
        before = self.alone.pop(workload.uid, None)
        netns = open_namespace(place)
        try:
            is_served = self._is_served(netns, place)
            if not is_served and not istio.has_rules(netns):
                return False
        finally:
            netns.close()
        is_known = before is not None and before.inode == place.inode
        if not is_served and not is_known and workload.left_to is not LeftTo.ISTIO:
            raise CannotEnroll(
                f"pod {workload.namespace}/{workload.name}: {OTHER_MESH}: rules of Istio's CNI agent are in "
                f"the "
                "pod (chains ISTIO_...), and no ztunnel of Istio's serves it: let that agent remove them, or "
                "delete the pod"
            )
        self.alone[workload.uid] = Alone(place.inode, SERVED if is_served else ANNOTATED)
        return True

    def only(self, uids: Container[str]) -> None:
        """Other pods are not wanted any more."""
        self.alone = {uid: each for uid, each in self.alone.items() if uid in uids}

    def _is_served(self, netns: NetworkNamespace, place: Place) -> bool:
        found = istio.listeners(netns)
        if found.keys() != set(istio.PORTS):
            return False
        own = self._cgroups(place.pod)
        return bool(own) and not any(0 in cgroups or cgroups & own for cgroups in found.values())

    def _cgroups(self, pod: str) -> set[int]:
        """The ids of a pod's cgroups; none where it is not known, or in v1 alone."""
        paths = [one.cgroup.path for one in self._find.started() if pod and one.uid == pod]
        if not paths or self._find.branch() is None:
            return set()
        return {os.stat(each).st_ino for each, _, _ in os.walk(paths[0])}
