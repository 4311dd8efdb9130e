"""The Kubernetes objects that describe a mesh, read from manifests: only what the mesh needs of them.

Pods, services and nodes have many legal fields that we do not read, and gain new ones: those are left alone,
except where one looks like a slip of a field that we do read. Metadata and everything read is checked
strictly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ztunnel.model.address import IPAddress
from ztunnel.model.service import IpFamilies
from ztunnel.state.bound import read_bound
from ztunnel.state.field import Field
from ztunnel.state.meta import Meta, read_choice, read_ip, read_labels, read_meta, read_port


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_POD_READ = _words("""containers hostNetwork initContainers nodeName serviceAccount serviceAccountName""")
_POD_OTHER = _words(
    """activeDeadlineSeconds affinity automountServiceAccountToken dnsConfig dnsPolicy enableServiceLinks
ephemeralContainers hostAliases hostIPC hostPID hostUsers hostname imagePullSecrets nodeSelector os overhead
preemptionPolicy priority priorityClassName readinessGates resourceClaims resources restartPolicy
runtimeClassName schedulerName schedulingGates securityContext setHostnameAsFQDN shareProcessNamespace
subdomain terminationGracePeriodSeconds tolerations topologySpreadConstraints volumes"""
)
_SERVICE_READ = _words(
    """clusterIP clusterIPs externalIPs internalTrafficPolicy ipFamilies loadBalancerSourceRanges ports
publishNotReadyAddresses selector sessionAffinity sessionAffinityConfig trafficDistribution type"""
)
_SERVICE_OTHER = _words(
    """allocateLoadBalancerNodePorts externalName externalTrafficPolicy healthCheckNodePort ipFamilyPolicy
loadBalancerClass loadBalancerIP"""
)

_AFFINITY_SECONDS, _MOST_AFFINITY_SECONDS = 10800, 86400


@dataclass(frozen=True, slots=True)
class Namespace:
    """Opts its pods in by a label."""

    meta: Meta


@dataclass(frozen=True, slots=True)
class Node:
    """Gives its pods their locality by labels."""

    meta: Meta


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """Known so that it is no unknown kind; identities come from pods."""

    meta: Meta


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod; `ports` are its containers' named ports, `phase` is empty where the status says nothing."""

    meta: Meta
    node: str
    service_account: str
    host_network: bool
    ports: Mapping[str, int]
    addresses: tuple[IPAddress, ...]
    phase: str
    ready: bool

    @property
    def ended(self) -> bool:
        """Whether it has come to its end, and its addresses are no longer its."""
        return self.phase in ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class ServicePort:
    """A TCP port of a service; `target` is a pod's port by number or by name. `app_protocol` is empty where
    nothing is said."""

    name: str
    port: int
    target: int | str
    app_protocol: str = ""


@dataclass(frozen=True, slots=True)
class Service:
    """A service; `addresses` are its cluster IPs, none for a headless one, `external` others that it has at
    its ports. `affinity_seconds`: so long a client keeps its endpoint; 0: it does not. `bound`: the waypoint,
    `namespace/name`, that it has been attached to, by its status."""

    meta: Meta
    kind: str
    selector: Mapping[str, str]
    addresses: tuple[IPAddress, ...]
    ports: tuple[ServicePort, ...]
    local_only: bool
    traffic_distribution: str
    publish_not_ready: bool
    ip_families: IpFamilies
    external: tuple[IPAddress, ...] = ()
    affinity_seconds: int = 0
    bound: str = ""


def read_namespace(root: Field) -> Namespace:
    """v1 Namespace."""
    return Namespace(read_meta(root, namespaced=False))


def read_node(root: Field) -> Node:
    """v1 Node."""
    return Node(read_meta(root, namespaced=False))


def read_service_account(root: Field) -> ServiceAccount:
    """v1 ServiceAccount."""
    return ServiceAccount(read_meta(root))


def read_pod(root: Field) -> Pod:
    """v1 Pod. A status without conditions counts as ready: only a kubelet writes them."""
    spec, status = root.sub("spec"), root.sub("status")
    if spec is not None:
        spec.only(_POD_READ + _POD_OTHER, similar_to=_POD_READ)
    conditions = status.each("conditions") if status else []
    ready = [
        condition.text("status") == "True" for condition in conditions if condition.text("type") == "Ready"
    ]
    return Pod(
        read_meta(root),
        spec.text("nodeName") if spec else "",
        (spec.text("serviceAccountName") or spec.text("serviceAccount") if spec else "") or "default",
        spec.flag("hostNetwork") if spec else False,
        _named_ports(spec) if spec else {},
        _pod_addresses(status) if status else (),
        status.text("phase") if status else "",
        all(ready) and (bool(ready) or not conditions),
    )


