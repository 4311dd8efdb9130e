"""Whether the node proxies of a cluster are being replaced, or that has come to a halt, out of their pods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

_REVISION: Final = "controller-revision-hash"
"""The label by which a DaemonSet tells the versions of its pods."""

Pod = Mapping[str, Any]


def rollout_remarks(pods: Sequence[Pod]) -> list[str]:
    """What there is to say, line by line; nothing where every node has one proxy, all of one version.

    An upgrade that was interrupted looks like one that goes on, but for its pods that are not ready.
    """
    revisions = {_revision(pod) for pod in pods}
    by_node: dict[str, list[Pod]] = {}
    for pod in sorted(pods, key=_made):
        by_node.setdefault(str(pod.get("spec", {}).get("nodeName", "")), []).append(pod)
    if len(revisions) < 2 and all(len(there) == 1 for there in by_node.values()):
        return []
    newest = _revision(max(pods, key=_made))
    done = {pod["spec"]["nodeName"] for pod in pods if _revision(pod) == newest and _is_ready(pod)}
    served = f"{len(done)} of {len(by_node)} nodes are served by the newest version of the DaemonSet"
    found = [
        f"upgrade: {served}; it goes on by itself, or has come to a halt: `helm rollback`, or an upgrade "
        "that works, ends it"
    ]
    for node, there in sorted(by_node.items()):
        last = there[-1]
        if _revision(last) != newest:
            found.append(f"{node}: {_name(last)} is of an earlier version")
        elif not _is_ready(last):
            serves = next((f"; {_name(pod)} serves" for pod in there if _is_ready(pod)), "; no proxy serves")
            found.append(f"{node}: {_name(last)} has not taken over: {_why(last)}{serves}")
    return found


def holder_remarks(pods: Sequence[Pod]) -> list[str]:
    """Of holders those that do not run: nobody keeps connections of their node between two proxies, nor lets
    its pods go where no proxy can."""
    return [
        f"{pod.get('spec', {}).get('nodeName', '')}: no holder runs: {_name(pod)}: {_why(pod)}"
        for pod in pods
        if not _is_ready(pod)
    ]


def refusal_of(daemon_sets: Sequence[Mapping[str, Any]], events: Sequence[Mapping[str, Any]]) -> str:
    """Why DaemonSets make no pods, in the API server's words, as where a namespace admits no privileged ones;
    empty where there is none."""
    for each in daemon_sets:
        name = f"{each['metadata']['namespace']}/{each['metadata']['name']}"
        wanted = each.get("status", {}).get("desiredNumberScheduled", 0)
        refused = [
            one
            for one in events
            if one.get("reason") == "FailedCreate"
            and one.get("involvedObject", {}).get("name") == each["metadata"]["name"]
        ]
        if refused:
            newest = max(refused, key=lambda one: str(one.get("lastTimestamp") or ""))
            return f"DaemonSet {name} cannot make its pods: {newest.get('message', '')}"
        return (
            f"DaemonSet {name} has no pods yet, and wants {wanted}: look again"
            if wanted
            else f"DaemonSet {name} is for no node of this cluster: see its nodeSelector and tolerations"
        )
    return ""


def _made(pod: Pod) -> str:
    return str(pod["metadata"].get("creationTimestamp", ""))


def _revision(pod: Pod) -> str:
    return str(pod["metadata"].get("labels", {}).get(_REVISION, ""))


def _name(pod: Pod) -> str:
    return str(pod["metadata"]["name"])


def _is_ready(pod: Pod) -> bool:
    conditions = pod.get("status", {}).get("conditions", ())
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)


def _why(pod: Pod) -> str:
    """Of its containers the first that waits or has failed, in the kubelet's words."""
    status = pod.get("status", {})
    for one in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        state = one.get("state", {})
        waiting, ended = state.get("waiting", {}), state.get("terminated", {})
        if waiting.get("reason") not in (None, "PodInitializing"):
            return " ".join(filter(None, (f"{one['name']}: {waiting['reason']}", waiting.get("message", ""))))
        if ended.get("exitCode"):
            return f"{one['name']}: ended with {ended['exitCode']}"
    return "it is not ready yet"
