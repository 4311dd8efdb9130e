"""Whether a cluster can take a mesh, and who is in its way, as checks: by what its API server shows of it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from ztunnel.analyze.checks import Check, State
from ztunnel.analyze.nodes import NodeState

OLDEST_CLUSTER: Final = (1, 29)
OLDEST_KERNEL: Final = (5, 19)
ARCHITECTURES: Final = ("amd64", "arm64")

_CLUSTER, _NODES, _RIGHTS, _OTHERS, _MESH = "cluster", "nodes", "your rights", "other meshes", "node proxies"
_ENFORCE: Final = "pod-security.kubernetes.io/enforce"
_OUTSIDE: Final = "its pods cannot be in the mesh"
_SHOWN: Final = 10

Object = Mapping[str, Any]


class Right(NamedTuple):
    """To do something with a resource, in RBAC's words; in our namespace where `own` says so."""

    verb: str
    group: str
    resource: str
    own: bool = False

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}{f'.{self.group}' if self.group else ''}"


_RBAC: Final = "rbac.authorization.k8s.io"
RIGHTS: Final = (
    Right("create", "", "namespaces"),
    Right("create", "", "serviceaccounts", own=True),
    Right("create", "", "services", own=True),
    Right("create", "", "configmaps", own=True),
    Right("create", "", "secrets", own=True),
    Right("create", "", "resourcequotas", own=True),
    Right("create", "apps", "daemonsets", own=True),
    Right("create", "apps", "deployments", own=True),
    Right("create", "policy", "poddisruptionbudgets", own=True),
    Right("create", "networking.k8s.io", "networkpolicies", own=True),
    Right("create", _RBAC, "roles", own=True),
    Right("create", _RBAC, "rolebindings", own=True),
    Right("create", _RBAC, "clusterroles"),
    Right("create", _RBAC, "clusterrolebindings"),
    Right("create", "apiextensions.k8s.io", "customresourcedefinitions"),
    Right("create", "gateway.networking.k8s.io", "gatewayclasses"),
    # Whoever makes a role has to have what it gives, or this.
    Right("escalate", _RBAC, "clusterroles"),
)
"""What installing the chart takes; Helm keeps its release in a Secret."""

_CUSTOM: Final = (
    (
        "authorizationpolicies.security.istio.io",
        "policies cannot be written: install Istio's CustomResourceDefinitions (its chart `base`)",
    ),
    (
        "gateways.gateway.networking.k8s.io",
        "waypoints cannot be asked for: install the CustomResourceDefinitions of the Gateway API",
    ),
)
_AGENTS: Final = {
    "istio-cni-node": "it redirects pods of ambient namespaces itself, and those are left to it: take it off "
    "the nodes that are to be ours, one by one",
    "linkerd-cni": "it redirects injected pods: those stay out of this mesh",
    "kuma-cni-node": "it redirects injected pods: those stay out of this mesh",
}
_ISTIO_ZTUNNEL: Final = "pods that it serves are left to it: a node changes hands as docs/operations.md says"
_ISTIOD: Final = (
    "nothing of it is changed; `ztunnel install --profile istiod` takes world and certificates from it"
)
_CILIUM: Final = (
    "its socket load balancer changes pods' calls before the mesh sees them, and the loader refuses: set "
    "socketLB.hostNamespaceOnly=true"
)


@dataclass(frozen=True, slots=True)
class Cluster:
    """What there is to judge by, as the API has it.

    Attributes:
        namespace: where the mesh is, or is to be.
        version: of the API server, such as `v1.33.1`.
        workloads: DaemonSets and Deployments of all namespaces.
        definitions: the names of CustomResourceDefinitions.
        cilium: the data of Cilium's ConfigMap; empty where there is none.
        rights: of whoever asks.
        proxies: node proxies that are there.
        refusal: why there are none of a mesh that is installed.
        unread: what could not be looked at, and why.
    """

    namespace: str
    version: str = ""
    nodes: Sequence[Object] = ()
    workloads: Sequence[Object] = ()
    namespaces: Sequence[Object] = ()
    definitions: Collection[str] = ()
    cilium: Mapping[str, str] = field(default_factory=dict)
    rights: Mapping[Right, bool] = field(default_factory=dict)
    proxies: Sequence[NodeState] = ()
    refusal: str = ""
    unread: Mapping[str, str] = field(default_factory=dict)


def cluster_checks(found: Cluster) -> list[Check]:
    """All checks, in order: what is there before, then how each node is that should have a proxy."""
    return [
        *_of_cluster(found), *_of_nodes(found), *_of_rights(found), *_of_others(found), *_of_mesh(found),
        *(_unread(what, why) for what, why in found.unread.items()),
    ]  # fmt: skip


def _unread(what: str, why: str) -> Check:
    return Check("not looked at", what, State.WARN, why, "ask somebody who may look at it to run this")


