"""Small pieces of work, of which the engine does a few in each round: what a peer can cause many of at once,
such as the ends of all tunnels of its session, is not done in one go while everybody waits."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

AT_ONCE: Final = 4
"""Each takes a tenth of a millisecond or two."""

Piece = Callable[[], None]


class Pieces:
    """Those that are left to do, in the order in which they came."""

    __slots__ = ("_left", "_next_round", "_scheduled")

    def __init__(self, next_round: Callable[[Piece], None]) -> None:
        """`next_round` is the engine's."""
        self._next_round = next_round
        self._left: deque[Piece] = deque()
        self._scheduled = False

    def __len__(self) -> int:
        return len(self._left)

    def put(self, piece: Piece) -> None:
        """Do it in one of the next rounds."""
        self._left.append(piece)
        self._schedule()

    def _schedule(self) -> None:
        if self._left and not self._scheduled:
            self._scheduled = True
            self._next_round(self._some)

    def _some(self) -> None:
        self._scheduled = False
        try:
            for _ in range(min(len(self._left), AT_ONCE)):
                self._left.popleft()()
        finally:
            self._schedule()
