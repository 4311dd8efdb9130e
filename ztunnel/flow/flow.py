"""What a flow is: bytes between the connection's opener and its target, counted in both directions."""

from __future__ import annotations


class Counts:
    """Live byte counters of one flow: `up` from the opener towards the target, `down` the other way.

    They are plain ints that the engine's callbacks add to; whoever reports reads them at any time.
    """

    __slots__ = ("down", "up")

    def __init__(self, up: int = 0, down: int = 0) -> None:
        self.up = up
        self.down = down

    def moved(self) -> int:
        """All of them."""
        return self.up + self.down

    def __repr__(self) -> str:
        return f"Counts(up={self.up}, down={self.down})"
