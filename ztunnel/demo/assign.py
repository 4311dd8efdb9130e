"""What a scheduler, a kubelet and an address allocator add to an object that a user wrote.

Nodes get numbers and ranges, pods a node, addresses, a uid and a ready status, services virtual addresses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from ipaddress import IPv4Network
from typing import Final

from ztunnel.demo import allot
from ztunnel.demo.manifest import Body, Key, Manifest
from ztunnel.model.address import IPAddress

Objects = dict[Key, Manifest]


def _complete_namespace(
    manifest: Manifest, _before: Objects, _after: Objects, _uid: Callable[[], str]
) -> None:
    metadata = manifest.body["metadata"]
    metadata["labels"] = {
        **manifest.pull("metadata.labels", dict, {}),
        "kubernetes.io/metadata.name": manifest.key.name,
    }


def _complete_node(manifest: Manifest, objects: Objects, after: Objects, new_uid: Callable[[], str]) -> None:
    before = objects.get(manifest.key)
    number = (
        node_number(before)
        if before
        else allot.free_node([node_number(node) for node in of_kind(after, "Node")])
    )
    v4, v6 = allot.pod_ranges(number)
    metadata = manifest.body["metadata"]
    metadata["uid"] = before.pull("metadata.uid", str, "") if before else new_uid()
    metadata["labels"] = {
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/hostname": manifest.key.name,
        "kubernetes.io/os": "linux",
        **manifest.pull("metadata.labels", dict, {}),
    }
    manifest.body["spec"] = {
        **manifest.pull("spec", dict, {}),
        "podCIDR": str(v4),
        "podCIDRs": [str(v4), str(v6)],
    }
    addresses = [{"type": "InternalIP", "address": str(ip)} for ip in allot.node_addresses(number)]
    manifest.body["status"] = {"addresses": addresses, "conditions": [{"type": "Ready", "status": "True"}]}


def _complete_service(manifest: Manifest, objects: Objects, after: Objects, _uid: Callable[[], str]) -> None:
    """Both families unless the service asks for one: here, dual stack is always to be had."""
    before = objects.get(manifest.key)
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
    fresh = allot.free_service(_service_ips(after, manifest.key) + _service_ips(objects, manifest.key))
    chosen = {
        f"IPv{ip.version}": str(ip)
        for ip in (*fresh, *allot.parse_addresses(kept), *allot.parse_addresses(asked))
    }
    addresses = [chosen[family] for family in families if family in chosen]
    spec.update(clusterIP=addresses[0] if addresses else "None", clusterIPs=addresses, ipFamilies=families)


def _complete_pod(manifest: Manifest, objects: Objects, after: Objects, new_uid: Callable[[], str]) -> None:
    before = objects.get(manifest.key)
    spec = manifest.pull("spec", dict, {})
    manifest.body["spec"] = spec
    spec.setdefault("serviceAccountName", "default")
    if before is not None and (stays := before.pull("spec.nodeName", str, "")):
        spec.setdefault("nodeName", stays)
    if not spec.get("nodeName"):
        spec["nodeName"] = _emptiest_node(after, manifest.pull("spec.nodeSelector", dict, {}))
    node = after.get(Key("", "Node", "", manifest.pull("spec.nodeName", str, "")))
    if node is None:
        return
    same = before is not None and before.body.get("spec") == spec and bool(pod_ips(before))
    number = node_number(node)
    given = manifest.pull("status.conditions", list, [])
    if same and before is not None:
        addresses = pod_ips(before)
    elif manifest.pull("spec.hostNetwork", bool, False):
        addresses = allot.node_addresses(number)
    else:
        # Those of before count as well: one that is not completed yet may keep its addresses.
        taken = [ip for pod in (*of_kind(after, "Pod"), *of_kind(objects, "Pod")) for ip in pod_ips(pod)]
        addresses = allot.free_pod(number, taken)
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


STEPS: Final = {
    ("", "Namespace"): _complete_namespace,
    ("", "Node"): _complete_node,
    ("", "Service"): _complete_service,
    ("", "Pod"): _complete_pod,
}


def _service_ips(objects: Objects, but: Key) -> list[IPAddress]:
    """Those that all other services have, and those that they ask for."""
    services = [service for service in of_kind(objects, "Service") if service.key != but]
    asked = [service.pull("spec.clusterIP", str, "") for service in services]
    return [*allot.parse_addresses(asked), *(ip for service in services for ip in cluster_ips(service))]


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


def of_kind(objects: Objects, kind: str) -> list[Manifest]:
    """The objects of a kind of the core group, in order."""
    return [manifest for key, manifest in objects.items() if key.kind == kind and not key.group]


def _emptiest_node(after: Objects, selector: Body) -> str:
    """Among those that the pod selects; among all where it selects none of them, so that it runs at all."""
    pods = Counter(pod.pull("spec.nodeName", str, "") for pod in of_kind(after, "Pod"))
    nodes = sorted(of_kind(after, "Node"), key=node_number)
    chosen = [node for node in nodes if selector.items() <= node.pull("metadata.labels", dict, {}).items()]
    nodes = chosen or nodes
    return min(nodes, key=lambda node: pods[node.key.name]).key.name
