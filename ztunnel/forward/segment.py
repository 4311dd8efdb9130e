"""Packets of connections whose ends are neither ours nor the pod's: resets, and SYNs as they were sent."""

from __future__ import annotations

from collections.abc import Iterator
from struct import pack
from typing import NamedTuple

from ztunnel.model.address import Endpoint
from ztunnel.redirect.packet import header_bytes, readdressed, reset
from ztunnel.redirect.passages import Forwarded


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


def as_sent(seen: Forwarded) -> bytes:
    """The SYN as its opener sent it, before any translation; empty where it is not known whole."""
    whole = seen.whole
    start = header_bytes(whole) if whole else 0
    if not start or len(whole) != start + (whole[start + 12] >> 4) * 4:
        return b""
    ports = pack("!HH", seen.opener.port, seen.called.port)
    return readdressed(whole, seen.opener.ip.packed, seen.called.ip.packed, ports + whole[start + 4 :])


def _reset(source: Endpoint, destination: Endpoint, sequence: int, acknowledged: int | None) -> Reset:
    ports = source.port, destination.port
    return Reset(destination, reset(source.ip.packed, destination.ip.packed, ports, sequence, acknowledged))
