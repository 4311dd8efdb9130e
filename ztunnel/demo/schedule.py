"""What a scheduler, a kubelet and an address allocator add to the objects that a user wrote.

Nodes get numbers and ranges, pods a node, addresses, a uid and a ready status, services virtual addresses.
What was given out before stays as it was: applying the same text twice changes nothing.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable
from ipaddress import IPv4Network

from ztunnel.demo import allot
from ztunnel.demo.manifest import Body, Key, Manifest
from ztunnel.errors import ConfigError, Fault
from ztunnel.model.address import IPAddress

Objects = dict[Key, Manifest]
_DEFAULT_NODES = ("node-1", "node-2")


def complete(before: Objects, given: Iterable[Manifest], new_uid: Callable[[], str]) -> Objects:
    """The objects of the laboratory after `given` was applied on top of `before`, which `complete` returned.

    Raises:
        ConfigError: pods name nodes that are not there (all such faults), or addresses ran out.
    """
    after = dict(before)
    given = sorted(given, key=_rank)
    for manifest in given:
        completed = (manifest.key.group, manifest.key.kind) in _STEPS
        after[manifest.key] = manifest.with_body(copy.deepcopy(manifest.body)) if completed else manifest
        if completed and manifest.key not in before:
            _forget_cluster(after[manifest.key])
    _add_missing(after)
    for manifest in sorted(after.values(), key=_rank):
        step = _STEPS.get((manifest.key.group, manifest.key.kind))
        if step is not None and before.get(manifest.key) is not manifest:
            step(manifest, before.get(manifest.key), after, new_uid)
    _check_nodes(after)
    _check_addresses(after)
    return after


def remove(before: Objects, keys: Iterable[Key]) -> Objects:
    """The objects without `keys`; with a namespace goes what is in it, with a node the pods on it."""
    gone = set(keys)
    namespaces = {key.name for key in gone if key.kind == "Namespace"}
    nodes = {key.name for key in gone if key.kind == "Node"}
    return {
        key: manifest
        for key, manifest in before.items()
        if key not in gone
        and key.namespace not in namespaces
        and not (key.kind == "Pod" and manifest.pull("spec.nodeName", str, "") in nodes)
    }


def relabel(manifest: Manifest, changes: dict[str, str | None]) -> Manifest:
    """The object with labels set, or taken away where the value is None."""
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
        mentioned = {pod.pull("spec.nodeName", str, "") for pod in _of(after, "Pod")} - {""}
        for name in sorted(mentioned) or _DEFAULT_NODES:
            key = Key("", "Node", "", name)
            after[key] = Manifest(key, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})


def _complete_namespace(
    manifest: Manifest, _before: Manifest | None, _after: Objects, _uid: Callable[[], str]
) -> None:
    metadata = manifest.body["metadata"]
    metadata["labels"] = {
        **manifest.pull("metadata.labels", dict, {}),
        "kubernetes.io/metadata.name": manifest.key.name,
    }


def _complete_node(
    manifest: Manifest, before: Manifest | None, after: Objects, new_uid: Callable[[], str]
) -> None:
    number = (
        node_number(before) if before else allot.free_node([node_number(node) for node in _of(after, "Node")])
    )
    v4, v6 = allot.pod_ranges(number)
    metadata = manifest.body["metadata"]
    metadata["uid"] = before.pull("metadata.uid", str, "") if before else new_uid()
    metadata["labels"] = {
        "kubernetes.io/hostname": manifest.key.name,
        **manifest.pull("metadata.labels", dict, {}),
    }
    manifest.body["spec"] = {
        **manifest.pull("spec", dict, {}),
        "podCIDR": str(v4),
        "podCIDRs": [str(v4), str(v6)],
    }
    addresses = [{"type": "InternalIP", "address": str(ip)} for ip in allot.node_addresses(number)]
    manifest.body["status"] = {"addresses": addresses, "conditions": [{"type": "Ready", "status": "True"}]}


def _complete_service(
    manifest: Manifest, before: Manifest | None, after: Objects, _uid: Callable[[], str]
) -> None:
    """Both families unless the service asks for one: here, dual stack is always to be had."""
    spec = manifest.pull("spec", dict, {})
    manifest.body["spec"] = spec
    if manifest.pull("spec.type", str, "ClusterIP") == "ExternalName" or spec.get("clusterIP") == "None":
        return
    wanted = manifest.pull("spec.ipFamilies", list, [])
    single = manifest.pull("spec.ipFamilyPolicy", str, "PreferDualStack") == "SingleStack"
    families = [str(family) for family in wanted][: 1 if single else 2] or ["IPv4", "IPv6"][
        : 1 if single else 2
    ]
    asked = [*map(str, manifest.pull("spec.clusterIPs", list, [])), manifest.pull("spec.clusterIP", str, "")]
    kept = before.pull("spec.clusterIPs", list, []) if before else []
    fresh = allot.free_service([ip for service in _of(after, "Service") for ip in cluster_ips(service)])
    chosen = {
        f"IPv{ip.version}": str(ip)
        for ip in (*fresh, *allot.parse_addresses(kept), *allot.parse_addresses(asked))
    }
    addresses = [chosen[family] for family in families if family in chosen]
    spec.update(clusterIP=addresses[0] if addresses else "None", clusterIPs=addresses, ipFamilies=families)


def _complete_pod(
    manifest: Manifest, before: Manifest | None, after: Objects, new_uid: Callable[[], str]
) -> None:
    spec = manifest.pull("spec", dict, {})
    manifest.body["spec"] = spec
    spec.setdefault("serviceAccountName", "default")
    if before is not None:
        spec.setdefault("nodeName", before.body["spec"]["nodeName"])
    if not spec.get("nodeName"):
        spec["nodeName"] = _emptiest_node(after)
    node = after.get(Key("", "Node", "", manifest.pull("spec.nodeName", str, "")))
    if node is None:
        return
    same = before is not None and before.body["spec"] == spec
    number = node_number(node)
    given = manifest.pull("status.conditions", list, [])
    if same and before is not None:
        addresses = pod_ips(before)
    elif manifest.pull("spec.hostNetwork", bool, False):
        addresses = allot.node_addresses(number)
    else:
        addresses = allot.free_pod(
            number, [ip for pod in (*_of(after, "Pod"), *filter(None, [before])) for ip in pod_ips(pod)]
        )
    manifest.body["metadata"]["uid"] = before.pull("metadata.uid", str, "") if same and before else new_uid()
    manifest.body["metadata"].setdefault("namespace", manifest.key.namespace)
    manifest.body["status"] = _pod_status(number, addresses, given)


def _pod_status(number: int, addresses: tuple[IPAddress, ...], conditions: list[Body]) -> Body:
    ready = [
        {"type": kind, "status": "True"}
        for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
    ]
    return {
        "phase": "Running",
        "conditions": conditions or ready,
        "hostIP": str(allot.node_addresses(number)[0]),
        "podIP": str(addresses[0]),
        "podIPs": [{"ip": str(ip)} for ip in addresses],
    }


_STEPS = {
    ("", "Namespace"): _complete_namespace,
    ("", "Node"): _complete_node,
    ("", "Service"): _complete_service,
    ("", "Pod"): _complete_pod,
}


def node_number(node: Manifest) -> int:
    """The number of a completed node, 0 before it has one; it stands in its pod CIDR."""
    cidr = node.pull("spec.podCIDR", str, "")
    return IPv4Network(cidr).network_address.packed[2] if cidr.startswith("10.244.") else 0


def pod_ips(pod: Manifest) -> tuple[IPAddress, ...]:
    """The addresses of a completed pod, IPv4 first; none before it has any."""
    return allot.parse_addresses([str(entry["ip"]) for entry in pod.pull("status.podIPs", list, [])])


def cluster_ips(service: Manifest) -> tuple[IPAddress, ...]:
    """The virtual addresses of a completed service."""
    return allot.parse_addresses([str(ip) for ip in service.pull("spec.clusterIPs", list, [])])


def _of(objects: Objects, kind: str) -> list[Manifest]:
    return [manifest for key, manifest in objects.items() if key.kind == kind and not key.group]


def _emptiest_node(after: Objects) -> str:
    pods = Counter(pod.pull("spec.nodeName", str, "") for pod in _of(after, "Pod"))
    nodes = sorted(_of(after, "Node"), key=node_number)
    return min(nodes, key=lambda node: pods[node.key.name]).key.name


def _check_nodes(after: Objects) -> None:
    faults: list[Fault] = []
    for pod in _of(after, "Pod"):
        name = pod.pull("spec.nodeName", str, "")
        if Key("", "Node", "", name) not in after:
            known = ", ".join(sorted(node.key.name for node in _of(after, "Node")))
            faults.append(
                Fault(
                    pod.file, pod.line, f"{pod.key}: spec.nodeName", f"no node {name!r} (there are: {known})"
                )
            )
    if faults:
        raise ConfigError(*faults)


def _check_addresses(after: Objects) -> None:
    owners: dict[IPAddress, Manifest] = {}
    for service in _of(after, "Service"):
        for ip in cluster_ips(service):
            if (other := owners.setdefault(ip, service)) is not service:
                raise service.fault("spec.clusterIPs", f"{ip} is taken by {other.key}")
