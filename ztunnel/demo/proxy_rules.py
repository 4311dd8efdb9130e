"""What kube-proxy and DNS do in a cluster: rules that send a virtual address to a ready endpoint, and names.

Only callers outside the mesh need the rules: a call of an enrolled pod is decided before it becomes a packet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address

from ztunnel.demo import allot
from ztunnel.demo.cluster import Cluster, Pod, Service, ServicePort
from ztunnel.model.address import IPAddress

_TABLE = "inet ztunnel_demo"
_DOMAIN = "cluster.local"
_LOCAL = ("127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback")


def rules(services: Iterable[Service], pods: Iterable[Pod]) -> str:
    """The whole ruleset of any node, for `nft -f`: it replaces the one before in one transaction.

    An endpoint is drawn at random for each connection. A call to an address that has none is reset. A pod
    that draws itself calls itself by way of its gateway, else it would see a packet from its own address.
    """
    chosen = [line for service in services for port in service.ports for line in _translations(service, port)]
    own = [ip for pod in pods if not pod.host_network for ip in pod.addresses]
    lines = [
        f"table {_TABLE}",
        f"delete table {_TABLE}",
        f"table {_TABLE} {{",
        *_chain("services", chosen),
        *_chain("prerouting", ["type nat hook prerouting priority -100;", "jump services"]),
        *_chain("output", ["type nat hook output priority -100;", "jump services"]),
        *_chain("hairpin", ["type nat hook postrouting priority 100;", *_hairpins(own)]),
        *_chain(
            "no_endpoint",
            [f"{_destination(net)} meta l4proto tcp reject with tcp reset" for net in _SERVICES],
        ),
        *_chain("forwarded", ["type filter hook forward priority 0;", "jump no_endpoint"]),
        *_chain("sent", ["type filter hook output priority 0;", "jump no_endpoint"]),
        "}",
    ]
    return "\n".join(lines) + "\n"


def hosts(cluster: Cluster) -> Iterator[tuple[Pod, str]]:
    """`/etc/hosts` of each pod: itself, and every service under the names that Kubernetes gives it there."""
    known = {
        namespace: "\n".join(_services(namespace, cluster)) + "\n"
        for namespace in {pod.namespace for pod in cluster.pods}
    }
    for pod in cluster.pods:
        own = [f"{ip} {' '.join([*_pod_names(pod, pod.namespace), pod.host_name])}" for ip in pod.addresses]
        yield pod, "\n".join([*_LOCAL, *own, known[pod.namespace]])


def _services(namespace: str, cluster: Cluster) -> Iterator[str]:
    pods = {ip: pod for pod in cluster.pods for ip in pod.addresses if pod.subdomain}
    for service in cluster.services:
        known = _names(service.name, service.namespace, namespace)
        ends = dict.fromkeys(endpoint.ip for port in service.ports for endpoint in port.endpoints)
        yield from (f"{ip} {' '.join(known)}" for ip in service.addresses or ends)
        for ip in () if service.addresses else ends:  # a headless service names its pods
            pod = pods.get(ip)
            if pod and (pod.subdomain, pod.namespace) == (service.name, service.namespace):
                yield f"{ip} {' '.join(_pod_names(pod, namespace))}"


def _pod_names(pod: Pod, seen_from: str) -> list[str]:
    """The names of a pod below a headless service; none where it has no subdomain."""
    if not pod.subdomain:
        return []
    return [f"{pod.host_name}.{name}" for name in _names(pod.subdomain, pod.namespace, seen_from)]


def _names(service: str, namespace: str, seen_from: str) -> list[str]:
    known = [f"{service}.{namespace}{suffix}" for suffix in (f".svc.{_DOMAIN}", "", ".svc")]
    return [*known, service] if namespace == seen_from else known


_SERVICES = (allot.SERVICES_V4, allot.SERVICES_V6)


def _chain(name: str, lines: Iterable[str]) -> Iterator[str]:
    yield f"  chain {name} {{"
    yield from (f"    {line}" for line in lines)
    yield "  }"


def _destination(target: object) -> str:
    return f"{'ip6' if ':' in str(target) else 'ip'} daddr {target}"


def _translations(service: Service, port: ServicePort) -> Iterator[str]:
    for vip in service.addresses:
        ends = [end for end in port.endpoints if end.ip.version == vip.version]
        if not ends:
            continue
        drawn = ", ".join(f"{number} : {end.ip} . {end.port}" for number, end in enumerate(ends))
        family = "ip6" if vip.version == 6 else "ip"
        target = f"numgen random mod {len(ends)} map {{ {drawn} }}"
        yield f"{_destination(vip)} tcp dport {port.port} dnat {family} to {target}"


def _hairpins(own: list[IPAddress]) -> Iterator[str]:
    for family, members in (
        ("ip", [ip for ip in own if isinstance(ip, IPv4Address)]),
        ("ip6", [ip for ip in own if not isinstance(ip, IPv4Address)]),
    ):
        if members:
            pairs = ", ".join(f"{ip} . {ip}" for ip in members)
            yield f"{family} saddr . {family} daddr {{ {pairs} }} masquerade"
