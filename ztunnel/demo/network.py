"""What `ip` and sysctl are told: a fabric, a namespace for each node and pod, and the links between them.

    zt-<lab>-fabric        bridge fabric0: the link between the nodes, where captures are taken
        node1 ─ eth0       zt-<lab>-node-*   10.10.0.11, routes to the pods of the other nodes
                  pods0    bridge of the node's pods, 10.244.1.1
        veth2 ─ eth0       zt-<lab>-pod-*    10.244.1.2/32, everything by way of the gateway

A pod knows no neighbour but its gateway, as with most CNI plugins: every packet between two pods crosses
both pods' own interfaces and is routed by the node, where connection tracking sees both its directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address

from ztunnel.demo import allot
from ztunnel.demo.cluster import Node, Pod
from ztunnel.demo.names import Names

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


_PLAIN_BRIDGE = "stp_state 0 forward_delay 0 mcast_snooping 0"


def fabric_lines() -> list[str]:
    """For `ip -batch` in the fabric's namespace, once."""
    return [
        "link set lo up",
        "link add fabric0 type bridge " + _PLAIN_BRIDGE,
        "link set fabric0 up",
    ]


def fabric_port_lines(names: Names, node: Node) -> list[str]:
    """For `ip -batch` in the fabric's namespace: the cable to a node."""
    port = f"node{node.number}"
    return [
        f"link add {port} type veth peer name eth0 netns {names.node(node.name)}",
        f"link set {port} master fabric0 up",
    ]


def node_lines(node: Node) -> list[str]:
    """For `ip -batch` in a node's namespace, once its cable is there."""
    v4, v6 = allot.node_addresses(node.number)
    pods_v4, pods_v6 = allot.pod_ranges(node.number)
    return [
        "link set lo up",
        "link set eth0 up",
        f"addr add {v4}/24 dev eth0",
        f"addr add {v6}/64 dev eth0 nodad",
        # A packet to a virtual address is routed before it is translated or refused.
        *(f"route add {cidr} dev eth0" for cidr in (allot.SERVICES_V4, allot.SERVICES_V6)),
        # A fixed address: a bridge otherwise takes a port's, and pods would hold on to one that is gone.
        f"link add pods0 address 02:00:00:00:{node.number:02x}:01 type bridge {_PLAIN_BRIDGE}",
        "link set pods0 up",
        f"addr add {pods_v4[1]}/24 dev pods0",
        f"addr add {pods_v6[1]}/64 dev pods0 nodad",
    ]


def route_lines(node: Node, others: Sequence[Node], verb: str = "add") -> list[str]:
    """For `ip -batch` in a node's namespace: the ways to the pods of other nodes, or with `del` no longer."""
    lines: list[str] = []
    for other in others:
        if other != node:
            ranges, gateways = allot.pod_ranges(other.number), allot.node_addresses(other.number)
            lines += [f"route {verb} {cidr} via {via}" for cidr, via in zip(ranges, gateways, strict=True)]
    return lines


def pod_port(pod: Pod) -> str:
    """The node's end of a pod's cable; unique on the node because the address is."""
    return f"veth{pod.address(IPv4Address).packed[3]}"


def pod_port_lines(names: Names, pod: Pod) -> list[str]:
    """For `ip -batch` in the node's namespace: the cable to a pod."""
    port, netns = pod_port(pod), names.pod(pod.namespace, pod.name)
    # A pod that gets the address of one that is gone gets its hardware address too: neighbours remember it.
    hardware = "02:00:" + pod.address(IPv4Address).packed.hex(":")
    return [
        f"link add {port} type veth peer name eth0 address {hardware} netns {netns}",
        f"link set {port} master pods0 up",
    ]


def pod_lines(pod: Pod) -> list[str]:
    """For `ip -batch` in a pod's namespace, once its cable is there."""
    gateway_v4, gateway_v6 = (cidr[1] for cidr in allot.pod_ranges(pod.node.number))
    return [
        "link set lo up",
        "link set eth0 up",
        f"addr add {pod.address(IPv4Address)}/32 dev eth0",
        f"route add {gateway_v4} dev eth0 scope link",
        f"route add default via {gateway_v4} src {pod.address(IPv4Address)}",
        f"addr add {pod.address(IPv6Address)}/128 dev eth0 nodad",
        f"route add {gateway_v6} dev eth0",
        f"route add default via {gateway_v6} src {pod.address(IPv6Address)}",
    ]
