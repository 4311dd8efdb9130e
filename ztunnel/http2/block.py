"""A header block: HEADERS and the CONTINUATION frames after it, put together within limits."""

from __future__ import annotations

from typing import Final

from ztunnel.errors import PeerError
from ztunnel.http2.frame import END_STREAM, MAX_STREAM_ID, PADDED, PRIORITY_FLAG, Code

EXTRA_BYTES: Final = 261
"""The most that padding (1 + 255) and priority (5) add to the payload of a HEADERS frame."""


class HeaderBlock:
    """The encoded fields of one stream's HEADERS, as far as they have come."""

    __slots__ = ("_continuations", "end_stream", "octets", "stream_id")

    def __init__(self, stream_id: int, octets: bytes, end_stream: bool) -> None:
        self.stream_id = stream_id
        self.octets = octets
        self.end_stream = end_stream
        self._continuations = 0

    def add(self, untrusted: bytes, continuations: int, limit_bytes: int) -> None:
        """One CONTINUATION more.

        Raises:
            PeerError: more frames than `continuations`, or more bytes encoded than decoded ones are allowed
                (the CONTINUATION floods of CVE-2024-27919).
        """
        self._continuations += 1
        self.octets += untrusted
        if self._continuations > continuations or len(self.octets) > limit_bytes:
            raise PeerError("a header block without end", Code.ENHANCE_YOUR_CALM)


def begin_block(flags: int, stream_id: int, untrusted: bytes) -> HeaderBlock:
    """The payload of a HEADERS frame, without its padding and priority.

    Raises:
        PeerError: padding or priority that does not fit, or a stream that depends on itself (RFC 7540 section
            5.3.1): an error of the stream there, and here one of the connection, because no peer does it.
    """
    start, end = 0, len(untrusted)
    if flags & PADDED:
        if not untrusted:
            raise PeerError("padding without a length", Code.FRAME_SIZE_ERROR)
        start, end = 1, end - untrusted[0]
    priority = start
    if flags & PRIORITY_FLAG:
        start += 5
    if start > end:
        raise PeerError("padding or priority that does not fit into HEADERS", Code.PROTOCOL_ERROR)
    if flags & PRIORITY_FLAG:
        check_priority(stream_id, untrusted[priority:start])
    return HeaderBlock(stream_id, untrusted[start:end], bool(flags & END_STREAM))


def check_priority(stream_id: int, untrusted: bytes) -> None:
    """The five bytes of a priority. Raises PeerError where a stream depends on itself."""
    if int.from_bytes(untrusted[:4], "big") & MAX_STREAM_ID == stream_id:
        raise PeerError("a stream that depends on itself", Code.PROTOCOL_ERROR)
