"""How the node proxies and control planes of a cluster are, by Kubernetes and by what they say themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ztunnel.analyze.summary import align

NODE_COLUMNS: Final = ("NODE", "PROXY", "READY", "RESTARTS", "VERSION", "PODS", "PENDING", "WORKLOADS")
CONTROL_COLUMNS: Final = ("CONTROL PLANE", "READY", "RESTARTS", "NODE")


@dataclass(frozen=True, slots=True)
class NodeState:
    """One node proxy.

    Attributes:
        node: its node.
        pod: its pod.
        ready: whether Kubernetes holds it for ready.
        restarts: of its containers.
        version: what it says it is; "" where it did not answer.
        up: pods that it serves.
        pending: those that are wanted in the mesh and are not in it, with the reason.
        workloads: those that it knows.
        remarks: what else there is to say of pods.
        detail: what its readiness says, line by line, and why it could not be asked.
    """

    node: str
    pod: str
    ready: bool
    restarts: int
    version: str = ""
    up: int = 0
    pending: Mapping[str, str] = field(default_factory=dict)
    workloads: int = 0
    detail: tuple[str, ...] = ()
    remarks: Mapping[str, str] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Whether there is nothing to look at."""
        return self.ready and bool(self.version) and not self.pending


@dataclass(frozen=True, slots=True)
class ControlState:
    """One replica of the control plane."""

    pod: str
    node: str
    ready: bool
    restarts: int


def node_state(pod: Mapping[str, Any], dump: Mapping[str, Any] | None, detail: Sequence[str]) -> NodeState:
    """A node proxy out of its pod as the API has it, its configuration dump, and what there is to say."""
    name, node, ready, restarts = _pod(pod)
    if dump is None:
        return NodeState(node, name, ready, restarts, detail=tuple(detail))
    states = dump.get("workloadState", {})
    pending = {
        uid.rpartition("//Pod/")[2]: str(one.get("reason", "no reason is known"))
        for uid, one in sorted(states.items())
        if one.get("state") == "Pending"
    }
    up = sum(one.get("state") == "Up" for one in states.values())
    version = str(dump.get("version", {}).get("version", ""))
    workloads = len(dump.get("workloads", ()))
    remarks = {
        uid.rpartition("//Pod/")[2]: text for uid, one in sorted(states.items()) if (text := _remark(one))
    }
    return NodeState(node, name, ready, restarts, version, up, pending, workloads, tuple(detail), remarks)


def _remark(state: Mapping[str, Any]) -> str:
    """What is not wrong with a pod and should be known all the same."""
    said = []
    if "unenrolledSeconds" in state:
        said.append(
            f"ran outside of the mesh for up to {state['unenrolledSeconds']:g} s, until it was enrolled"
        )
    if "hidden" in state:
        said.append(f"is not shown as enrolled: {state['hidden']}")
    if state.get("state") == "LeftAlone":
        said.append(f"is left alone: {state.get('reason', 'no reason is known')}")
    return "; ".join(said)


def control_state(pod: Mapping[str, Any]) -> ControlState:
    """A replica out of its pod as the API has it."""
    name, node, ready, restarts = _pod(pod)
    return ControlState(name, node, ready, restarts)


def _pod(pod: Mapping[str, Any]) -> tuple[str, str, bool, int]:
    status = pod.get("status", {})
    ready = any(
        one.get("type") == "Ready" and one.get("status") == "True" for one in status.get("conditions", ())
    )
    restarts = sum(one.get("restartCount", 0) for one in status.get("containerStatuses", ()))
    return pod["metadata"]["name"], pod.get("spec", {}).get("nodeName", ""), ready, restarts


def as_text(nodes: Sequence[NodeState], controls: Sequence[ControlState]) -> str:
    """Two tables, and below them everything that there is to look at."""
    rows = [
        (
            one.node,
            one.pod,
            _yes(one.ready),
            str(one.restarts),
            one.version or "?",
            str(one.up),
            str(len(one.pending)),
            str(one.workloads),
        )
        for one in nodes
    ]
    others = [(one.pod, _yes(one.ready), str(one.restarts), one.node) for one in controls]
    lines = [align([CONTROL_COLUMNS, *others]), "", align([NODE_COLUMNS, *rows])]
    remarks: list[str] = []
    for node in nodes:
        remarks += [f"{node.node}: {line}" for line in node.detail]
        remarks += [f"{node.node}: {pod} is not in the mesh: {why}" for pod, why in node.pending.items()]
        remarks += [f"{node.node}: {pod} {text}" for pod, text in node.remarks.items()]
    return "\n".join([*lines, *([""] if remarks else []), *remarks])


def as_values(nodes: Sequence[NodeState], controls: Sequence[ControlState]) -> dict[str, Any]:
    """Plain JSON values."""
    return {
        "controlPlanes": [
            {"pod": one.pod, "node": one.node, "ready": one.ready, "restarts": one.restarts}
            for one in controls
        ],
        "nodes": [
            {
                "node": one.node,
                "pod": one.pod,
                "ready": one.ready,
                "restarts": one.restarts,
                "version": one.version,
                "pods": one.up,
                "pending": dict(one.pending),
                "workloads": one.workloads,
                "detail": list(one.detail),
                "remarks": dict(one.remarks),
            }
            for one in nodes
        ],
    }


def _yes(value: bool) -> str:
    return "yes" if value else "no"
