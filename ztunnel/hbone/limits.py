"""The numbers that sessions keep to, and the ledger of what all sessions of a process hold together."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from ztunnel.flow.held import HeldBytes


class Role(Enum):
    """Which end of a session we are: CLIENT opens tunnels, SERVER answers."""

    CLIENT = "client"
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of every session. Those on the wire are ztunnel's (src/proxy/h2.rs, src/config.rs), but for
    `request_header_bytes`, where it takes 64 KiB: decoding so much Huffman code takes 6 ms."""

    open_streams: int = 100
    accept_streams: int = 200
    stream_window_bytes: int = 4 * 1024 * 1024
    session_window_bytes: int = 16 * 1024 * 1024
    frame_bytes: int = 1024 * 1024
    response_header_bytes: int = 16 * 1024
    request_header_bytes: int = 16 * 1024
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


@dataclass(slots=True)
class Ledger:
    """Live figures of all sessions that share it, for telemetry and for the process-wide limit.

    `held` are bytes of peers that applications have not taken yet; `glitches` counts what peers
    did that cost points, `calmed` the sessions closed for it, `slowed` how often tunnels had to wait because
    too many of the peer's had come to nothing; `retried` how often a call was tried again.
    """

    limits: Limits = field(default_factory=Limits)
    held: HeldBytes = field(init=False)
    sessions: int = 0
    streams: int = 0
    glitches: int = 0
    calmed: int = 0
    slowed: int = 0
    retried: int = 0

    def __post_init__(self) -> None:
        self.held = HeldBytes(self.limits.buffered_bytes)

    @property
    def buffered_bytes(self) -> int:
        """All that is held."""
        return self.held.total_bytes
