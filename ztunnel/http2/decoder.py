"""Reads the header blocks of one peer (HPACK, RFC 7541), within limits that hold while it reads.

The `hpack` library decodes a block completely before it can be asked how much that was: 1.8 KB with 1,800
references to one entry cost 9.4 ms of the thread that all pods share. Here a block ends at its first field
too many. Of the library we use the static table and the Huffman code; its decoder is what the tests compare
this one with.

A block above the limits ends the connection, or, where the reader skips, is only `oversized`: the rest of it
is read for the sake of the dynamic table alone, which the blocks after it depend on. Strings that cannot
enter that table are stepped over; what is left to decode, and the number of fields, has its limit, too.

A peer says the same again and again. One that has entered its fields into the table does so with the same few
bytes: remembered until the table changes. One that makes no use of the table does so with the same literals
(nginx, which enters them each time for nothing): remembered with what they enter.
"""

from __future__ import annotations

from typing import Final

from hpack.huffman_table import HUFFMAN_COMPLETE, HUFFMAN_EMIT_SYMBOL, HUFFMAN_FAIL, HUFFMAN_TABLE
from hpack.table import HeaderTable

from ztunnel.errors import PeerError
from ztunnel.http2.fields import Fields
from ztunnel.http2.frame import Code

MAX_FIELDS: Final = 128
"""Fields of one block. Istio's CONNECT has five; Envoy takes 100 of any request."""

FIELD_OVERHEAD_BYTES: Final = 32
"""What RFC 9113 section 6.5.2 adds to each field when the size of a header list is reckoned."""

TABLE_BYTES: Final = 4096
"""The dynamic table's size: the initial one, which we leave as it is."""

_STATIC: Final[list[tuple[bytes, bytes]]] = list(HeaderTable.STATIC_TABLE)
_STATES: Final[list[tuple[int, int, int]]] = list(HUFFMAN_TABLE)
_COMPLETE: Final = int(HUFFMAN_COMPLETE)
_EMIT: Final = int(HUFFMAN_EMIT_SYMBOL)
_FAIL: Final = int(HUFFMAN_FAIL)
_MAX_SHIFT: Final = 21

_SKIPPED_FIELDS: Final = 1024
"""A block with more fields is no client's mistake."""

_LONGEST_CODE_BITS: Final = 30
_REMEMBERED: Final = 16
_REMEMBERED_BYTES: Final = 512
_REMEMBERED_SIZE: Final = 2048
"""So many blocks of one peer in either way, each of so many bytes at most, encoded and decoded: 80 KiB."""
_ALL_NEW: Final = 64
"""Of a peer of which so many blocks in a row were new, as the CONNECTs of node proxies are, one in"""
_ONE_OF: Final = 8
"""is remembered until one comes again."""
_NO_ENTRY: Final = bytes(TABLE_BYTES + 1)
"""Stands for a string that does not fit into the table, whatever it says: entering it empties that (RFC 7541
section 4.4)."""


