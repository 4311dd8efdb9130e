"""IP addresses and endpoints, one spelling each: a v4-mapped IPv6 address is the IPv4 address it maps.

The kernel's maps, the proxy's sockets and Istio's resources each spell an address in their own way.
Everything above `kernel/` uses the types of this module, so that two spellings of one address compare equal.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from ztunnel.errors import PeerError

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

_MAPPED: Final = bytes(10) + b"\xff\xff"
_PORT: Final = re.compile("[0-9]{1,5}")


def canonical(ip: IPAddress) -> IPAddress:
    """The IPv4 address inside a v4-mapped one; every other address as it is."""
    if isinstance(ip, IPv6Address):
        return ip.ipv4_mapped or ip
    return ip


def parse_ip(untrusted: str) -> IPAddress:
    """Parse a textual address; a scope (`fe80::1%eth0`) is refused: it means nothing on another machine.

    Raises:
        PeerError: not an address.
    """
    if "%" in untrusted:
        raise PeerError(f"an address with a scope is not accepted: {untrusted!r}")
    try:
        return canonical(ip_address(untrusted))
    except ValueError as error:
        raise PeerError(f"not an IP address: {untrusted!r}") from error


def parse_packed(untrusted: bytes) -> IPAddress:
    """An address from its 4 or 16 bytes in network order, as workload.proto carries it.

    Raises:
        PeerError: neither 4 nor 16 bytes.
    """
    if len(untrusted) == 4:
        return IPv4Address(untrusted)
    if len(untrusted) == 16:
        if untrusted.startswith(_MAPPED):
            return IPv4Address(untrusted[12:])
        return IPv6Address(untrusted)
    raise PeerError(f"an IP address has 4 or 16 bytes, not {len(untrusted)}")


_Spelt = tuple[IPAddress, str, bytes]
"""An address, its text, and its 16 bytes."""

_SPELT: Final[dict[int, _Spelt]] = {}
"""Addresses that were asked for, by the object's id: it is nobody else's while the object is here. Whoever
reads addresses of connections remembers the objects, and to look one up by its value is a call of Python."""

_REMEMBERED: Final = 4096


def pack16(ip: IPAddress) -> bytes:
    """The 16 bytes by which both families are keyed in the kernel's maps: IPv4 is v4-mapped."""
    known = _SPELT.get(id(ip))
    return known[2] if known is not None else _spell(ip)[2]


def ip_text(ip: IPAddress) -> str:
    """`str(ip)` at a tenth of its cost: each connection writes several addresses, into headers and its log
    line."""
    known = _SPELT.get(id(ip))
    return known[1] if known is not None else _spell(ip)[1]


def _spell(ip: IPAddress) -> _Spelt:
    if len(_SPELT) >= _REMEMBERED:
        _SPELT.clear()
    packed = ip.packed
    is_ipv4 = isinstance(ip, IPv4Address)
    text = _ipv4_text(packed) if is_ipv4 else _ipv6_text(packed)
    spelt = _SPELT[id(ip)] = ip, text, _MAPPED + packed if is_ipv4 else packed
    return spelt


@lru_cache(_REMEMBERED)
def _ipv4_text(packed: bytes) -> str:
    return f"{packed[0]}.{packed[1]}.{packed[2]}.{packed[3]}"


@lru_cache(_REMEMBERED)
def _ipv6_text(packed: bytes) -> str:
    return str(IPv6Address(packed))


class Endpoint:
    """An address and a TCP port, which stay as they are. Prints as Istio logs it: `10.0.0.1:80`,
    `[fd00::1]:80`.

    No dataclass: each connection has several, and one that is compiled is made in a tenth of the time.
    Endpoints of different roles (subclasses) are never equal.
    """

    __slots__ = ("ip", "port")

    def __init__(self, ip: IPAddress, port: int) -> None:
        self.ip: Final = ip
        self.port: Final = port

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Endpoint) or type(other) is not type(self):
            return NotImplemented
        return self.port == other.port and (self.ip is other.ip or self.ip == other.ip)

    def __lt__(self, other: Endpoint) -> bool:
        return (self.ip, self.port) < (other.ip, other.port)

    def __hash__(self) -> int:
        return hash((self.ip, self.port))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.ip!r}, {self.port})"

    def __str__(self) -> str:
        ip = self.ip
        return f"{ip_text(ip)}:{self.port}" if isinstance(ip, IPv4Address) else f"[{ip_text(ip)}]:{self.port}"


class OriginalDestination(Endpoint):
    """Where the application wanted to go before the kernel sent its call to the proxy."""

    __slots__ = ()


class PeerAddress(Endpoint):
    """The far end of an accepted connection, as the kernel reports it."""

    __slots__ = ()


def parse_endpoint(untrusted: str) -> Endpoint:
    """Parse `ip:port` with IPv6 in brackets, as in an HBONE `:authority`.

    Raises:
        PeerError: no port, a port outside 1 to 65535, or no address. A hostname is no address.
    """
    host, separator, port = untrusted.rpartition(":")
    if not separator or not _PORT.fullmatch(port) or not 0 < int(port) < 65536:
        raise PeerError(f"not an address with a port from 1 to 65535: {untrusted!r}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if ":" not in host:
            raise PeerError(f"brackets are for IPv6: {untrusted!r}")
    elif ":" in host:
        raise PeerError(f"an IPv6 address before a port stands in brackets: {untrusted!r}")
    return Endpoint(parse_ip(host), int(port))
