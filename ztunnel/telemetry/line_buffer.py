"""Lines that wait until they are written, within a limit. Apart from who writes them because each connection
puts one in: this is compiled."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

URGENT_LINES: Final = 1000
"""Places that only urgent lines may use, beside those of all."""


class LineBuffer:
    """Lines in the order in which they came.

    Attributes:
        waiting: what whoever writes takes from the left.
        dropped: of the lines that were offered.
        on_line: called when the next line comes, and then no more; None: nobody waits for one.
    """

    __slots__ = ("_limit", "dropped", "on_line", "waiting")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.waiting: deque[str] = deque()
        self.dropped = 0
        self.on_line: Callable[[], None] | None = None

    def put(self, line: str, urgent: bool = False) -> bool:
        """Take a line without its end; False if there is no room and it was dropped."""
        if len(self.waiting) >= (self._limit + URGENT_LINES if urgent else self._limit):
            return False
        self.waiting.append(line)
        on_line = self.on_line
        if on_line is not None:
            self.on_line = None
            on_line()
        return True

    def offer(self, line: str) -> None:
        """The same; a line that is dropped is counted."""
        if not self.put(line):
            self.dropped += 1
