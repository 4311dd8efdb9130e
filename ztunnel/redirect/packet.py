"""Packets as a raw socket takes them: IP headers, checksums, and TCP resets."""

from __future__ import annotations

from struct import Struct
from typing import Final

TCP: Final = 6
ICMP: Final = 1
ICMPV6: Final = 58
_RST: Final = 0x04
_ACK: Final = 0x10
_DONT_FRAGMENT: Final = 0x4000
_TTL: Final = 64
_ONES: Final = 0xFFFF
_IPV4: Final = Struct("!BBHHHBBH4s4s")
_IPV6: Final = Struct("!IHBB16s16s")
_IPV6_BYTES: Final = _IPV6.size
_SEGMENT: Final = Struct("!HHIIBBHHH")


def ip_packet(source: bytes, destination: bytes, protocol: int, body: bytes) -> bytes:
    """From one packed address to another of the same family."""
    if len(source) == 4:
        head = (0x45, 0, _IPV4.size + len(body), 0, _DONT_FRAGMENT, _TTL, protocol)
        check = int.from_bytes(checksum(0, _IPV4.pack(*head, 0, source, destination)), "big")
        return _IPV4.pack(*head, check, source, destination) + body
    return _IPV6.pack(6 << 28, len(body), protocol, _TTL, source, destination) + body


def header_bytes(packet: bytes) -> int:
    """How long its IP header is; extension headers of IPv6 are not looked at."""
    return (packet[0] & 15) * 4 if packet[0] >> 4 == 4 else _IPV6_BYTES


def readdressed(packet: bytes, source: bytes, destination: bytes, segment: bytes) -> bytes:
    """The same packet between other addresses of its family, with another TCP segment of the same length.
    Checksums are computed anew.

    Args:
        segment: of an even number of bytes.
    """
    start = header_bytes(packet)
    check = checksum(sum_of(source + destination) + TCP + len(segment), _without(segment, 16))
    body = segment[:16] + check + segment[18:]
    if len(source) == 16:
        return packet[:8] + source + destination + body
    head = packet[:12] + source + destination + packet[20:start]
    return head[:10] + checksum(0, _without(head, 10)) + head[12:] + body


def _without(octets: bytes, at: int) -> bytes:
    return octets[:at] + b"\0\0" + octets[at + 2 :]


def reset(
    source: bytes, destination: bytes, ports: tuple[int, int], sequence: int, acknowledged: int | None
) -> bytes:
    """A TCP reset (RFC 9293 3.5.2): at `sequence`, or as the answer to what is acknowledged.

    Args:
        source, destination: packed addresses.
        ports: those of source and destination.
        acknowledged: None sends no acknowledgment.
    """
    flags = _RST if acknowledged is None else _RST | _ACK
    head = (*ports, sequence, acknowledged or 0, _SEGMENT.size // 4 << 4, flags, 0)
    pseudo = sum_of(source + destination) + TCP + _SEGMENT.size
    check = int.from_bytes(checksum(pseudo, _SEGMENT.pack(*head, 0, 0)), "big")
    return ip_packet(source, destination, TCP, _SEGMENT.pack(*head, check, 0))


def sum_of(even: bytes) -> int:
    """Of an even number of bytes, as `checksum` starts with it: the sum of their words in ones' complement,
    which is what all of them as one number leave when it is divided by 65535; a quarter of the time that
    adding words takes."""
    return int.from_bytes(even, "big") % _ONES


def checksum(start: int, even: bytes) -> bytes:
    """RFC 1071, of a sum (a pseudo header's) and an even number of bytes."""
    return (_ONES - (start + sum_of(even)) % _ONES).to_bytes(2, "big")
