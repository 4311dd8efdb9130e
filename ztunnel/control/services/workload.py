"""A pod as Istio's workload: addresses, identity, enrolment, owner, names for telemetry.

Follows istio/istio pilot/pkg/serviceregistry/ambient/workloads.go (podWorkloadBuilder), pkg/kube (workload
metadata from a pod), pkg/kube/labels (canonical names), and for enrolment cni/pkg/util
(PodRedirectionEnabled): what Istio's CNI agent would decide and note on the pod is decided here, as no agent
of ours does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from ztunnel.control.policies.peer_authentication import PeerModes
from ztunnel.control.services.claim import has_tunnel
from ztunnel.control.services.service import EntryServices, NamespaceServices, service_name
from ztunnel.control.settings import MeshSettings
from ztunnel.control.status.enrolment import is_foreign, kubelet_uid
from ztunnel.control.waypoints.waypoint import GATEWAY_NAME, Waypoints
from ztunnel.model.policy import Policy
from ztunnel.model.service import Port, ServiceName
from ztunnel.model.workload import LeftTo, Locality, SameNode, TunnelProtocol, Workload, WorkloadKind
from ztunnel.state import kube
from ztunnel.state.istio import Mode

DATAPLANE_MODE: Final = "istio.io/dataplane-mode"
_SIDECAR = "sidecar.istio.io/status"
_INGRESS: Final = "ztunnel.io/ingress"
NEVER: Final = ("kube-system",)
"""Namespaces whose pods are in no mesh, whatever their labels say (Istio: excludeNamespaces of its CNI)."""
_CRONJOB = re.compile(r"(.+)-[0-9]{8,10}")
_REPLICA_SET = re.compile(r"(.+)-[bcdfghjklmnpqrstvwxz2456789]{5,10}")
_NAMES = ("service.istio.io/canonical-name", "app.kubernetes.io/name", "app")
_REVISIONS = ("service.istio.io/canonical-revision", "app.kubernetes.io/version", "version")
_REGIONS = ("topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region")
_ZONES = ("topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """All that a workload depends on beside its pod or entry and its node, for one namespace. `policies` have
    a selector, and are those of the namespace and the root's; `entries` are ServiceEntries that select."""

    settings: MeshSettings
    namespace: kube.Namespace | None = None
    services: NamespaceServices = field(default_factory=NamespaceServices)
    policies: tuple[tuple[Policy, Mapping[str, str]], ...] = ()
    peer_modes: PeerModes = field(default_factory=lambda: PeerModes(Mode.PERMISSIVE, {}, {}, ""))
    entries: tuple[EntryServices, ...] = ()
    waypoints: Waypoints | None = None


def convert_pod(pod: kube.Pod, node: kube.Node | None, around: Surroundings) -> Workload | None:
    """The pod's workload; None where it has ended, or no node has been found for it yet. One that starts has
    no address and serves nobody: it is there so that its node can enroll it before its first process runs.
    Tunnels to one that speaks HBONE by itself, as waypoints do, or that Istio has enrolled, are not ours to
    serve."""
    if pod.ended or not (pod.addresses or (pod.node and not pod.host_network)):
        return None
    meta, settings = pod.meta, around.settings
    kind, owner = _owner(pod)
    name, revision = canonical_names(meta.labels, owner)
    native = has_tunnel(meta.labels) or (is_foreign(pod) and not pod.host_network)
    in_a_mesh = native or opted_in(pod, around.namespace)
    return Workload(
        uid=workload_uid((meta.namespace, meta.name), settings),
        name=meta.name,
        namespace=meta.namespace,
        service_account=pod.service_account,
        trust_domain=settings.trust_domain,
        addresses=pod.addresses,
        node=pod.node,
        protocol=TunnelProtocol.HBONE if in_a_mesh else TunnelProtocol.NONE,
        native_tunnel=native,
        left_to=left_to(pod, around.namespace),
        same_node=_same_node(pod, around.namespace),
        network=settings.network,
        cluster=settings.cluster,
        kind=kind,
        workload_name=owner,
        canonical_name=name,
        canonical_revision=revision,
        services=_services(pod, around) if pod.addresses else {},
        authorization_policies=policies_for(meta.namespace, meta.labels, around),
        healthy=pod.ready and not meta.deleting and bool(pod.addresses),
        draining=pod.ready and meta.deleting and bool(pod.addresses),
        host_network=pod.host_network,
        forwards=_forwards(pod, around.namespace),
        locality=_locality(node),
        pod_uid=kubelet_uid(meta),
        gateway=is_gateway(meta.labels),
    )


def is_gateway(labels: Mapping[str, str]) -> bool:
    """Whether a pod with these labels brings calls from outside: one of a Gateway that is no waypoint, or one
    that says so itself."""
    of_gateway = GATEWAY_NAME in labels and not has_tunnel(labels)
    return of_gateway or labels.get(_INGRESS) == "true"


