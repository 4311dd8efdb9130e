"""Finds pods, nodes, services and objects by the names that a user types."""

from __future__ import annotations

from ztunnel.demo.assign import Objects
from ztunnel.demo.cluster import Cluster, Node, Pod, Service
from ztunnel.demo.failure import Ambiguous, unknown
from ztunnel.demo.manifest import Key

_SHORT = {
    "ns": "namespace",
    "no": "node",
    "po": "pod",
    "svc": "service",
    "sa": "serviceaccount",
    "deploy": "deployment",
    "ds": "daemonset",
    "rs": "replicaset",
    "sts": "statefulset",
}


def pod_named(cluster: Cluster, name: str) -> Pod:
    """A pod by `namespace/name`, or by a name that only one namespace has; the first pod of a workload by the
    workload's name, `deploy/web` or `web`.

    Raises:
        LaboratoryFailed: no such pod, or several.
    """
    found = [pod for pod in cluster.pods if name in (pod.full_name, pod.name)]
    if not found:
        found = _of_workload(cluster, name)
    if not found:
        raise unknown("pod", name, [pod.full_name if "/" in name else pod.name for pod in cluster.pods])
    if len(found) > 1:
        raise Ambiguous(f"which {name}? there are {' and '.join(pod.full_name for pod in found)}")
    return found[0]


def _of_workload(cluster: Cluster, name: str) -> list[Pod]:
    """The first pod of each workload of that name, `[namespace/][kind/]name`."""
    first: dict[tuple[str, str], Pod] = {}
    for pod in cluster.pods:
        kind, _, own = pod.owner.partition("/")
        kinds = {kind, *(short for short, full in _SHORT.items() if full == kind)}
        known = {own, *(f"{each}/{own}" for each in kinds)}
        if own and name in known | {f"{pod.namespace}/{each}" for each in known}:
            first.setdefault((pod.namespace, pod.owner), pod)
    return list(first.values())


def node_named(cluster: Cluster, name: str) -> Node:
    """A node by its name. Raises LaboratoryFailed."""
    nodes = {node.name: node for node in cluster.nodes}
    if name not in nodes:
        raise unknown("node", name, nodes)
    return nodes[name]


def service_named(cluster: Cluster, name: str) -> Service:
    """A service by `namespace/name`. Raises LaboratoryFailed."""
    services = {f"{service.namespace}/{service.name}": service for service in cluster.services}
    if name not in services:
        raise unknown("service", name, services)
    return services[name]


def key_named(objects: Objects, kind: str, name: str) -> Key:
    """An object by its kind (any case, plural or kubectl's short form too) and `[namespace/]name`.

    Raises:
        LaboratoryFailed: no such kind or object, or several.
    """
    kinds = {key.kind.lower(): key.kind for key in objects}
    word = _SHORT.get(kind.lower(), kind.lower())
    full = kinds.get(word) or kinds.get(word.removesuffix("s")) or kinds.get(word.removesuffix("ies") + "y")
    if full is None:
        raise unknown("kind", kind, kinds)
    namespace, _, bare = name.rpartition("/")
    found = [k for k in objects if k.kind == full and k.name == bare and namespace in ("", k.namespace)]
    if len(found) > 1:
        raise Ambiguous(f"which {name}? there are {' and '.join(map(str, found))}")
    if not found:
        known = [
            key.name if not namespace else f"{key.namespace}/{key.name}"
            for key in objects
            if key.kind == full
        ]
        raise unknown(full, name, known)
    return found[0]
