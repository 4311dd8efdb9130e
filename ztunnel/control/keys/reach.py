"""Which addresses the control plane may ask for keys: not its own machine, and nothing that is only there
because the machine is one of a cloud.

Whoever may write a RequestAuthentication says what the control plane asks for, and sees in the mesh what came
back (istio CVE-2026-41413): so the address is looked at, not the name, for each redirect anew, and it is the
one that was looked at that is connected to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Final

from ztunnel.model.address import IPAddress, IPNetwork

BLOCKED: Final[tuple[IPNetwork, ...]] = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4",
            "100.100.100.200/32", "168.63.129.16/32",
            "::/128", "::1/128", "fe80::/10", "ff00::/8", "fd00:ec2::254/128",
        ),
    )
)  # fmt: skip
"""Nobody's, our own, of the link, of many; and where clouds have their metadata beside 169.254.169.254."""

_TRANSLATED: Final = ip_network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class Reach:
    """`allowed` wins over `blocked`, and that over all others."""

    allowed: tuple[IPNetwork, ...] = ()
    blocked: tuple[IPNetwork, ...] = ()

    def admits(self, address: IPAddress) -> bool:
        """Whether that may be asked. An IPv4 address inside of an IPv6 one is what it is."""
        embedded = _embedded(address)
        if embedded is not None:
            return self.admits(embedded)
        if _within(address, self.allowed):
            return True
        return not _within(address, (*BLOCKED, *self.blocked))


def _within(address: IPAddress, networks: Iterable[IPNetwork]) -> bool:
    return any(address.version == one.version and address in one for one in networks)


def _embedded(address: IPAddress) -> IPAddress | None:
    if not isinstance(address, IPv6Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _TRANSLATED:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.sixtofour or (address.teredo[1] if address.teredo else None)
