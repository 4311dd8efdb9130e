"""What stands on a pod about its enrolment, and what has to be written there.

Istio's CNI agent annotates a pod that it has enrolled with `ambient.istio.io/redirection: enabled`, and one
that it has enrolled in part with `pending` (istio/istio cni/pkg/util/podutil.go). We write the same, and a
second one by which ours are told from those of that agent."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from ztunnel.state import kube
from ztunnel.state.meta import Meta
from ztunnel.xds.enrolment import EnrolledPod

REDIRECTION: Final = "ambient.istio.io/redirection"
ENABLED, _PENDING = "enabled", "pending"
OURS: Final = "ztunnel.io/redirection"
_MIRROR, _STATIC_UID = "kubernetes.io/config.mirror", "kubernetes.io/config.hash"
OF_STATIC_PODS: Final = frozenset((_MIRROR, _STATIC_UID))
"""Annotations that say what the kubelet knows a pod by."""

Name = tuple[str, str]
"""Namespace and name of a pod."""


def kubelet_uid(meta: Meta) -> str:
    """What the kubelet knows the pod by: a static pod by the hash of its manifest, and not by the UID of the
    pod that it shows in the API in its place (kubernetes pkg/kubelet/types)."""
    return meta.annotations.get(_STATIC_UID, "") if _MIRROR in meta.annotations else meta.uid


def is_ours(pod: kube.Pod) -> bool:
    """Whether it is written on the pod that it is in the mesh by us."""
    return OURS in pod.meta.annotations


def is_foreign(pod: kube.Pod) -> bool:
    """Whether it is written on the pod that Istio's CNI agent has enrolled it."""
    value = pod.meta.annotations.get(REDIRECTION)
    return value in (ENABLED, _PENDING) and not is_ours(pod)


@dataclass(frozen=True, slots=True)
class Due:
    """What has to stand on a pod: that it is enrolled, or nothing."""

    uid: str
    enrolled: bool


class Note(NamedTuple):
    """A merge patch of a pod; it applies to the pod of that UID alone."""

    value: Mapping[str, Any]
    enrolled: bool


def due(pods: Iterable[kube.Pod], reported: Collection[EnrolledPod]) -> dict[Name, Due]:
    """What a node proxy's report asks for.

    Args:
        pods: those that run on its node, as far as they are known.
        reported: those that it says are in the mesh.
    """
    found = {(one.namespace, one.name): Due(one.uid, enrolled=True) for one in sorted(reported)}
    for pod in pods:
        if is_ours(pod):
            found.setdefault(pod.meta.full_name, Due(kubelet_uid(pod.meta), enrolled=False))
    return found


def note(pod: kube.Pod, wanted: Due) -> Note | None:
    """What to write on the pod; None for nothing: it is another one than is meant, all is there, or the pod
    ends anyway. A word of Istio's CNI agent becomes ours where the node proxy has found that it is true no
    more."""
    if kubelet_uid(pod.meta) != wanted.uid or pod.meta.deleting or pod.ended:
        return None
    stands = is_ours(pod) and pod.meta.annotations.get(REDIRECTION) == ENABLED
    if stands if wanted.enrolled else not is_ours(pod):
        return None
    value = ENABLED if wanted.enrolled else None
    made = {REDIRECTION: value, OURS: value}
    return Note({"metadata": {"uid": pod.meta.uid, "annotations": made}}, wanted.enrolled)
