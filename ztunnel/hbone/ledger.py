"""The ledger of what all sessions of a process hold together."""

from __future__ import annotations

from dataclasses import dataclass, field

from ztunnel.flow.held import HeldBytes
from ztunnel.http2.limits import Limits


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
