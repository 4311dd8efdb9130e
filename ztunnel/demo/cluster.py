"""The laboratory as values: nodes, pods and services out of completed objects, and what a change starts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address

from ztunnel.demo.assign import Objects, cluster_ips, node_number, pod_ips
from ztunnel.demo.containers import Container, named_ports, read_containers
from ztunnel.demo.endpoints import given_endpoints
from ztunnel.demo.manifest import Key, Manifest
from ztunnel.demo.workloads import owner_of
from ztunnel.errors import ConfigError, Fault
from ztunnel.model.address import Endpoint, IPAddress


@dataclass(frozen=True, slots=True)
class Node:
    """A node; `number` decides its addresses (allot)."""

    name: str
    number: int


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod. The host network's has the addresses of its node; `targets` are the ports by number at which
    services expect it; `hostname` and `subdomain` give it a name of its own below a headless service; `owner`
    is the workload that it was made of, `deployment/web`."""

    namespace: str
    name: str
    uid: str
    node: Node
    addresses: tuple[IPAddress, ...]
    containers: tuple[Container, ...]
    labels: Mapping[str, str]
    named_ports: Mapping[str, int]
    host_network: bool = False
    ready: bool = True
    hostname: str = ""
    subdomain: str = ""
    owner: str = ""
    account: str = "default"
    targets: tuple[int, ...] = ()

    @property
    def full_name(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"

    @property
    def host_name(self) -> str:
        """What it calls itself; at most 63 characters, as Kubernetes cuts it."""
        return (self.hostname or self.name)[:63].rstrip("-.")

    def address(self, family: type[IPv4Address] | type[IPv6Address]) -> IPAddress:
        """Its address of a family."""
        return next(ip for ip in self.addresses if isinstance(ip, family))


@dataclass(frozen=True, slots=True)
class ServicePort:
    """One TCP port of a service and the endpoints that stand behind it, both families mixed."""

    port: int
    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class Service:
    """A service with its virtual addresses; none for a headless one, whose name means its pods."""

    namespace: str
    name: str
    addresses: tuple[IPAddress, ...]
    ports: tuple[ServicePort, ...]


@dataclass(frozen=True, slots=True)
class Cluster:
    """Everything that runs, in the order of the nodes' numbers and the objects' keys."""

    nodes: tuple[Node, ...]
    pods: tuple[Pod, ...]
    services: tuple[Service, ...]
    namespaces: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """What to stop and start to come from one cluster to another; a changed pod is in both lists."""

    nodes_gone: tuple[Node, ...]
    nodes_new: tuple[Node, ...]
    pods_gone: tuple[Pod, ...]
    pods_new: tuple[Pod, ...]


def cluster(objects: Objects) -> Cluster:
    """Read completed objects.

    Raises:
        ConfigError: a field that a pod or service runs by has the wrong type: all such faults.
    """
    found, faults = read_cluster(objects)
    if faults:
        raise ConfigError(*faults.values())
    return found


def read_cluster(objects: Objects) -> tuple[Cluster, dict[Key, Fault]]:
    """As `cluster`, but what has a fault is left out, and the fault is returned beside the rest."""
    faults: dict[Key, Fault] = {}
    numbers: dict[str, Node] = {}
    pods: list[Pod] = []
    services: list[Service] = []
    ordered = sorted(objects.items(), key=_by_key)
    named = [manifest for key, manifest in ordered if _core(key) == "Service"]

    def read(kind: str, make: Callable[[Manifest], None]) -> None:
        for key, manifest in ordered:
            if _core(key) == kind:
                try:
                    make(manifest)
                except ConfigError as error:
                    faults[key] = error.faults[0]

    read("Node", lambda it: numbers.update({it.key.name: Node(it.key.name, node_number(it))}))
    read("Pod", lambda it: pods.append(_pod(it, numbers)))
    everyone = tuple(pods)
    read("Service", lambda it: services.extend(_services(it, everyone, objects)))
    sound = [manifest for manifest in named if manifest.key not in faults]
    return (
        Cluster(
            tuple(sorted(numbers.values(), key=lambda node: node.number)),
            tuple(_with_targets(pod, sound) for pod in pods),
            tuple(services),
            tuple(sorted(key.name for key in objects if _core(key) == "Namespace")),
        ),
        faults,
    )


def difference(before: Cluster, after: Cluster) -> Difference:
    """Nodes are the same by name and number, pods by uid."""
    old, new = {pod.uid for pod in before.pods}, {pod.uid for pod in after.pods}
    return Difference(
        tuple(node for node in before.nodes if node not in after.nodes),
        tuple(node for node in after.nodes if node not in before.nodes),
        tuple(pod for pod in before.pods if pod.uid not in new),
        tuple(pod for pod in after.pods if pod.uid not in old),
    )


def _core(key: Key) -> str:
    return "" if key.group else key.kind


def _by_key(item: tuple[Key, Manifest]) -> Key:
    return item[0]


def _pod(manifest: Manifest, nodes: Mapping[str, Node]) -> Pod:
    addresses, node = pod_ips(manifest), manifest.pull("spec.nodeName", str, "")
    uid, conditions = manifest.pull("metadata.uid", str, ""), manifest.parts("status.conditions")
    if not addresses or not uid:
        raise manifest.fault("status", "no address was given to it: `demo apply` it")
    if node not in nodes:
        raise manifest.fault("spec.nodeName", f"no node {node!r}")
    return Pod(
        namespace=manifest.key.namespace,
        name=manifest.key.name,
        uid=uid,
        node=nodes[node],
        addresses=addresses,
        containers=read_containers(manifest, addresses),
        labels=manifest.pull("metadata.labels", dict, {}),
        named_ports=named_ports(manifest),
        host_network=manifest.pull("spec.hostNetwork", bool, False),
        ready=all(
            one.pull("type", str, "") != "Ready" or one.pull("status", str, "") == "True"
            for one in conditions
        ),
        hostname=manifest.pull("spec.hostname", str, ""),
        subdomain=manifest.pull("spec.subdomain", str, ""),
        account=manifest.pull("spec.serviceAccountName", str, "default"),
        owner=f"{owner.kind.lower()}/{owner.name}" if (owner := owner_of(manifest)) else "",
    )


def _with_targets(pod: Pod, services: Iterable[Manifest]) -> Pod:
    """The pod with the ports by number at which services expect it."""
    found = [
        target
        for service in services
        if _selects(service, pod)
        for entry in service.parts("spec.ports")
        if entry.pull("protocol", str, "TCP") == "TCP"
        for target in [entry.pull("targetPort", object, entry.pull("port", int, 0))]
        if isinstance(target, int) and target
    ]
    return replace(pod, targets=tuple(dict.fromkeys(found))) if found else pod


def _selects(service: Manifest, pod: Pod) -> bool:
    selector = service.pull("spec.selector", dict, {})
    in_reach = pod.namespace == service.key.namespace
    return bool(selector) and in_reach and selector.items() <= pod.labels.items()


def _services(manifest: Manifest, pods: tuple[Pod, ...], objects: Objects) -> list[Service]:
    """None for another name of something outside."""
    if manifest.pull("spec.type", str, "ClusterIP") == "ExternalName":
        return []
    return [_service(manifest, pods, objects)]


def _service(manifest: Manifest, pods: tuple[Pod, ...], objects: Objects) -> Service:
    selector = manifest.pull("spec.selector", dict, {})
    unready = manifest.pull("spec.publishNotReadyAddresses", bool, False)
    chosen = [pod for pod in pods if (pod.ready or unready) and _selects(manifest, pod)]
    given = {} if selector else given_endpoints(manifest.key, objects)
    ports: list[ServicePort] = []
    for entry in manifest.parts("spec.ports"):
        if entry.pull("protocol", str, "TCP") == "TCP":
            number, name = entry.pull("port", int, 0), entry.pull("name", str, "")
            target = entry.pull("targetPort", object, number)
            endpoints = [end for pod in chosen for end in _pod_endpoints(pod, target)]
            endpoints += given.get(name, [])
            ports.append(ServicePort(number, tuple(endpoints)))
    return Service(manifest.key.namespace, manifest.key.name, cluster_ips(manifest), tuple(ports))


def _pod_endpoints(pod: Pod, target: object) -> list[Endpoint]:
    number = target if isinstance(target, int) else pod.named_ports.get(str(target), 0)
    return [Endpoint(ip, number) for ip in pod.addresses if number]
