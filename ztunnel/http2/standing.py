"""What one peer may still do: the same for all sessions of one identity from one address, and for those that
it makes after one was closed.

Three things are limited, each in its own way:

| what | then |
|---|---|
| frames that carry nothing (`glitch`) | the session is closed (ENHANCE_YOUR_CALM), and so is the next one |
| tunnels that came to nothing (`churn`): reset early, refused; large headers | new ones begin one by one |
| frames handled in one round of the engine (`work`) | the rest waits for the next round |

A tunnel that comes to nothing is most often only what an application did: so it never ends a session, whose
other tunnels go on. Who resets tunnels faster than they begin runs into debt, and is read only as fast as it
pays.
"""

from __future__ import annotations

from typing import Final

from ztunnel.flow.rate import Bucket, Rate

GLITCHES: Final = Rate(800, 40, 80)
"""Twice what one session may spend at once, and no more in the long run than one (`budget`)."""

CHURN: Final = Rate(1000, 200, 600)
"""Tunnels that come to nothing: 1,000 at once, then 200 a second, which is some 6 % of a core. Three seconds
forgive all."""

UNSTARTED_POINTS: Final = 0.1
"""What a tunnel costs that is reset before anything was done for it."""

DEBT_POINTS: Final = 200.0
"""In deeper debt, the peer is read no further."""

WORK_PER_ROUND: Final = 128
"""Frames, weighed by what they cost: about half a millisecond of the engine's thread."""

LARGE_BLOCK: Final = 16
"""For each so many fields, or 1 KiB, a header block costs UNSTARTED_POINTS: Istio's CONNECT nothing."""

HEADERS_WORK: Final = 32
"""What a header block weighs: a CONNECT is judged, and a connection made for it, half a millisecond where
nothing of it is remembered."""


class Standing:
    """What is left of it.

    Attributes:
        glitches: points for frames that carry nothing.
        churn: points for tunnels that come to nothing.
        work_left: how much more is done for the peer in this round.
    """

    __slots__ = ("_round", "churn", "glitches", "work_left")

    def __init__(self, now: float) -> None:
        self.glitches = Bucket(GLITCHES, now)
        self.churn = Bucket(CHURN, now)
        self.work_left = WORK_PER_ROUND
        self._round = -1

    def enter(self, number: int) -> None:
        """A round of the engine, of that number; its sessions share what is done in it."""
        if number != self._round:
            self._round = number
            self.work_left = WORK_PER_ROUND
