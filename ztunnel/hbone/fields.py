"""Header fields of CONNECT requests and their answers (HPACK, RFC 7541).

What we send is literal, never indexed and not Huffman-coded: a tunnel's headers are sent once, and a coder
that keeps no state cannot get out of step. What peers send goes through the `hpack` library, unless the
block holds only forms that neither use nor change its dynamic table, as ours do: those are read here, ten
times faster.
"""

from __future__ import annotations

from collections.abc import Iterable

from hpack import Decoder, HPACKError
from hpack.table import HeaderTable

from ztunnel.errors import PeerError
from ztunnel.hbone.frame import Code

Fields = tuple[tuple[bytes, bytes], ...]
"""Header fields in order, names in lower case, pseudo-headers (`:method`) first."""

FIELD_OVERHEAD_BYTES = 32
"""What RFC 9113 section 6.5.2 adds to each field when the size of a header list is reckoned."""

_STATIC_NAMES = {b":authority": 1, b":method": 2, b":path": 4, b":scheme": 6, b":status": 8}
_STATIC: dict[int, tuple[bytes, bytes]] = dict(enumerate(HeaderTable.STATIC_TABLE, start=1))
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


def _pull_string(block: bytes, at: int) -> tuple[bytes, int] | None:
    """A string without Huffman coding and where it ends; None for any other form, and past the end."""
    length = block[at]
    at += 1
    if length & 0x80:
        return None
    if length == 127:
        shift = 0
        while True:
            octet = block[at]
            at += 1
            length += (octet & 127) << shift
            shift += 7
            if not octet & 128:
                break
            if shift > 21:
                return None
    if at + length > len(block):
        return None
    return block[at : at + length], at + length


def pull_literals(untrusted: bytes) -> list[tuple[bytes, bytes]] | None:
    """The fields of a block that needs no dynamic table and no Huffman code; None if it is not such a
    block."""
    fields: list[tuple[bytes, bytes]] = []
    at, end = 0, len(untrusted)
    try:
        while at < end:
            first = untrusted[at]
            at += 1
            if first & 0x80:
                fields.append(_STATIC[first & 0x7F])
                continue
            if first >= 0x20 or first & 0x0F == 0x0F:
                return None
            if first & 0x0F:
                name = _STATIC[first & 0x0F][0]
            else:
                pulled = _pull_string(untrusted, at)
                if pulled is None:
                    return None
                name, at = pulled
            pulled = _pull_string(untrusted, at)
            if pulled is None:
                return None
            value, at = pulled
            fields.append((name, value))
    except (KeyError, IndexError):
        return None
    return fields


class FieldReader:
    """Decodes one peer's header blocks, in the order in which they come."""

    __slots__ = ("_decoder", "_limit_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._decoder = Decoder(max_header_list_size=limit_bytes)

    def read(self, untrusted: bytes) -> Fields:
        """Decode one block.

        Raises:
            PeerError: not HPACK, or more than the limit when decoded: the connection cannot go on, since the
                dynamic table is out of step.
        """
        fields = pull_literals(untrusted)
        if fields is not None:
            size = sum(len(name) + len(value) + FIELD_OVERHEAD_BYTES for name, value in fields)
            if size > self._limit_bytes:
                raise PeerError("a header list above the limit", Code.ENHANCE_YOUR_CALM)
            return tuple(fields)
        try:
            return tuple(
                (bytes(name), bytes(value)) for name, value in self._decoder.decode(untrusted, raw=True)
            )
        except HPACKError as error:
            raise PeerError(f"header compression: {error}", Code.COMPRESSION_ERROR) from error
