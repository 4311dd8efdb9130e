"""What one connection may cost, at either end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_KIB: Final = 1 << 10
_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of a connection. Sizes in bytes, times in seconds.

    Attributes:
        message_bytes: of one message that comes in.
        header_bytes: of one header list (RFC 9113 section 6.5.2); the encoded block may have twice as many.
        streams: calls at once.
        window_bytes: what the peer may send on one stream before it is taken.
        session_window_bytes: the same for all streams together; of a server, what a connection can hold.
        frame_bytes: of one frame that comes in.
        read_bytes: taken from the network at once; bounds how long one connection keeps the others waiting.
        connect_seconds, handshake_seconds, first_byte_seconds: for TCP, for TLS, for the client's first byte.
        ping_seconds, pong_seconds: of silence until the peer is asked if it is there, and for its answer.
        write_seconds: for the peer to take what is written.
    """

    message_bytes: int
    header_bytes: int = 16 * _KIB
    streams: int = 100
    window_bytes: int = 64 * _KIB - 1
    session_window_bytes: int = 256 * _KIB
    frame_bytes: int = 16 * _KIB
    read_bytes: int = 16 * _KIB
    connect_seconds: float = 5.0
    handshake_seconds: float = 10.0
    first_byte_seconds: float = 3.0
    ping_seconds: float = 30.0
    pong_seconds: float = 10.0
    write_seconds: float = 30.0


CLIENT: Final = Limits(
    message_bytes=200 * _MIB,
    header_bytes=64 * _KIB,
    window_bytes=4 * _MIB,
    session_window_bytes=16 * _MIB,
    frame_bytes=_MIB,
    read_bytes=256 * _KIB,
)
"""Of a client of a control plane; the numbers are those of Istio's ztunnel (src/xds/client.rs)."""

SERVER: Final = Limits(message_bytes=256 * _KIB)
"""Of a control plane, for callers that nobody knows yet: 256 KiB a connection that nobody has taken."""