def _of_cluster(found: Cluster) -> Iterator[Check]:
    if found.version:
        old = _numbers(found.version) < OLDEST_CLUSTER
        wanted = ".".join(map(str, OLDEST_CLUSTER))
        yield Check(
            _CLUSTER, "version", State.FAIL if old else State.OK, found.version,
            f"Kubernetes {wanted} or newer is needed" if old else "",
        )  # fmt: skip
    if "CustomResourceDefinitions" not in found.unread:
        for name, lacking in _CUSTOM:
            there = name in found.definitions
            yield Check(
                _CLUSTER, name, State.OK if there else State.WARN, "there" if there else "not there",
                "" if there else lacking,
            )  # fmt: skip
    for each in found.namespaces:
        enforced = each["metadata"].get("labels", {}).get(_ENFORCE, "privileged")
        if each["metadata"]["name"] == found.namespace and enforced != "privileged":
            fix = f"kubectl label --overwrite namespace {found.namespace} {_ENFORCE}=privileged"
            name = f"namespace {found.namespace}"
            yield Check(_CLUSTER, name, State.FAIL, f"admits {enforced} pods only", fix)


def _of_nodes(found: Cluster) -> Iterator[Check]:
    """One line for those that can run a proxy, and one for each that cannot."""
    good = 0
    for each in found.nodes:
        name, said = each["metadata"]["name"], each.get("status", {}).get("nodeInfo", {})
        kernel = str(said.get("kernelVersion", ""))
        if _is_virtual(each):
            yield Check(_NODES, name, State.WARN, "no machine of its own", _OUTSIDE)
        elif said.get("operatingSystem", "linux") != "linux":
            yield Check(
                _NODES, name, State.WARN, str(said["operatingSystem"]), "its pods cannot be in the mesh"
            )
        elif _numbers(kernel) < OLDEST_KERNEL:
            wanted = ".".join(map(str, OLDEST_KERNEL))
            yield Check(_NODES, name, State.FAIL, f"Linux {kernel}", f"Linux {wanted} or newer is needed")
        elif said.get("architecture", "amd64") not in ARCHITECTURES:
            fix = f"images are for {' and '.join(ARCHITECTURES)}"
            yield Check(_NODES, name, State.FAIL, str(said["architecture"]), fix)
        else:
            good += 1
    if good:
        yield Check(_NODES, "can run a proxy", State.OK, f"{good} of {len(found.nodes)}")


def _of_rights(found: Cluster) -> Iterator[Check]:
    missing = [str(right) for right, held in found.rights.items() if not held]
    if missing:
        fix = "installing needs them: have somebody do it who is cluster-admin"
        yield Check(_RIGHTS, "to install", State.WARN, f"missing: {', '.join(missing)}", fix)
    elif found.rights:
        yield Check(_RIGHTS, "to install", State.OK, "held")


def _of_others(found: Cluster) -> Iterator[Check]:
    count = 0
    for each in found.workloads:
        meta = each["metadata"]
        name, labels = meta["name"], meta.get("labels", {})
        if labels.get("app.kubernetes.io/part-of") == "ztunnel":
            continue
        place = f"{each['kind']} {meta['namespace']}/{name}"
        if name in _AGENTS:
            check = Check(_OTHERS, name, State.WARN, place, _AGENTS[name])
        elif each["kind"] == "DaemonSet" and labels.get("app", name) == "ztunnel":
            check = Check(_OTHERS, "Istio's ztunnel", State.WARN, place, _ISTIO_ZTUNNEL)
        elif labels.get("app") == "istiod":
            check = Check(_OTHERS, "istiod", State.WARN, place, _ISTIOD)
        else:
            continue
        count += 1
        yield check
    if _balances_sockets(found.cilium):
        count += 1
        yield Check(_OTHERS, "Cilium", State.FAIL, "ConfigMap kube-system/cilium-config", _CILIUM)
    if not count and "workloads" not in found.unread:
        yield Check(_OTHERS, "in this cluster", State.OK, "none is known")


def _balances_sockets(settings: Mapping[str, str]) -> bool:
    """Whether Cilium's socket load balancer is on in pods: by itself, or as a part of its kube-proxy."""
    on = settings.get("bpf-lb-sock") == "true" or settings.get("kube-proxy-replacement") in ("true", "strict")
    return on and settings.get("bpf-lb-sock-hostns-only", "false") != "true"


def _of_mesh(found: Cluster) -> Iterator[Check]:
    """How the mesh is on each node, where there is one."""
    if not found.proxies:
        if found.refusal:
            yield Check(_MESH, "none", State.FAIL, found.refusal, "as its words say")
        return
    for one in found.proxies:
        if one.good:
            yield Check(_MESH, one.node, State.OK, f"ready, {one.up} pods in the mesh")
            continue
        waits = [f"{pod}: {why}" for pod, why in one.pending.items()]
        text = "; ".join([*waits, *one.detail][:_SHOWN]) or "it does not say why"
        state = "pods are not in the mesh" if one.ready else "not ready"
        fix = f"kubectl -n {found.namespace} logs {one.pod}"
        yield Check(_MESH, one.node, State.FAIL, f"{state}: {text}", fix)
    for each in found.nodes:
        name = each["metadata"]["name"]
        if all(one.node != name for one in found.proxies):
            fix = f"{_OUTSIDE}, whatever their labels say: see node.nodeSelector and node.tolerations"
            yield Check(_MESH, name, State.WARN, "has none", fix)


def _is_virtual(node: Object) -> bool:
    labels: Mapping[str, str] = node["metadata"].get("labels", {})
    fargate = labels.get("eks.amazonaws.com/compute-type") == "fargate"
    return fargate or labels.get("type") == "virtual-kubelet"


def _numbers(version: str) -> tuple[int, ...]:
    """The first two; what is no version is newer than all."""
    found = re.match(r"v?(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else (1 << 30, 0)
