"""TCP resets as packets, for connections whose ends are neither ours nor the pod's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ztunnel.model.address import Endpoint
from ztunnel.redirect.packet import reset
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


def _reset(source: Endpoint, destination: Endpoint, sequence: int, acknowledged: int | None) -> Reset:
    ports = source.port, destination.port
    return Reset(destination, reset(source.ip.packed, destination.ip.packed, ports, sequence, acknowledged))
