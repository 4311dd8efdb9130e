"""The objects of a laboratory after a change: those given, those only mentioned, and the pods of workloads.

What was given out before stays as it was: applying the same text twice changes nothing. Pods that are made of
workloads (`workloads`) come and go with them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

from ztunnel.demo.assign import STEPS, Objects, cluster_ips, node_number, of_kind
from ztunnel.demo.manifest import Key, Manifest
from ztunnel.demo.waypoints import follow_gateways, give_addresses
from ztunnel.demo.workloads import is_workload, owner_of, pods_of, same_template
from ztunnel.errors import ConfigError, Fault
from ztunnel.model.address import IPAddress

_DEFAULT_NODES = ("node-1", "node-2")


def complete(before: Objects, given: Iterable[Manifest], new_uid: Callable[[], str]) -> Objects:
    """The objects of the laboratory after `given` was applied on top of `before`, which `complete` returned.

    Raises:
        ConfigError: pods name nodes that are not there (all such faults), or addresses ran out.
    """
    after = dict(before)
    given = sorted(given, key=_rank)
    for manifest in given:
        completed = (manifest.key.group, manifest.key.kind) in STEPS
        after[manifest.key] = manifest.with_body(copy.deepcopy(manifest.body)) if completed else manifest
        if completed and manifest.key not in before:
            _forget_cluster(after[manifest.key])
    _add_missing(after)
    for manifest in sorted(after.values(), key=_rank):
        if before.get(manifest.key) is not manifest and manifest.key.kind in ("Namespace", "Node"):
            _step(manifest, before, after, new_uid)
    follow_gateways(after)
    _follow_workloads(after)
    for manifest in sorted(after.values(), key=_rank):
        if before.get(manifest.key) is not manifest and manifest.key.kind not in ("Namespace", "Node"):
            _step(manifest, before, after, new_uid)
    give_addresses(after)
    _check_nodes(before, after)
    _check_addresses(after)
    return after


def _step(manifest: Manifest, before: Objects, after: Objects, new_uid: Callable[[], str]) -> None:
    step = STEPS.get((manifest.key.group, manifest.key.kind))
    if step is not None:
        step(manifest, before, after, new_uid)


def _follow_workloads(after: Objects) -> None:
    """Bring the pods that are made of workloads to what those ask for now."""
    nodes = {
        node.key.name: node.pull("metadata.labels", dict, {})
        for node in sorted(of_kind(after, "Node"), key=node_number)
    }
    wanted = {
        pod.key: pod
        for workload in sorted(after.values(), key=_rank)
        if is_workload(workload.key)
        for pod in pods_of(workload, nodes)
    }
    for key in [pod.key for pod in of_kind(after, "Pod") if owner_of(pod) and pod.key not in wanted]:
        del after[key]
    for key, pod in wanted.items():
        if key not in after or not same_template(after[key], pod):
            after[key] = pod


def remove(before: Objects, keys: Iterable[Key], new_uid: Callable[[], str]) -> Objects:
    """The objects without `keys`; with a namespace goes what is in it, with a node the pods on it.

    What workloads still ask for is made anew.
    """
    gone = set(keys)
    namespaces = {key.name for key in gone if key.kind == "Namespace"}
    nodes = {key.name for key in gone if key.kind == "Node"}
    left = {
        key: manifest
        for key, manifest in before.items()
        if key not in gone
        and key.namespace not in namespaces
        and not (key.kind == "Pod" and manifest.pull("spec.nodeName", str, "") in nodes)
    }
    return complete(left, (), new_uid) if of_kind(left, "Node") else left


def relabel(manifest: Manifest, changes: dict[str, str | None]) -> Manifest:
    """The object with labels set, or removed where the value is None."""
    body = copy.deepcopy(manifest.body)
    labels = {**manifest.pull("metadata.labels", dict, {}), **changes}
    body["metadata"]["labels"] = {key: value for key, value in labels.items() if value is not None}
    return manifest.with_body(body)


def _rank(manifest: Manifest) -> tuple[int, str, int]:
    """Nodes first: pods need them. Then in the order of the text: numbers follow what the user wrote."""
    order = {"Namespace": 0, "Node": 1, "Service": 2, "Pod": 3}
    return order.get(manifest.key.kind, 4), manifest.file, manifest.line


def _forget_cluster(manifest: Manifest) -> None:
    """`kubectl get -o yaml` tells of another cluster: its addresses are not ours, conditions may be meant."""
    conditions = manifest.pull("status.conditions", list, [])
    manifest.body.pop("status", None)
    if conditions:
        manifest.body["status"] = {"conditions": conditions}
    for field in ("podCIDR", "podCIDRs"):
        manifest.pull("spec", dict, {}).pop(field, None)


def _add_missing(after: Objects) -> None:
    """Namespaces and nodes that are only mentioned, or two nodes where none is, so that small texts do."""
    for namespace in sorted({key.namespace for key in after} - {""}):
        key = Key("", "Namespace", "", namespace)
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
        after.setdefault(key, Manifest(key, body))
    if not any(key.kind == "Node" and not key.group for key in after):
        mentioned = {pod.pull("spec.nodeName", str, "") for pod in of_kind(after, "Pod")} | {
            workload.pull("spec.template.spec.nodeName", str, "")
            for workload in after.values()
            if is_workload(workload.key)
        }
        mentioned.discard("")
        for name in sorted(mentioned) or _DEFAULT_NODES:
            key = Key("", "Node", "", name)
            after[key] = Manifest(key, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})


def _check_nodes(before: Objects, after: Objects) -> None:
    faults: list[Fault] = []
    for pod in of_kind(after, "Pod"):
        name = pod.pull("spec.nodeName", str, "")
        if before.get(pod.key) is not pod and Key("", "Node", "", name) not in after:
            known = ", ".join(sorted(node.key.name for node in of_kind(after, "Node")))
            faults.append(
                Fault(
                    pod.file, pod.line, f"{pod.key}: spec.nodeName", f"no node {name!r} (there are: {known})"
                )
            )
    if faults:
        raise ConfigError(*faults)


def _check_addresses(after: Objects) -> None:
    owners: dict[IPAddress, Manifest] = {}
    for service in of_kind(after, "Service"):
        for ip in cluster_ips(service):
            if (other := owners.setdefault(ip, service)) is not service:
                raise service.fault("spec.clusterIPs", f"{ip} is taken by {other.key}")