class FieldReader:
    """Decodes one peer's header blocks, in the order in which they come.

    Attributes:
        oversized: the last block was above the limits, and `read` has returned its beginning.
        repeated: it said the same as one before, and `read` has returned the very same object.
    """

    __slots__ = (
        "_at",
        "_block",
        "_entered",
        "_known",
        "_left_bytes",
        "_limit_bytes",
        "_literal",
        "_new",
        "_refers",
        "_resized",
        "_skips",
        "_spare_bytes",
        "_table",
        "_table_bytes",
        "_table_limit_bytes",
        "oversized",
        "repeated",
    )

    def __init__(self, limit_bytes: int, skips: bool = False) -> None:
        """`skips`: a block above the limits does not end the connection."""
        self._limit_bytes = limit_bytes
        self._skips = skips
        self._left_bytes = limit_bytes
        self._spare_bytes = 0
        self.oversized = False
        self.repeated = False
        self._known: dict[bytes, Fields] = {}
        self._literal: dict[bytes, tuple[Fields, Fields]] = {}
        # How many blocks have come since one came again.
        self._new = 0
        # Of the block that is read: what enters the table, whether it refers to that, and resizes it.
        self._entered: list[tuple[bytes, bytes]] = []
        self._refers = False
        self._resized = False
        self._block = b""
        self._at = 0
        # The dynamic table, its newest entry last.
        self._table: list[tuple[bytes, bytes]] = []
        self._table_bytes = 0
        self._table_limit_bytes = TABLE_BYTES

    def read(self, untrusted: bytes) -> Fields:
        """Decode one block.

        Raises:
            PeerError: not HPACK, or more than is decoded or stepped over: the connection cannot go on, since
                the dynamic table is out of step.
        """
        self.oversized = False
        known = self._known.get(untrusted)
        if known is not None:
            self.repeated = True
            self._new = 0
            return known
        literal = self._literal.get(untrusted)
        if literal is not None:
            for entry in literal[1]:
                self._evict(len(entry[0]) + len(entry[1]) + FIELD_OVERHEAD_BYTES, entry)
            self.repeated = True
            self._new = 0
            return literal[0]
        self.repeated = False
        self._block, self._at = untrusted, 0
        self._left_bytes = self._spare_bytes = self._limit_bytes
        self._entered.clear()
        self._refers = self._resized = False
        fields: list[tuple[bytes, bytes]] = []
        count = 0
        try:
            while self._at < len(untrusted):
                field = self._field(untrusted[self._at], not count)
                if field is None:
                    continue
                count += 1
                self._left_bytes -= len(field[0]) + len(field[1]) + FIELD_OVERHEAD_BYTES
                if self._left_bytes < 0 or count > MAX_FIELDS:
                    self._exceed(count)
                if not self.oversized:
                    fields.append(field)
        except IndexError as error:
            raise _wrong("a block that is cut off, or an entry that is not there") from error
        found = tuple(fields)
        if len(untrusted) <= _REMEMBERED_BYTES and not self.oversized and not self._resized:
            self._remember(untrusted, found)
        return found

    def _remember(self, untrusted: bytes, fields: Fields) -> None:
        self._new += 1
        if self._new > _ALL_NEW and self._new % _ONE_OF:
            return
        if self._limit_bytes - self._left_bytes > _REMEMBERED_SIZE:
            return
        if not self._refers:
            if len(self._literal) >= _REMEMBERED:
                self._literal.clear()
            self._literal[untrusted] = fields, tuple(self._entered)
        elif not self._entered:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[untrusted] = fields

    def _exceed(self, count: int = 0) -> None:
        """The block is above the limits."""
        if not self._skips or count > _SKIPPED_FIELDS:
            raise PeerError("a header list above the limit", Code.ENHANCE_YOUR_CALM)
        self.oversized = True

    def _field(self, first: int, may_resize: bool) -> tuple[bytes, bytes] | None:
        """The next field (RFC 7541 section 6); None for a change of the table's size."""
        if first & 0x80:
            return self._entry(self._integer(0x7F))
        if first & 0xE0 == 0x20:
            size = self._integer(0x1F)
            if size > TABLE_BYTES or not may_resize:
                raise _wrong("a table above its limit, or resized behind a field")
            self._table_limit_bytes = size
            self._resized = True
            self._evict(0)
            return None
        indexed = first & 0x40
        index = self._integer(0x3F if indexed else 0x0F)
        name = self._entry(index)[0] if index else self._string(indexed)
        field = name, self._string(indexed)
        if indexed:
            self._entered.append(field)
            self._evict(len(name) + len(field[1]) + FIELD_OVERHEAD_BYTES, field)
        return field

    def _entry(self, index: int) -> tuple[bytes, bytes]:
        if index <= len(_STATIC):
            if not index:
                raise _wrong("an entry of number 0")
            return _STATIC[index - 1]
        self._refers = True
        back = index - len(_STATIC)
        if back > len(self._table):
            raise _wrong("an entry that is not there")
        return self._table[len(self._table) - back]

    def _evict(self, size: int, field: tuple[bytes, bytes] | None = None) -> None:
        """Make room for an entry, and enter it where it fits at all (RFC 7541 section 4.4)."""
        self._known.clear()
        table = self._table
        while table and self._table_bytes + size > self._table_limit_bytes:
            name, value = table[0]
            del table[0]
            self._table_bytes -= len(name) + len(value) + FIELD_OVERHEAD_BYTES
        if field is not None and size <= self._table_limit_bytes:
            table.append(field)
            self._table_bytes += size

    def _integer(self, mask: int) -> int:
        """An integer whose prefix is in the bits of `mask` (RFC 7541 section 5.1)."""
        block, at = self._block, self._at
        value = block[at] & mask
        at += 1
        if value == mask:
            shift = 0
            while True:
                octet = block[at]
                at += 1
                value += (octet & 127) << shift
                shift += 7
                if not octet & 128:
                    break
                if shift > _MAX_SHIFT:
                    raise _wrong("a number without end")
        self._at = at
        return value

    def _string(self, indexed: int) -> bytes:
        """A string (RFC 7541 section 5.2); `indexed`: it is to enter the table."""
        is_huffman = self._block[self._at] & 0x80
        length = self._integer(0x7F)
        start = self._at
        stop = start + length
        if stop > len(self._block):
            raise _wrong("a string that is cut off")
        self._at = stop
        if length > self._left_bytes:
            self._exceed()
        if self.oversized:
            if not indexed:
                return b""
            if length * 8 > TABLE_BYTES * (_LONGEST_CODE_BITS if is_huffman else 8):
                return _NO_ENTRY
            self._spare_bytes -= length
            if self._spare_bytes < 0:
                raise PeerError("a header list far above the limit", Code.ENHANCE_YOUR_CALM)
        octets = self._block[start:stop]
        return _huffman(octets) if is_huffman else octets


def _huffman(octets: bytes) -> bytes:
    """Decode by the library's table: a step for each half of an octet (RFC 7541 appendix B)."""
    states = _STATES
    text = bytearray()
    state, flags = 0, _COMPLETE
    for octet in octets:
        state, flags, letter = states[state * 16 + (octet >> 4)]
        if flags & _EMIT:
            text.append(letter)
        if flags & _FAIL:
            break
        state, flags, letter = states[state * 16 + (octet & 15)]
        if flags & _EMIT:
            text.append(letter)
        if flags & _FAIL:
            break
    if flags & _FAIL or not flags & _COMPLETE:
        raise _wrong("Huffman code")
    return bytes(text)


def _wrong(why: str) -> PeerError:
    return PeerError(f"header compression: {why}", Code.COMPRESSION_ERROR)
