"""What a capture on the link between nodes says: TCP segments out of Ethernet frames."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ztunnel.model.address import Endpoint, parse_packed

_IPV4, _IPV6, _TCP = 0x0800, 0x86DD, 6


@dataclass(frozen=True, slots=True)
class Segment:
    """One TCP segment. `flags` are the bits of the TCP header (FIN 1, SYN 2, RST 4, PSH 8, ACK 16)."""

    source: Endpoint
    destination: Endpoint
    flags: int
    payload: bytes

    @property
    def is_tls(self) -> bool:
        """Whether the payload begins a TLS record: a type from 20 to 23, a legacy version of 3.1 or 3.3."""
        return (
            len(self.payload) > 4 and 20 <= self.payload[0] <= 23 and self.payload[1:3] in (b"\3\1", b"\3\3")
        )


def segment(frame: bytes) -> Segment | None:
    """The TCP segment of an Ethernet frame, None for anything else, IPv6 extension headers included."""
    if len(frame) < 54:
        return None
    kind = int.from_bytes(frame[12:14], "big")
    if kind == _IPV4 and frame[23] == _TCP:
        start = 14 + (frame[14] & 15) * 4
        end = 14 + int.from_bytes(frame[16:18], "big")
        source, destination = frame[26:30], frame[30:34]
    elif kind == _IPV6 and frame[20] == _TCP:
        start, end = 54, 54 + int.from_bytes(frame[18:20], "big")
        source, destination = frame[22:38], frame[38:54]
    else:
        return None
    if len(frame) < start + 20:
        return None
    source_port, destination_port = struct.unpack_from("!HH", frame, start)
    data = start + (frame[start + 12] >> 4) * 4
    whole = max(end, len(frame)) if end in (14, 54) else end  # a segment above 64 KiB has length 0 (BIG TCP)
    return Segment(
        Endpoint(parse_packed(source), source_port),
        Endpoint(parse_packed(destination), destination_port),
        frame[start + 13],
        frame[data:whole],
    )
