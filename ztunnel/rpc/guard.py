"""Stands before h2: counts what a peer's frames cost by their headers, and takes GOAWAY out.

h2 has no limit for control frames, empty frames and streams that are reset, and spends some 30 us on each;
and it takes a GOAWAY for the end of the connection, where HTTP/2 lets the streams that are open go on
(RFC 9113 section 6.8). What does not fit h2's own rules is left to h2, which ends the connection.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from ztunnel.errors import PeerError
from ztunnel.flow.rate import Bucket
from ztunnel.http2.budget import Glitch, GlitchBudget
from ztunnel.http2.frame import (
    ACK,
    END_HEADERS,
    END_STREAM,
    HEADER,
    HEADER_BYTES,
    PREFACE,
    Code,
    Frame,
    code_name,
)

_RESET_POINTS: Final = 4
"""A stream that the peer gives up: what was begun for it is thrown away."""

_TINY_BYTES: Final = 5
"""DATA with less than the header of a message carries next to nothing, unless it ends its stream."""

_MAX_DEBUG_BYTES: Final = 1024


class GoAway(NamedTuple):
    """A peer's GOAWAY: streams above `last_stream_id` were not looked at and may be tried elsewhere."""

    last_stream_id: int
    code: int
    debug: str

    def __str__(self) -> str:
        return f"GOAWAY {code_name(self.code)} {self.debug}".rstrip()


class Guard:
    """One direction of one connection, from the peer to us. Any pieces of its bytes go in, what h2 is to see
    comes out.

    Attributes:
        budget: the points of this connection.
    """

    def __init__(self, *, server: bool, header_bytes: int, now: float, peer: Bucket) -> None:
        """`header_bytes` bounds one encoded header block; `peer` are the points of all the peer's
        connections."""
        self.budget = GlitchBudget(now, peer)
        self._header_bytes = header_bytes
        self._preface = len(PREFACE) if server else 0
        self._head = bytearray()
        """The beginning of a frame header; of GOAWAY the whole frame."""
        self._left = 0
        """Of the payload of a frame that is passed on."""
        self._block = 0

    def feed(self, untrusted: bytes, now: float) -> tuple[bytes, list[GoAway]]:
        """Take the next bytes; what h2 is to see of them, and what GOAWAYs were in them.

        Raises:
            PeerError: the peer costs too much; `reply` is the code for GOAWAY.
        """
        if not self._head and len(untrusted) <= self._left:
            self._left -= len(untrusted)  # the middle of a large frame
            return untrusted, []
        passed, gone, at = bytearray(), list[GoAway](), 0
        while at < len(untrusted):
            skipped = self._preface or self._left
            if skipped and not self._head:
                end = min(at + skipped, len(untrusted))
                passed += untrusted[at:end]
                self._skip(end - at)
                at = end
                continue
            wanted = self._wanted()
            end = min(at + wanted - len(self._head), len(untrusted))
            self._head += untrusted[at:end]
            at = end
            if len(self._head) < HEADER_BYTES or len(self._head) < self._wanted():
                continue
            if self._is_goaway():
                gone.append(self._pull_goaway(now))
            else:
                self._count(now)
                passed += self._head
            self._head.clear()
        return bytes(passed), gone

    def _skip(self, count: int) -> None:
        if self._preface:
            self._preface -= count
        else:
            self._left -= count

    def _is_goaway(self) -> bool:
        return self._head[3] == Frame.GOAWAY

    def _wanted(self) -> int:
        """How many bytes of this frame have to be here before it can be judged."""
        if len(self._head) < HEADER_BYTES or not self._is_goaway():
            return HEADER_BYTES
        return HEADER_BYTES + min(int.from_bytes(self._head[:3], "big"), 8 + _MAX_DEBUG_BYTES)

    def _pull_goaway(self, now: float) -> GoAway:
        self.budget.spend(Glitch.SETTINGS, now)
        length = int.from_bytes(self._head[:3], "big")
        if length < 8:
            raise PeerError(f"a GOAWAY of {length} bytes", Code.FRAME_SIZE_ERROR)
        if length > 8 + _MAX_DEBUG_BYTES:
            raise PeerError(f"a GOAWAY of {length} bytes", Code.ENHANCE_YOUR_CALM)
        payload = bytes(self._head[HEADER_BYTES:])
        last = int.from_bytes(payload[:4], "big") & 0x7FFFFFFF
        return GoAway(last, int.from_bytes(payload[4:8], "big"), payload[8:].decode("utf-8", "replace"))

    def _count(self, now: float) -> None:
        """Charge for one frame; `_head` is its header."""
        length_and_kind, flags, _ = HEADER.unpack(self._head)
        length, kind = length_and_kind >> 8, length_and_kind & 0xFF
        self._left = length
        if kind == Frame.DATA:
            if length < _TINY_BYTES and not flags & END_STREAM:
                self.budget.spend(Glitch.STRAY if length else Glitch.EMPTY, now)
        elif kind in (Frame.HEADERS, Frame.CONTINUATION):
            self._count_block(kind, length, flags, now)
        elif kind in (Frame.WINDOW_UPDATE, Frame.PING):
            # gRPC peers measure the path by a PING for each round trip in which they get data.
            self.budget.spend_update(now)
        elif kind == Frame.RST_STREAM:
            self.budget.spend(_RESET_POINTS, now)
        elif kind == Frame.SETTINGS:
            if not flags & ACK:
                self.budget.spend(Glitch.SETTINGS, now)
        else:
            self.budget.spend(Glitch.UNKNOWN, now)

    def _count_block(self, kind: int, length: int, flags: int, now: float) -> None:
        """What the session gives back for a stream that ends as it should is what its HEADERS cost."""
        self.budget.spend(Glitch.CONTINUATION, now)
        self._block = length if kind == Frame.HEADERS else self._block + length
        if self._block > self._header_bytes:
            raise PeerError(f"a header block of more than {self._header_bytes} bytes", Code.ENHANCE_YOUR_CALM)
        if flags & END_HEADERS:
            self._block = 0
