"""Which kinds of routes count at the ports of a service: where two of them are bound to one port that would
both be asked there, only the more specific one is (GEP-1294, "Route types": GRPCRoute before HTTPRoute,
TLSRoute before TCPRoute).

A route for requests and one for connections do not meet: what a port speaks decides which is asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

Ports = tuple[int, ...]
"""Ports of a service; none: all of them."""

MORE_SPECIFIC: Final = {"HTTPRoute": "GRPCRoute", "TCPRoute": "TLSRoute"}
"""By each kind the one that is asked in its place."""

SPECIFIC: Final = frozenset(MORE_SPECIFIC.values())


def taken_ports(bound: Iterable[tuple[str, Ports]], every: Ports) -> Mapping[str, frozenset[int]]:
    """The ports at which routes of a kind are not asked, by that kind.

    Args:
        bound: kinds of routes, and the ports that each is bound to.
        every: those of the service.
    """
    found: dict[str, frozenset[int]] = {}
    for kind, ports in bound:
        found[kind] = found.get(kind, frozenset()) | frozenset(ports or every)
    return {less: found[more] for less, more in MORE_SPECIFIC.items() if more in found}


def left_ports(ports: Ports, taken: frozenset[int], every: Ports) -> Ports | None:
    """Those of the ports at which it is asked all the same; None: at no one."""
    if not taken:
        return ports
    return tuple(port for port in ports or every if port not in taken) or None
