"""All objects of a mesh as workloads, services and policies: a pure function, that keeps what it need not
make anew.

What a pod becomes depends on the pod, its node and the surroundings of its namespace. Where all three are
what they were, the workload of the translation before is taken over, the very object, so that publishing one
changed pod of 5,000 costs 5,000 comparisons and one conversion."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ztunnel.control.authorization import convert_authorization
from ztunnel.control.document import Key
from ztunnel.control.endpoint import Attached, attach, endpoint_workloads
from ztunnel.control.inventory import Inventory, of_kind
from ztunnel.control.peer_authentication import PeerModes, convert_peer_authentications
from ztunnel.control.service import NamespaceServices, convert_service, group_services
from ztunnel.control.settings import MeshSettings
from ztunnel.control.workload import DATAPLANE_MODE, Surroundings, convert_pod
from ztunnel.model.address import IPAddress
from ztunnel.model.policy import Policy, PolicyScope
from ztunnel.model.service import Service
from ztunnel.model.workload import TunnelProtocol, Workload
from ztunnel.state import kube
from ztunnel.state.endpoints import Endpoints, EndpointSlice
from ztunnel.state.istio import AuthorizationPolicy, PeerAuthentication

Resource = Workload | Service | Policy
_WAYPOINT = "istio.io/use-waypoint"


@dataclass(frozen=True, slots=True)
class Translation:
    """Resources by their names in xDS, addresses (workloads and services) apart from policies; and what the
    operator should know. `inputs` is for the next translation: by pod, what its workload was made of."""

    addresses: Mapping[str, Workload | Service] = field(default_factory=dict)
    policies: Mapping[str, Policy] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    inputs: Mapping[str, tuple[kube.Pod, kube.Node | None, Surroundings, Workload | None]] = field(
        default_factory=dict
    )


def translate(inventory: Inventory, settings: MeshSettings, before: Translation) -> Translation:
    """Every object of the inventory, translated."""
    objects = list(inventory.objects.values())
    namespaces = {one.meta.name: one for one in of_kind(objects, kube.Namespace)}
    policies, selectors, warnings = _policies(objects, settings)
    modes, strict, remarks = convert_peer_authentications(of_kind(objects, PeerAuthentication), settings)
    policies += strict
    slices = of_kind(objects, EndpointSlice)
    slices += [each for one in of_kind(objects, Endpoints) for each in _mirrored(one, inventory)]
    attached = attach(slices, of_kind(objects, kube.Service), of_kind(objects, kube.Pod))
    services = group_services(of_kind(objects, kube.Service), attached.pods)
    around = _Around(settings, namespaces, services, selectors, modes)
    inputs = _pods(objects, around, before)
    addresses: dict[str, Workload | Service] = {}
    for one in _others(attached, around):
        addresses[one.uid if isinstance(one, Workload) else str(one.key)] = one
    addresses.update({made.uid: made for *_, made in inputs.values() if made is not None})
    return Translation(
        addresses,
        {policy.key: policy for policy in policies},
        (*warnings, *remarks, *_warnings(inventory, addresses.values())),
        inputs,
    )


@dataclass(frozen=True, slots=True)
class _Around:
    """What surrounds pods, by namespace."""

    settings: MeshSettings
    namespaces: Mapping[str, kube.Namespace]
    services: Mapping[str, NamespaceServices]
    selectors: tuple[tuple[Policy, Mapping[str, str]], ...]
    modes: PeerModes

    def of(self, namespace: str) -> Surroundings:
        reach = (self.settings.root_namespace, namespace)
        return Surroundings(
            self.settings,
            self.namespaces.get(namespace),
            self.services.get(namespace, NamespaceServices()),
            tuple(one for one in self.selectors if one[0].namespace in reach),
            self.modes,
        )


def _policies(
    objects: Iterable[object], settings: MeshSettings
) -> tuple[tuple[Policy, ...], tuple[tuple[Policy, Mapping[str, str]], ...], list[str]]:
    """The policies for node proxies, those of them with a selector, and remarks."""
    policies: list[Policy] = []
    selectors: list[tuple[Policy, Mapping[str, str]]] = []
    warnings: list[str] = []
    for one in objects:
        if isinstance(one, AuthorizationPolicy):
            policy, remarks = convert_authorization(one, settings)
            warnings += remarks
            if policy is not None:
                policies.append(policy)
                if policy.scope is PolicyScope.WORKLOAD_SELECTOR:
                    selectors.append((policy, one.selector))
    return tuple(policies), tuple(selectors), warnings


def _pods(
    objects: Iterable[object], around: _Around, before: Translation
) -> dict[str, tuple[kube.Pod, kube.Node | None, Surroundings, Workload | None]]:
    """By `namespace/name` what each pod's workload is made of, and the workload; from `before` where nothing
    changed."""
    objects = list(objects)
    nodes = {one.meta.name: one for one in objects if isinstance(one, kube.Node)}
    surroundings: dict[str, Surroundings] = {}
    kept: dict[int, bool] = {}
    made = {}
    for pod in objects:
        if not isinstance(pod, kube.Pod):
            continue
        key = f"{pod.meta.namespace}/{pod.meta.name}"
        here = surroundings.get(pod.meta.namespace)
        if here is None:
            here = surroundings[pod.meta.namespace] = around.of(pod.meta.namespace)
        node, old = nodes.get(pod.node), before.inputs.get(key)
        if old is not None and old[0] is pod and old[1] is node:
            same = kept.get(id(old[2]))
            if same is None:
                same = kept[id(old[2])] = old[2] == here
            if same:
                made[key] = old
                continue
        fresh = convert_pod(pod, node, here)
        if old is not None and old[3] == fresh:
            fresh = old[3]
        made[key] = (pod, node, here, fresh)
    return made


def _mirrored(found: Endpoints, inventory: Inventory) -> tuple[EndpointSlice, ...]:
    """The slices that an Endpoints becomes; Kubernetes makes those of a service that selects its pods."""
    service = inventory.objects.get(Key("Service", found.meta.namespace, found.meta.name))
    return () if isinstance(service, kube.Service) and service.selector else found.slices


def _others(attached: Attached, around: _Around) -> Iterator[Workload | Service]:
    """Services, and workloads of endpoints that are no pods."""
    for namespace, group in around.services.items():
        for service in group.services:
            yield convert_service(service, around.namespaces.get(namespace), around.settings)
    yield from endpoint_workloads(attached, around.settings)


def _warnings(inventory: Inventory, addresses: Iterable[Workload | Service]) -> Iterator[str]:
    if inventory.unknown:
        yield f"not read: {', '.join(sorted(inventory.unknown))}"
    for one in inventory.objects.values():
        who = f"{type(one).__name__} {one.meta.namespace}/{one.meta.name}".replace(" /", " ")
        labels = one.meta.labels
        mode = labels.get(DATAPLANE_MODE, "none") if isinstance(one, kube.Namespace | kube.Pod) else "none"
        if mode not in ("ambient", "none"):
            yield f"{who}: {DATAPLANE_MODE}={mode} is neither ambient nor none: it decides nothing"
        if labels.get(_WAYPOINT, "none") != "none" and isinstance(
            one, kube.Namespace | kube.Pod | kube.Service
        ):
            yield f"{who}: waypoint {labels[_WAYPOINT]} is not known here: HTTP rules are not applied"
        if isinstance(one, kube.Pod) and not one.addresses and one.phase in ("", "Running"):
            yield f"{who}: has no address (status.podIPs): it is not in the mesh yet"
    yield from _claimed_twice(addresses)


def _claimed_twice(addresses: Iterable[Workload | Service]) -> Iterator[str]:
    owners: dict[IPAddress, str] = {}
    for one in addresses:
        if isinstance(one, Workload) and (one.host_network or one.protocol is not TunnelProtocol.HBONE):
            continue
        who = one.uid if isinstance(one, Workload) else str(one.key)
        for ip in one.addresses:
            if owners.setdefault(ip, who) != who:
                yield f"{ip} is claimed by {owners[ip]} and by {who}"
