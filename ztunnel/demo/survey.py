"""Looks at a laboratory as it is: who runs, who is to be in the mesh and is, what the node proxies say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from ztunnel.demo import allot, run
from ztunnel.demo.assign import Objects
from ztunnel.demo.call import get
from ztunnel.demo.cluster import Node, Pod, read_cluster
from ztunnel.demo.failure import LaboratoryFailed
from ztunnel.demo.manifest import Key
from ztunnel.demo.names import Names
from ztunnel.demo.readiness import why_unready
from ztunnel.demo.samples import Samples, parse_samples
from ztunnel.demo.store import Store
from ztunnel.errors import Fault
from ztunnel.model.address import IPAddress

READINESS_PORT, READINESS_PATH = 15021, "/healthz/ready"
_ADMIN_PORT, _METRICS_PORT = 15000, 15020
_NOT_RUNNING = "not running"
_OUTSIDE = "ztunnel_connections_outside_mesh"
_MODE = "istio.io/dataplane-mode"


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """`proxy` is `ready`, `not running`, or why it is not ready; `details` are what else it says."""

    name: str
    addresses: tuple[IPAddress, ...]
    proxy: str
    details: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PodStatus:
    """`wanted` is what the labels ask for, `enrolled` what the node proxy has done, and `pending` why the two
    differ; `running` is whether a process of the pod lives, `unready` why it is no endpoint of services;
    `outside` is how many of its connections are older than its enrolment, and so not in the mesh."""

    namespace: str
    name: str
    node: str
    addresses: tuple[IPAddress, ...]
    wanted: bool
    enrolled: bool
    pending: str
    running: bool
    unready: str
    outside: int = 0


@dataclass(frozen=True, slots=True)
class Survey:
    """All of it. `faults` are those of stored objects, which are left out of everything else."""

    nodes: tuple[NodeStatus, ...]
    pods: tuple[PodStatus, ...]
    faults: tuple[Fault, ...]
    plain: bool


def survey(names: Names, store: Store) -> Survey:
    """The state of every node and pod."""
    cluster, faults = read_cluster(store.objects)
    nodes = [_node_status(names, node) for node in cluster.nodes]
    said = {
        node.name: _Said.by(names, node, status) for node, status in zip(cluster.nodes, nodes, strict=True)
    }
    pods = [_pod_status(names, pod, store.objects, said[pod.node.name]) for pod in cluster.pods]
    return Survey(tuple(nodes), tuple(pods), (*store.faults, *sorted(faults.values())), names.plain.exists())


@dataclass(frozen=True, slots=True)
class _Said:
    """What the proxy of a node says of its pods: their states by `namespace/name`, and its metrics."""

    proxy: str
    states: Mapping[str, Mapping[str, str]]
    metrics: Samples

    @classmethod
    def by(cls, names: Names, node: Node, status: NodeStatus) -> _Said:
        if status.proxy == _NOT_RUNNING:
            return cls(status.proxy, {}, Samples(()))
        netns = names.netns(names.node(node.name))
        try:
            states = json.loads(get(netns, _ADMIN_PORT, "/config_dump")[1])["workloadState"]
            metrics = parse_samples(get(netns, _METRICS_PORT, "/metrics")[1])
        except (LaboratoryFailed, ValueError, KeyError):
            return cls(status.proxy, {}, Samples(()))
        return cls(
            status.proxy, {uid.partition("//Pod/")[2]: state for uid, state in states.items()}, metrics
        )


def _node_status(names: Names, node: Node) -> NodeStatus:
    lines = _readiness(names, node)
    return NodeStatus(node.name, allot.node_addresses(node.number), lines[0], tuple(lines[1:]))


def _pod_status(names: Names, pod: Pod, objects: Objects, said: _Said) -> PodStatus:
    wanted, state = asks_for_mesh(pod, objects), said.states.get(pod.full_name, {})
    enrolled = state.get("state") in ("Up", "Draining")
    reason = ""
    if wanted and not enrolled:
        known = f"the proxy of {pod.node.name} is {said.proxy}"
        reason = state.get("reason", "") or (
            "the proxy does not know it yet" if said.proxy == "ready" else known
        )
    return PodStatus(
        pod.namespace,
        pod.name,
        pod.node.name,
        pod.addresses,
        wanted,
        enrolled,
        reason,
        run.populated(names.pod_cgroup(pod.node.name, pod.uid)),
        why_unready(objects[Key("", "Pod", pod.namespace, pod.name)]),
        int(said.metrics.total(_OUTSIDE, namespace=pod.namespace, pod=pod.name)),
    )


def proxy_state(names: Names, node: Node) -> str:
    """`ready`, `not running`, or the first line of why not."""
    return _readiness(names, node)[0]


def _readiness(names: Names, node: Node) -> list[str]:
    """The lines of a proxy's readiness page, the first of them as of `proxy_state`."""
    if not run.processes(names.proxy_cgroup(node.name)):
        return [_NOT_RUNNING]
    try:
        status, text = get(names.netns(names.node(node.name)), READINESS_PORT, READINESS_PATH)
    except LaboratoryFailed:
        return [f"does not answer on port {READINESS_PORT}"]
    lines = text.strip().splitlines() or [f"answers {status}"]
    return ["ready", *lines[1:]] if status == 200 else lines


def asks_for_mesh(pod: Pod, objects: Objects) -> bool:
    """Istio's rule: the pod's label counts before its namespace's; a pod of the host network is never in."""
    namespace = objects.get(Key("", "Namespace", "", pod.namespace))
    general = namespace.pull("metadata.labels", dict, {}).get(_MODE) if namespace else None
    return pod.labels.get(_MODE, general) == "ambient" and not pod.host_network
