"""Looks at a laboratory as it is: who runs, who is in the mesh by its labels, what the node proxies say."""

from __future__ import annotations

from dataclasses import dataclass

from ztunnel.demo import allot, run
from ztunnel.demo.call import get
from ztunnel.demo.cluster import Cluster, Node, Pod
from ztunnel.demo.failure import LaboratoryFailed
from ztunnel.demo.manifest import Key
from ztunnel.demo.names import Names
from ztunnel.demo.samples import Samples, parse_samples
from ztunnel.demo.schedule import Objects
from ztunnel.model.address import IPAddress

READINESS_PORT, READINESS_PATH = 15021, "/healthz/ready"
_METRICS_PORT = 15020
_OUTSIDE = "ztunnel_connections_outside_mesh"
_MODE = "istio.io/dataplane-mode"


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """`proxy` is `ready`, `not running`, or why it is not ready."""

    name: str
    addresses: tuple[IPAddress, ...]
    proxy: str


@dataclass(frozen=True, slots=True)
class PodStatus:
    """`enrolled` is what the labels ask for; `running` is whether a process of the pod lives; `outside` is
    how many of its connections are older than its enrolment, and so not in the mesh."""

    namespace: str
    name: str
    node: str
    addresses: tuple[IPAddress, ...]
    enrolled: bool
    running: bool
    outside: int = 0


def survey(names: Names, objects: Objects, cluster: Cluster) -> tuple[list[NodeStatus], list[PodStatus]]:
    """The state of every node and pod."""
    nodes = [
        NodeStatus(node.name, allot.node_addresses(node.number), proxy_state(names, node))
        for node in cluster.nodes
    ]
    metrics = {node.name: _metrics(names, node) for node in cluster.nodes}
    pods = [
        PodStatus(
            pod.namespace,
            pod.name,
            pod.node.name,
            pod.addresses,
            asks_for_mesh(pod, objects),
            run.populated(names.pod_cgroup(pod.node.name, pod.uid)),
            int(metrics[pod.node.name].total(_OUTSIDE, namespace=pod.namespace, pod=pod.name)),
        )
        for pod in cluster.pods
    ]
    return nodes, pods


def proxy_state(names: Names, node: Node) -> str:
    """`ready`, `not running`, or the first line of why not."""
    if not run.processes(names.proxy_cgroup(node.name)):
        return "not running"
    try:
        status, text = get(names.netns(names.node(node.name)), READINESS_PORT, READINESS_PATH)
    except LaboratoryFailed:
        return f"does not answer on port {READINESS_PORT}"
    return "ready" if status == 200 else (text.strip().splitlines() or [f"answers {status}"])[0]


def _metrics(names: Names, node: Node) -> Samples:
    """Those of a node's proxy; none where it does not run."""
    if not run.processes(names.proxy_cgroup(node.name)):
        return Samples(())
    try:
        return parse_samples(get(names.netns(names.node(node.name)), _METRICS_PORT, "/metrics")[1])
    except LaboratoryFailed:
        return Samples(())


def asks_for_mesh(pod: Pod, objects: Objects) -> bool:
    """Istio's rule: the pod's label counts before its namespace's; a pod of the host network is never in."""
    namespace = objects.get(Key("", "Namespace", "", pod.namespace))
    general = namespace.pull("metadata.labels", dict, {}).get(_MODE) if namespace else None
    return pod.labels.get(_MODE, general) == "ambient" and not pod.host_network