def workload_uid(name: tuple[str, str], settings: MeshSettings) -> str:
    """The name on the wire of the pod of that namespace and name."""
    return f"{settings.cluster}//Pod/{name[0]}/{name[1]}"


def opted_in(pod: kube.Pod, namespace: kube.Namespace | None) -> bool:
    """Whether the pod is to be in the mesh: its own label decides, else its namespace's. One with a sidecar
    never is."""
    return _is_labelled(pod, namespace) and _SIDECAR not in pod.meta.annotations


def left_to(pod: kube.Pod, namespace: kube.Namespace | None) -> LeftTo:
    """Who serves the pod in our place, though it is to be in the mesh. Where it is Istio's ztunnel, its node
    proxy looks whether that is true."""
    if not _is_labelled(pod, namespace):
        return LeftTo.NOBODY
    if _SIDECAR in pod.meta.annotations:
        return LeftTo.SIDECAR
    return LeftTo.ISTIO if is_foreign(pod) else LeftTo.NOBODY


def _is_labelled(pod: kube.Pod, namespace: kube.Namespace | None) -> bool:
    if pod.host_network or pod.meta.namespace in NEVER:
        return False
    label = pod.meta.labels.get(DATAPLANE_MODE, "")
    if label not in ("ambient", "none") and namespace is not None:
        label = namespace.meta.labels.get(DATAPLANE_MODE, "")
    return label == "ambient"


def _same_node(pod: kube.Pod, namespace: kube.Namespace | None) -> SameNode:
    """The pod's annotation, else its namespace's, else auto; `mtls` at either wins."""
    wanted = [pod.meta.same_node, namespace.meta.same_node if namespace else None]
    if SameNode.MTLS in wanted:
        return SameNode.MTLS
    return next((one for one in wanted if one is not None), SameNode.AUTO)


def _forwards(pod: kube.Pod, namespace: kube.Namespace | None) -> bool:
    """Whether the pod's annotation, else its namespace's, leaves alone what it only forwards."""
    wanted = [pod.meta.forwards, namespace.meta.forwards if namespace else None]
    return next((one for one in wanted if one is not None), False)


def _services(pod: kube.Pod, around: Surroundings) -> dict[ServiceName, tuple[Port, ...]]:
    found = {
        service_name(one.meta.full_name, around.settings): ports for one, ports in around.services.of(pod)
    }
    for one in around.entries:
        if one.selects(pod.meta.labels):
            found |= dict.fromkeys(one.names, one.ports_of(pod))
    return found


def policies_for(namespace: str, labels: Mapping[str, str], around: Surroundings) -> tuple[str, ...]:
    """Keys of the policies that select a workload with these labels."""
    selected = sorted(
        policy.key for policy, selector in around.policies if selector.items() <= labels.items()
    )
    return (*selected, *around.peer_modes.keys_for(namespace, labels))


def canonical_names(labels: Mapping[str, str], owner: str) -> tuple[str, str]:
    """Name and revision by which telemetry knows a workload (istio/istio pkg/kube/labels)."""
    return _first(labels, _NAMES) or owner, _first(labels, _REVISIONS) or "latest"


def _owner(pod: kube.Pod) -> tuple[WorkloadKind, str]:
    """What controls the pod. The Deployment behind a ReplicaSet and the CronJob behind a Job are told by the
    names that their controllers give: `<deployment>-<pod-template-hash>`, `<cronjob>-<minutes since
    1970>`. A static pod is its node's, which no workload is named after."""
    owners = [one for one in pod.meta.owners if one.controller] or list(pod.meta.owners)
    if not owners or owners[0].kind == "Node":
        return WorkloadKind.POD, pod.meta.name
    kind, name = owners[0].kind, owners[0].name
    if kind == "ReplicaSet":
        template_hash = pod.meta.labels.get("pod-template-hash", "")
        if template_hash and name.endswith(f"-{template_hash}"):
            return WorkloadKind.DEPLOYMENT, name.removesuffix(f"-{template_hash}")
        if found := _REPLICA_SET.fullmatch(name):
            return WorkloadKind.DEPLOYMENT, found[1]
    if kind == "Deployment":
        return WorkloadKind.DEPLOYMENT, name
    if kind == "Job":
        found = _CRONJOB.fullmatch(name)
        return (WorkloadKind.CRONJOB, found[1]) if found else (WorkloadKind.JOB, name)
    return WorkloadKind.POD, name


def _locality(node: kube.Node | None) -> Locality:
    if node is None:
        return Locality()
    labels = node.meta.labels
    subzone = labels.get("topology.istio.io/subzone", "")
    return Locality(_first(labels, _REGIONS), _first(labels, _ZONES), subzone)


def _first(labels: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((labels[name] for name in names if labels.get(name)), "")
