"""How much of an application's bulk to read at once, so that it leaves in whole pieces.

What is sent is cut by the kernel into pieces of at most 64 KiB, each of whole TCP segments, and each goes
through both nodes' stacks and wakes up the peer as one. A third piece of a kilobyte behind two full ones
costs as much as one of them: 128 KiB at once are a quarter slower than 928 bytes fewer.
"""

from __future__ import annotations

from typing import Final

from ztunnel.http2.frame import HEADER_BYTES

MOST_BYTES: Final = 192 * 1024 - HEADER_BYTES
"""A block has room for so much behind what it gathers."""

_PIECES: Final = 2

_PIECE_BYTES: Final = 65_215
"""`sk_gso_max_size` of a device that takes 64 KiB, less the kernel's MAX_TCP_HEADER (net/core/sock.c,
`sk_dst_gso_max_size`)."""

_RECORD_BYTES: Final = 16_384
_RECORD_OVERHEAD_BYTES: Final = 22
"""RFC 8446 section 5.2: header 5, content type 1, tag 16."""


def bulk_bytes(segment_bytes: int) -> int:
    """How many bytes of one DATA frame, encrypted, fill whole pieces of TCP segments of that length
    (TCP_MAXSEG); at most `MOST_BYTES`."""
    segment_bytes = max(1, segment_bytes)
    wire_bytes = _PIECES * max(segment_bytes, _PIECE_BYTES - _PIECE_BYTES % segment_bytes)
    records = -(-wire_bytes // (_RECORD_BYTES + _RECORD_OVERHEAD_BYTES))
    return min(wire_bytes - records * _RECORD_OVERHEAD_BYTES - HEADER_BYTES, MOST_BYTES)