def read_service(root: Field) -> Service:
    """v1 Service."""
    meta, spec = read_meta(root), root.sub("spec")
    if spec is None:
        root.fault("spec is missing")
        return Service(meta, "", {}, (), (), False, "", False, IpFamilies.AUTOMATIC)
    spec.only(_SERVICE_READ + _SERVICE_OTHER, similar_to=_SERVICE_READ)
    addresses = spec.each("clusterIPs") or [place for place in [spec.sub("clusterIP")] if place]
    families = [place.as_text() for place in spec.each("ipFamilies")]
    single = IpFamilies.IPV4_ONLY if families == ["IPv4"] else IpFamilies.IPV6_ONLY
    return Service(
        meta,
        read_choice(spec, "type", "ClusterIP", "ExternalName", "LoadBalancer", "NodePort"),
        read_labels(spec, "selector"),
        tuple(ip for place in addresses if place.as_text() not in ("", "None") for ip in read_ip(place)),
        tuple(port for place in spec.each("ports") for port in _service_port(place)),
        read_choice(spec, "internalTrafficPolicy", "Cluster", "Local") == "Local",
        spec.text("trafficDistribution"),
        spec.flag("publishNotReadyAddresses"),
        (IpFamilies.AUTOMATIC, single, IpFamilies.DUAL)[min(len(families), 2)],
        tuple(ip for ip in _external(root, spec) if not families or f"IPv{ip.version}" in families),
        _affinity(spec),
        read_bound(root),
    )


def _affinity(spec: Field) -> int:
    """`sessionAffinity: ClientIP` with its timeout, by default three hours and at most a day."""
    config = spec.sub("sessionAffinityConfig")
    client = config.sub("clientIP") if config else None
    timeout = client.sub("timeoutSeconds") if client else None
    seconds = timeout.as_number() if timeout else _AFFINITY_SECONDS
    if timeout is not None and seconds is not None and not 0 < seconds <= _MOST_AFFINITY_SECONDS:
        timeout.fault(f"a timeout is from 1 to {_MOST_AFFINITY_SECONDS} seconds")
    if read_choice(spec, "sessionAffinity", "None", "ClientIP") != "ClientIP":
        return 0
    return seconds or 0


def _external(root: Field, spec: Field) -> list[IPAddress]:
    """`externalIPs`, and what a load balancer gave, as kube-proxy serves them to pods: not of a headless
    service, not where the balancer wants to see every call itself (`ipMode: Proxy`) or some are to be
    refused."""
    found = [ip for place in spec.each("externalIPs") for ip in read_ip(place)]
    status = root.sub("status")
    balancer = status.sub("loadBalancer") if status else None
    for place in balancer.each("ingress") if balancer else ():
        ip = place.sub("ip")
        if ip is not None and place.text("ipMode", "VIP") == "VIP":
            found += read_ip(ip) if not spec.each("loadBalancerSourceRanges") else ()
    return [] if spec.text("clusterIP") == "None" else found


def _service_port(place: Field) -> list[ServicePort]:
    """The port, or nothing where it is not TCP: a proxy of connections has no use for it."""
    place.only(["appProtocol", "name", "nodePort", "port", "protocol", "targetPort"])
    number, target = place.sub("port"), place.sub("targetPort")
    if number is None:
        place.fault("port is missing")
        return []
    port = read_port(number)
    if read_choice(place, "protocol", "TCP", "UDP", "SCTP") not in ("", "TCP"):
        return []
    if target is None:
        return [ServicePort(place.text("name"), port, port, place.text("appProtocol"))]
    if target.holds_number():
        return [ServicePort(place.text("name"), port, read_port(target), place.text("appProtocol"))]
    name = target.as_text()
    if name.isdigit():
        target.fault("a port's name has a letter in it; a number stands without quotes")
    return [ServicePort(place.text("name"), port, name, place.text("appProtocol"))]


def _named_ports(spec: Field) -> dict[str, int]:
    """Named TCP ports of the containers that run beside each other; init containers count where they stay
    (sidecars)."""
    ports: dict[str, int] = {}
    stayers = [place for place in spec.each("initContainers") if place.text("restartPolicy") == "Always"]
    for container in spec.each("containers") + stayers:
        for place in container.each("ports"):
            place.only(["containerPort", "hostIP", "hostPort", "name", "protocol"])
            number, name = place.sub("containerPort"), place.text("name")
            if number is None:
                place.fault("containerPort is missing")
            elif name and place.text("protocol", "TCP") == "TCP":
                ports.setdefault(name, read_port(number))
            else:
                read_port(number)
    return ports


def _pod_addresses(status: Field) -> tuple[IPAddress, ...]:
    """`podIPs`, or else `podIP`."""
    places = [place for entry in status.each("podIPs") for place in [entry.sub("ip")] if place]
    places = places or [place for place in [status.sub("podIP")] if place]
    return tuple(ip for place in places for ip in read_ip(place))
