"""The numbers that sessions keep to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ztunnel.http2.standing import HEADERS_WORK


class Role(Enum):
    """Which end of a session we are: CLIENT opens streams, SERVER answers."""

    CLIENT = "client"
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of every session. Those on the wire are ztunnel's (src/proxy/h2.rs, src/config.rs), but for
    `request_header_bytes`, where it takes 64 KiB: decoding so much Huffman code takes 6 ms.

    Attributes:
        request_work, response_work: what a header block weighs in what is done for a peer in one round
            (`standing.WORK_PER_ROUND`).
        skipped_header_bytes: a head above its limit by so much costs only its stream; 0: the connection.
        wide_streams: a client is told that a stream's share of the window is below what each may be sent at
            first (RFC 9113 section 6.5.2) only when it has more streams than that: some that have sent more
            when they hear of it cannot bear it (encode/httpcore#1082).
        churn_ends: a peer in debt for streams that it has reset early (`standing`) loses its connection, as
            with Envoy (overload.premature_reset_total_stream_count); else only its new streams wait.
    """

    open_streams: int = 100
    accept_streams: int = 200
    stream_window_bytes: int = 4 * 1024 * 1024
    session_window_bytes: int = 16 * 1024 * 1024
    frame_bytes: int = 1024 * 1024
    response_header_bytes: int = 16 * 1024
    request_header_bytes: int = 16 * 1024
    skipped_header_bytes: int = 0
    request_work: int = HEADERS_WORK
    response_work: int = HEADERS_WORK
    churn_ends: bool = False
    wide_streams: int = 0
    continuations: int = 64
    settings_seconds: float = 10.0
    ping_seconds: float = 10.0
    pong_seconds: float = 20.0
    goodbye_seconds: float = 1.0
    idle_seconds: float = 300.0
    control_backlog_bytes: int = 64 * 1024
    buffered_bytes: int = 64 * 1024 * 1024

    def first_window_bytes(self, streams: int) -> int:
        """What each of so many streams may be sent at first: all of them together four fifths of a session's
        window. The rest lets those grow that are read, up to `stream_window_bytes`."""
        return min(self.stream_window_bytes, max(self.session_window_bytes * 4 // 5 // max(streams, 1), 1))
