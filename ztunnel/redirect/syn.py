"""What is sent for a SYN that was held: itself, or the answer that makes connect() fail as it would without a
mesh.

Everything here is what the kernel of one pod sends itself: both addresses are the pod's own.
"""

from __future__ import annotations

import errno
from struct import Struct, unpack

_TCP, _ICMP, _ICMPV6 = 6, 1, 58
_RST_ACK = 0x14
_IPV4 = Struct("!BBHHHBBH4s4s")
_IPV6 = Struct("!IHBB16s16s")
_TCP_HEAD = Struct("!HHIIBBHHH")
_ICMP_HEAD = Struct("!BBHI")
_DONT_FRAGMENT, _TTL = 0x4000, 64
_QUOTED_BYTES = 64
"""Of the packet that an ICMP error is about: at least its IP header and eight bytes (RFC 792, RFC 4443)."""

_UNREACHABLE = {
    errno.ENETUNREACH: ((3, 0), (1, 0)),
    errno.EHOSTUNREACH: ((3, 1), (1, 3)),
}
"""Type and code of the ICMP and ICMPv6 errors that become these at a connect under way (net/ipv4/icmp.c,
net/ipv6/icmp.c)."""


def whole(syn: bytes) -> bytes:
    """The SYN as it can be sent: the kernel leaves the checksum to the hardware that it did not reach."""
    start, pseudo = _parts(syn)
    segment = syn[start : start + 16] + b"\0\0" + syn[start + 18 :]
    return syn[: start + 16] + _checksum(pseudo, segment) + syn[start + 18 :]


def answer(syn: bytes, error: int) -> bytes:
    """What makes the connect of this SYN fail with this errno; with ECONNREFUSED where there is no such
    packet."""
    if error in _UNREACHABLE:
        return _icmp(syn, error)
    start, pseudo = _parts(syn)
    source, destination, sequence = unpack("!HHI", syn[start : start + 8])
    head = (destination, source, 0, (sequence + 1) & 0xFFFFFFFF, 5 << 4, _RST_ACK, 0)
    empty = _TCP_HEAD.pack(*head, 0, 0)
    # The sum is the same in both directions, but for the length.
    check = _checksum(pseudo - (len(syn) - start) + len(empty), empty)
    return _back(syn, _TCP, empty[:16] + check + empty[18:])


def _icmp(syn: bytes, error: int) -> bytes:
    ipv4, ipv6 = _UNREACHABLE[error]
    quoted = syn[:_QUOTED_BYTES]
    if syn[0] >> 4 == 4:
        body = _ICMP_HEAD.pack(*ipv4, 0, 0) + quoted
        return _back(syn, _ICMP, body[:2] + _checksum(0, body) + body[4:])
    body = _ICMP_HEAD.pack(*ipv6, 0, 0) + quoted
    pseudo = _sum(syn[8:40]) + len(body) + _ICMPV6
    return _back(syn, _ICMPV6, body[:2] + _checksum(pseudo, body) + body[4:])


def _back(syn: bytes, protocol: int, body: bytes) -> bytes:
    """A packet to the SYN's source. The kernel computes the checksum of an IPv4 header."""
    if syn[0] >> 4 == 4:
        size = _IPV4.size + len(body)
        ends = syn[16:20], syn[12:16]
        return _IPV4.pack(0x45, 0, size, 0, _DONT_FRAGMENT, _TTL, protocol, 0, *ends) + body
    return _IPV6.pack(6 << 28, len(body), protocol, _TTL, syn[24:40], syn[8:24]) + body


def _parts(syn: bytes) -> tuple[int, int]:
    """Where its TCP header starts, and the sum of its pseudo header."""
    if syn[0] >> 4 == 4:
        start = (syn[0] & 15) * 4
        return start, _sum(syn[12:20]) + _TCP + len(syn) - start
    return 40, _sum(syn[8:40]) + _TCP + len(syn) - 40


def _sum(even: bytes) -> int:
    return sum(unpack(f"!{len(even) // 2}H", even))


def _checksum(start: int, even: bytes) -> bytes:
    """RFC 1071, of an even number of bytes."""
    total = start + _sum(even)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (~total & 0xFFFF).to_bytes(2, "big")
