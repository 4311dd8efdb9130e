"""Addresses of the laboratory, in the ranges that a Kubernetes cluster uses, and which of them are free.

| what | IPv4 | IPv6 |
|---|---|---|
| node N on the fabric | 10.10.0.(10+N)/24 | fd00:10::(10+N)/64 |
| pods of node N | 10.244.N.0/24, gateway .1 | fd00:244:N::/64, gateway ::1 |
| services | 10.96.0.0/16 | fd00:96::/112 |
"""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from itertools import chain

from ztunnel.errors import ConfigError, Fault
from ztunnel.model.address import IPAddress

MAX_NODES = 99
SERVICES_V4 = IPv4Network("10.96.0.0/16")
SERVICES_V6 = IPv6Network("fd00:96::/112")
_FIRST_SERVICE = 10
_PODS_PER_NODE = 253


def node_addresses(number: int) -> tuple[IPv4Address, IPv6Address]:
    """Where node `number` (1 to `MAX_NODES`) stands on the fabric."""
    return IPv4Address(f"10.10.0.{10 + number}"), IPv6Address(f"fd00:10::{10 + number}")


def pod_ranges(number: int) -> tuple[IPv4Network, IPv6Network]:
    """The pod CIDRs of node `number`; the first address of each is the gateway."""
    return IPv4Network(f"10.244.{number}.0/24"), IPv6Network(f"fd00:244:{number}::/64")


def pod_addresses(number: int, index: int) -> tuple[IPv4Address, IPv6Address]:
    """The addresses of pod `index` (from 2) on node `number`."""
    v4, v6 = pod_ranges(number)
    return v4[index], v6[index]


def service_addresses(index: int) -> tuple[IPv4Address, IPv6Address]:
    """The pair of virtual addresses of index `index`."""
    return SERVICES_V4[index], SERVICES_V6[index]


def free_node(taken: Collection[int]) -> int:
    """The lowest number that no node has.

    Raises:
        ConfigError: there are `MAX_NODES` nodes.
    """
    return _next(taken, 1, MAX_NODES, f"a laboratory has at most {MAX_NODES} nodes", in_order=False)


def free_pod(number: int, taken: Collection[IPAddress]) -> tuple[IPv4Address, IPv6Address]:
    """The next pair on node `number`; what was just released comes last, as with CNI's host-local.

    Raises:
        ConfigError: the node is full.
    """
    v4, _ = pod_ranges(number)
    indexes = [int(ip) - int(v4[0]) for ip in taken if isinstance(ip, IPv4Address) and ip in v4]
    message = f"a node of the laboratory has at most {_PODS_PER_NODE} pods"
    return pod_addresses(number, _next(indexes, 2, _PODS_PER_NODE + 1, message, in_order=True))


def free_service(taken: Collection[IPAddress]) -> tuple[IPv4Address, IPv6Address]:
    """The next pair of virtual addresses of which neither is taken.

    Raises:
        ConfigError: no address is left.
    """
    ranges = (SERVICES_V4, SERVICES_V6)
    indexes = [int(ip) - int(cidr.network_address) for ip in taken for cidr in ranges if ip in cidr]
    last = SERVICES_V4.num_addresses - 2
    return service_addresses(
        _next(indexes, _FIRST_SERVICE, last, "no service address is left", in_order=True)
    )


def parse_addresses(texts: Collection[str]) -> tuple[IPAddress, ...]:
    """Addresses as manifests write them; what is none (`None` of a headless service) is left out."""
    found: list[IPAddress] = []
    for text in texts:
        try:
            found.append(ip_address(text))
        except ValueError:
            continue
    return tuple(found)


def _next(taken: Collection[int], first: int, last: int, message: str, *, in_order: bool) -> int:
    used = set(taken)
    start = 1 + max([first - 1, *(index for index in used if in_order and first <= index <= last)])
    for index in chain(range(start, last + 1), range(first, start)):
        if index not in used:
            return index
    raise ConfigError(Fault("", 0, "", message))
