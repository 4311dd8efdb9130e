"""The budget for what a peer may do that costs us more than it costs the peer.

Each glitch (a control frame nobody asked for, an empty frame, an error of a stream) takes points; time and
streams that end as they should give points back. A peer that runs out is told to calm down and loses its
session. The points are counted from frame headers, before anything is parsed further: h2 for instance
spends 30 us on a frame of 13 bytes, so 232 KiB/s of them saturate a core. They come out of two pockets, the
session's and the peer's (`standing`), so that a new session brings no new ones.

Streams that the peer resets early cost points of another kind (`Standing.churn`).
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from ztunnel.errors import PeerError
from ztunnel.flow.rate import Bucket
from ztunnel.http2.frame import Code

CAPACITY_POINTS: Final = 400
POINTS_PER_SECOND: Final = 40
UPDATES_PER_FRAME: Final = 10
UPDATES_SPARE: Final = 1000


class Glitch(IntEnum):
    """What costs points, and how many."""

    OUR_RESET = 1
    REFUSED = 1
    PING = 1
    PRIORITY = 1
    UNKNOWN = 1
    CONTINUATION = 1
    STRAY = 1
    UPDATE = 1
    SETTINGS = 4
    EMPTY = 8


class GlitchBudget:
    """The points of one session.

    Attributes:
        spent: glitches so far, for the metric; never falls.
        updates: WINDOW_UPDATE frames that the peer may send for free; whoever sends a DATA frame adds
            `UPDATES_PER_FRAME`.
    """

    __slots__ = ("_at", "_left", "_peer", "spent", "updates")

    def __init__(self, now: float, peer: Bucket) -> None:
        """`peer` are the points of all its sessions."""
        self._peer = peer
        self._at = now
        self._left = float(CAPACITY_POINTS)
        self.updates = UPDATES_SPARE
        self.spent = 0

    def spend(self, points: int, now: float) -> None:
        """Take points.

        Raises:
            PeerError: none are left: GOAWAY(ENHANCE_YOUR_CALM), and close.
        """
        self.spent += 1
        refilled = self._left + (now - self._at) * POINTS_PER_SECOND
        self._left = min(refilled, CAPACITY_POINTS) - points
        self._at = now
        if self._peer.take(points, now) < 0 or self._left < 0:
            raise PeerError("too many frames that carry nothing", Code.ENHANCE_YOUR_CALM)

    def give_back(self) -> None:
        """A stream ended as it should."""
        self._left += 1
        self._peer.give(1)

    def spend_update(self, now: float) -> None:
        """A WINDOW_UPDATE came: free as long as we send data that it can be about.

        Raises:
            PeerError: as `spend`.
        """
        self.updates = min(self.updates, UPDATES_SPARE) - 1
        if self.updates < 0:
            self.updates = 0
            self.spend(Glitch.UPDATE, now)
