"""The laboratory as values: nodes, pods and services out of completed objects, and what a change starts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from ztunnel.demo.allot import parse_addresses
from ztunnel.demo.manifest import Key, Manifest, Part
from ztunnel.demo.schedule import Objects, cluster_ips, node_number, pod_ips
from ztunnel.model.address import Endpoint, IPAddress

_DEFAULT_PORT = 8080
_VARIABLE = re.compile(r"\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)|\$\$")


@dataclass(frozen=True, slots=True)
class Node:
    """A node; `number` decides its addresses (allot)."""

    name: str
    number: int


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod. `command` is empty where the echo server runs, on `port`. The host network's are its node's."""

    namespace: str
    name: str
    uid: str
    node: Node
    addresses: tuple[IPAddress, ...]
    command: tuple[str, ...]
    environment: Mapping[str, str]
    port: int
    labels: Mapping[str, str]
    named_ports: Mapping[str, int]
    host_network: bool = False
    ready: bool = True

    @property
    def full_name(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"

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
        ConfigError: a field that a pod or service runs by has the wrong type.
    """
    named = {
        key.name: Node(key.name, node_number(node)) for key, node in objects.items() if _core(key) == "Node"
    }
    pods = tuple(
        _pod(manifest, named) for key, manifest in sorted(objects.items(), key=_by_key) if _core(key) == "Pod"
    )
    services = tuple(
        _service(manifest, pods, objects)
        for key, manifest in sorted(objects.items(), key=_by_key)
        if _core(key) == "Service" and manifest.pull("spec.type", str, "ClusterIP") != "ExternalName"
    )
    namespaces = tuple(sorted(key.name for key in objects if _core(key) == "Namespace"))
    return Cluster(tuple(sorted(named.values(), key=lambda node: node.number)), pods, services, namespaces)


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
    """Of several containers the first one's command runs; the ports of all count."""
    containers = manifest.parts("spec.containers")
    first = containers[0] if containers else Part(manifest, "spec.containers[0]", {})
    ports = [port for container in containers for port in container.parts("ports")]
    numbers = [port.pull("containerPort", int, _DEFAULT_PORT) for port in ports]
    names = [port.pull("name", str, "") for port in ports]
    addresses = pod_ips(manifest)
    environment = _environment(first, addresses)
    words = [*first.pull("command", list, []), *first.pull("args", list, [])]
    conditions = manifest.parts("status.conditions")
    return Pod(
        namespace=manifest.key.namespace,
        name=manifest.key.name,
        uid=manifest.pull("metadata.uid", str, ""),
        node=nodes[manifest.pull("spec.nodeName", str, "")],
        addresses=addresses,
        command=tuple(expand(str(word), environment) for word in words),
        environment=environment,
        port=numbers[0] if numbers else _DEFAULT_PORT,
        labels=manifest.pull("metadata.labels", dict, {}),
        named_ports={name: number for name, number in zip(names, numbers, strict=True) if name},
        host_network=manifest.pull("spec.hostNetwork", bool, False),
        ready=all(
            one.pull("type", str, "") != "Ready" or one.pull("status", str, "") == "True"
            for one in conditions
        ),
    )


def expand(text: str, environment: Mapping[str, str]) -> str:
    """Kubernetes' `$(NAME)`; `$$` is a dollar, an unknown name stays as it is."""
    return _VARIABLE.sub(lambda m: environment.get(m[1], m[0]) if m[1] else "$", text)


def _environment(container: Part, addresses: tuple[IPAddress, ...]) -> dict[str, str]:
    """The container's own variables after those that tell a pod who it is."""
    manifest = container.within
    known = {
        "metadata.name": manifest.key.name,
        "metadata.namespace": manifest.key.namespace,
        "metadata.uid": manifest.pull("metadata.uid", str, ""),
        "spec.nodeName": manifest.pull("spec.nodeName", str, ""),
        "spec.serviceAccountName": manifest.pull("spec.serviceAccountName", str, ""),
        "status.podIP": str(addresses[0]),
        "status.podIPs": ",".join(map(str, addresses)),
    }
    environment = {
        "POD_NAME": known["metadata.name"],
        "POD_NAMESPACE": known["metadata.namespace"],
        "POD_IP": known["status.podIP"],
        "NODE_NAME": known["spec.nodeName"],
    }
    for variable in container.parts("env"):
        field = variable.pull("valueFrom.fieldRef.fieldPath", str, "")
        value = known.get(field, "") if field else expand(variable.pull("value", str, ""), environment)
        environment[variable.pull("name", str, "")] = value
    return environment


def _service(manifest: Manifest, pods: tuple[Pod, ...], objects: Objects) -> Service:
    selector = manifest.pull("spec.selector", dict, {})
    chosen = [
        pod
        for pod in pods
        if selector
        and pod.namespace == manifest.key.namespace
        and pod.ready
        and selector.items() <= pod.labels.items()
    ]
    slices = [] if selector else _slices(manifest.key, objects)
    ports: list[ServicePort] = []
    for entry in manifest.parts("spec.ports"):
        if entry.pull("protocol", str, "TCP") == "TCP":
            number, name = entry.pull("port", int, 0), entry.pull("name", str, "")
            target = entry.pull("targetPort", object, number)
            endpoints = [end for pod in chosen for end in _pod_endpoints(pod, target)]
            endpoints += [end for piece in slices for end in _slice_endpoints(piece, name)]
            ports.append(ServicePort(number, tuple(endpoints)))
    return Service(manifest.key.namespace, manifest.key.name, cluster_ips(manifest), tuple(ports))


def _pod_endpoints(pod: Pod, target: object) -> list[Endpoint]:
    number = target if isinstance(target, int) else pod.named_ports.get(str(target), 0)
    return [Endpoint(ip, number) for ip in pod.addresses if number]


def _slices(key: Key, objects: Objects) -> list[Manifest]:
    return [
        piece
        for other, piece in objects.items()
        if (other.group, other.kind, other.namespace) == ("discovery.k8s.io", "EndpointSlice", key.namespace)
        and piece.pull("metadata.labels", dict, {}).get("kubernetes.io/service-name") == key.name
    ]


def _slice_endpoints(piece: Manifest, port_name: str) -> list[Endpoint]:
    numbers = [
        port.pull("port", int, 0) for port in piece.parts("ports") if port.pull("name", str, "") == port_name
    ]
    ready = [end for end in piece.parts("endpoints") if end.pull("conditions.ready", bool, True)]
    addresses = [ip for end in ready for ip in parse_addresses([*map(str, end.pull("addresses", list, []))])]
    return [Endpoint(ip, number) for number in numbers for ip in addresses]
