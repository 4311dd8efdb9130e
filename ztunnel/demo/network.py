"""What the kernel is told: a fabric, a namespace for each node and pod, and the links between them.

    zt-<lab>-fabric        bridge fabric0: the link between the nodes, where captures are taken
        node1 ─ eth0       zt-<lab>-node-*   10.10.0.11, routes to the pods of the other nodes
                  pods0    bridge of the node's pods, 10.244.1.1
        veth2 ─ eth0       zt-<lab>-pod-*    10.244.1.2/32, everything by way of the gateway

A pod knows no neighbour but its gateway, as with most CNI plugins: every packet between two pods crosses
both pods' own interfaces and is routed by the node, where connection tracking sees both its directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

from ztunnel.demo import allot
from ztunnel.demo.cluster import Node, Pod
from ztunnel.demo.names import Names
from ztunnel.kernel.topology import Assign, Bridge, Change, Route, Unroute, Up, Veth

_EVERYWHERE_V4, _EVERYWHERE_V6 = IPv4Network("0.0.0.0/0"), IPv6Network("::/0")

_EVERY = {
    # Addresses are ours to give out: no waiting for duplicates, no router's announcements.
    "ipv6/conf/all/disable_ipv6": "0",
    "ipv6/conf/default/disable_ipv6": "0",
    "ipv6/conf/all/accept_dad": "0",
    "ipv6/conf/default/accept_dad": "0",
    "ipv6/conf/default/accept_ra": "0",
    # A redirected pod would go past its gateway, and replies past the translation of virtual addresses.
    "ipv6/conf/all/accept_redirects": "0",
    "ipv6/conf/default/accept_redirects": "0",
    "ipv4/conf/all/accept_redirects": "0",
    "ipv4/conf/default/accept_redirects": "0",
    "ipv4/conf/all/send_redirects": "0",
    "ipv4/conf/default/send_redirects": "0",
}
_BRIDGED = {
    "bridge/bridge-nf-call-iptables": "0",
    "bridge/bridge-nf-call-ip6tables": "0",
    "bridge/bridge-nf-call-arptables": "0",
}
FABRIC_SYSCTLS = {**_EVERY, **_BRIDGED}
POD_SYSCTLS = _EVERY
NODE_SYSCTLS = {
    **_EVERY,
    **_BRIDGED,
    "ipv4/ip_forward": "1",
    "ipv6/conf/all/forwarding": "1",
    "ipv4/conf/all/rp_filter": "0",
    "ipv4/conf/default/rp_filter": "0",
}


def fabric() -> list[Change]:
    """In the fabric's namespace, once."""
    return [Up("lo"), Bridge("fabric0"), Up("fabric0")]


def fabric_port(names: Names, node: Node) -> list[Change]:
    """In the fabric's namespace: the cable to a node."""
    port = f"node{node.number}"
    return [Veth(port, "eth0", names.netns(names.node(node.name))), Up(port, "fabric0")]


def node(node: Node) -> list[Change]:
    """In a node's namespace, once its cable is there."""
    v4, v6 = allot.node_addresses(node.number)
    pods_v4, pods_v6 = allot.pod_ranges(node.number)
    return [
        Up("lo"),
        Up("eth0"),
        Assign("eth0", IPv4Interface(f"{v4}/24")),
        Assign("eth0", IPv6Interface(f"{v6}/64")),
        # A packet to a virtual address is routed before it is translated or refused.
        *(Route(cidr, "eth0") for cidr in (allot.SERVICES_V4, allot.SERVICES_V6)),
        # A fixed address: a bridge otherwise takes a port's, and pods would hold on to one that is gone.
        Bridge("pods0", f"02:00:00:00:{node.number:02x}:01"),
        Up("pods0"),
        Assign("pods0", IPv4Interface(f"{pods_v4[1]}/24")),
        Assign("pods0", IPv6Interface(f"{pods_v6[1]}/64")),
    ]


def ways(node: Node, others: Sequence[Node]) -> list[Route]:
    """In a node's namespace: the routes to the pods of other nodes."""
    found: list[Route] = []
    for other in others:
        if other != node:
            pods_v4, pods_v6 = allot.pod_ranges(other.number)
            v4, v6 = allot.node_addresses(other.number)
            found += [Route(pods_v4, via=v4), Route(pods_v6, via=v6)]
    return found


def no_ways(node: Node, others: Sequence[Node]) -> list[Change]:
    """In a node's namespace: these routes no longer."""
    return [Unroute(way.to, way.via) for way in ways(node, others) if way.via is not None]


def pod_port(pod: Pod) -> str:
    """The node's end of a pod's cable; unique on the node because the address is."""
    return f"veth{pod.address(IPv4Address).packed[3]}"


def pod_cable(names: Names, pod: Pod) -> list[Change]:
    """In the node's namespace: the cable to a pod."""
    port, netns = pod_port(pod), names.netns(names.pod(pod.namespace, pod.name))
    # A pod that gets the address of one that is gone gets its hardware address too: neighbours remember it.
    hardware = "02:00:" + pod.address(IPv4Address).packed.hex(":")
    return [Veth(port, "eth0", netns, hardware), Up(port, "pods0")]


def pod(pod: Pod) -> list[Change]:
    """In a pod's namespace, once its cable is there."""
    gateway_v4, gateway_v6 = (cidr[1] for cidr in allot.pod_ranges(pod.node.number))
    own_v4, own_v6 = pod.address(IPv4Address), pod.address(IPv6Address)
    return [
        Up("lo"),
        Up("eth0"),
        Assign("eth0", IPv4Interface(own_v4)),
        Route(IPv4Network(gateway_v4), "eth0"),
        Route(_EVERYWHERE_V4, via=gateway_v4, source=own_v4),
        Assign("eth0", IPv6Interface(own_v6)),
        Route(IPv6Network(gateway_v6), "eth0"),
        Route(_EVERYWHERE_V6, via=gateway_v6, source=own_v6),
    ]
