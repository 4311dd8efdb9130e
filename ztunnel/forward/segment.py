"""TCP resets as packets, for connections whose ends are neither ours nor the pod's."""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct, pack
from typing import NamedTuple

from ztunnel.model.address import Endpoint
from ztunnel.redirect.passages import Forwarded

_TCP, _RST, _ACK = 6, 0x04, 0x10
_HOPS = 64
_IPV4 = Struct("!BBHHHBBH4s4s")
_IPV6 = Struct("!IHBB16s16s")
_SEGMENT = Struct("!HHIIBBHHH")
_DO_NOT_FRAGMENT = 0x4000


class Reset(NamedTuple):
    """One packet, from its IP header on, and where it goes."""

    to: Endpoint
    packet: bytes


def resets(seen: Forwarded) -> Iterator[Reset]:
    """What ends the connection of this packet at both ends, each of which takes it for the other's word.

    The opener knows its peer by the address that it called; the other end is known by the packet itself. A
    packet that opens a connection has reached nobody, so only the opener is told.
    """
    if seen.syn:
        yield _reset(seen.called, seen.opener, 0, (seen.sequence + 1) & 0xFFFFFFFF)
        return
    from_opener, from_other = seen.acknowledged, seen.sequence
    if seen.reply:
        from_opener, from_other = from_other, from_opener
    # Each end accepts a reset only at the very byte that it expects next (RFC 5961 3.2).
    yield _reset(seen.called, seen.opener, from_opener, None)
    opener, other = (seen.destination, seen.source) if seen.reply else (seen.source, seen.destination)
    yield _reset(opener, other, from_other, None)


def _reset(source: Endpoint, destination: Endpoint, sequence: int, acknowledged: int | None) -> Reset:
    flags = _RST if acknowledged is None else _RST | _ACK
    ports = source.port, destination.port
    bare = _SEGMENT.pack(*ports, sequence, acknowledged or 0, _SEGMENT.size // 4 << 4, flags, 0, 0, 0)
    ends = source.ip.packed + destination.ip.packed
    checksum = _checksum(ends + pack("!II", len(bare), _TCP) + bare)
    segment = _SEGMENT.pack(
        *ports, sequence, acknowledged or 0, _SEGMENT.size // 4 << 4, flags, 0, checksum, 0
    )
    if source.ip.version == 4:
        size = _IPV4.size + len(segment)
        head = (0x45, 0, size, 0, _DO_NOT_FRAGMENT, _HOPS, _TCP)
        checksum = _checksum(_IPV4.pack(*head, 0, source.ip.packed, destination.ip.packed))
        return Reset(
            destination, _IPV4.pack(*head, checksum, source.ip.packed, destination.ip.packed) + segment
        )
    head6 = _IPV6.pack(6 << 28, len(segment), _TCP, _HOPS, source.ip.packed, destination.ip.packed)
    return Reset(destination, head6 + segment)


def _checksum(octets: bytes) -> int:
    """RFC 1071, of an even number of octets."""
    total = sum(int.from_bytes(octets[at : at + 2], "big") for at in range(0, len(octets), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
