"""What is sent for a SYN that was held: itself, or the answer that makes connect() fail as it would without a
mesh.

Everything here is what the kernel of one pod sends itself: both addresses are the pod's own.
"""

from __future__ import annotations

import errno
from struct import Struct, unpack
from typing import Final

from ztunnel.redirect.packet import (
    ICMP,
    ICMPV6,
    TCP,
    checksum,
    header_bytes,
    ip_packet,
    reset,
    sum_of,
)

_ICMP_HEAD: Final = Struct("!BBHI")
_CHECKSUM_AT: Final = 16  # in a TCP header
_PLAIN_IPV4: Final = 0x45  # its header without options
_IPV4_ENDS: Final = 24
_IPV6_ENDS: Final = 44
_QUOTED_BYTES: Final = 64
"""Of the packet that an ICMP error is about: at least its IP header and eight bytes (RFC 792, RFC 4443)."""

_UNREACHABLE: Final = {
    errno.ENETUNREACH: ((3, 0), (1, 0)),
    errno.EHOSTUNREACH: ((3, 1), (1, 3)),
}
"""Type and code of the ICMP and ICMPv6 errors that become these at a connect under way (net/ipv4/icmp.c,
net/ipv6/icmp.c)."""


def whole(syn: bytes) -> bytes:
    """The SYN as it can be sent: the kernel leaves the checksum to the hardware that it did not reach. That
    of an IPv4 header is right, and a raw socket makes it anew in any case (raw(7))."""
    start = header_bytes(syn)
    at = start + _CHECKSUM_AT
    begun = syn[at : at + 2]
    left_out = (TCP + len(syn) - start) - int.from_bytes(begun, "big")
    if syn[0] == _PLAIN_IPV4:
        summed = syn[12:]  # the addresses, and the segment behind them
    else:
        source, destination, _ = _ends(syn)
        summed = source + destination + syn[start:]
    return syn[:at] + checksum(left_out, summed) + syn[at + 2 :]


def ends_of(packet: bytes) -> bytes:
    """The addresses and ports of a packet with plain headers, as they stand there; empty of any other."""
    if len(packet) >= _IPV4_ENDS and packet[0] == _PLAIN_IPV4:
        return packet[12:_IPV4_ENDS]
    if len(packet) >= _IPV6_ENDS and packet[0] >> 4 == 6 and packet[6] == TCP:
        return packet[8:_IPV6_ENDS]
    return b""


def answer(syn: bytes, error: int) -> bytes:
    """What makes the connect of this SYN fail with this errno; with ECONNREFUSED where there is no such
    packet."""
    source, destination, start = _ends(syn)
    if error in _UNREACHABLE:
        return _icmp(syn, source, destination, error)
    source_port, destination_port, sequence = unpack("!HHI", syn[start : start + 8])
    after = (sequence + 1) & 0xFFFFFFFF
    return reset(destination, source, (destination_port, source_port), 0, after)


def _icmp(syn: bytes, source: bytes, destination: bytes, error: int) -> bytes:
    ipv4, ipv6 = _UNREACHABLE[error]
    kind, protocol = (ipv4, ICMP) if len(source) == 4 else (ipv6, ICMPV6)
    body = _ICMP_HEAD.pack(*kind, 0, 0) + syn[:_QUOTED_BYTES]
    pseudo = sum_of(source + destination) + len(body) + ICMPV6 if protocol == ICMPV6 else 0
    return ip_packet(destination, source, protocol, body[:2] + checksum(pseudo, body) + body[4:])


def _ends(syn: bytes) -> tuple[bytes, bytes, int]:
    """Its source and destination, packed, and where its TCP header starts."""
    if syn[0] >> 4 == 4:
        return syn[12:16], syn[16:20], header_bytes(syn)
    return syn[8:24], syn[24:40], header_bytes(syn)
