"""Header fields of CONNECT requests and their answers (HPACK, RFC 7541).

What we send is literal, never indexed and not Huffman-coded: a tunnel's headers are sent once, and a coder
that keeps no state cannot get out of step. What peers send is read by `decoder`.
"""

from __future__ import annotations

from collections.abc import Iterable

Fields = tuple[tuple[bytes, bytes], ...]
"""Header fields in order, names in lower case, pseudo-headers (`:method`) first."""

_STATIC_NAMES = {b":authority": 1, b":method": 2, b":path": 4, b":scheme": 6, b":status": 8}
_OK = (b":status", b"200")
_INDEXED_OK = b"\x88"


def _push_length(length: int) -> bytes:
    """An HPACK integer with a prefix of 7 bits, the Huffman bit clear (RFC 7541 section 5.1)."""
    if length < 127:
        return bytes((length,))
    parts = [127]
    length -= 127
    while length >= 128:
        parts.append(length & 127 | 128)
        length >>= 7
    parts.append(length)
    return bytes(parts)


def push_fields(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Encode as literals without indexing (RFC 7541 section 6.2.2); a 200 takes one byte."""
    parts = []
    for field in fields:
        name, value = field
        if field == _OK:
            parts.append(_INDEXED_OK)
            continue
        index = _STATIC_NAMES.get(name)
        parts.append(b"\0" + _push_length(len(name)) + name if index is None else bytes((index,)))
        parts.append(_push_length(len(value)) + value)
    return b"".join(parts)
