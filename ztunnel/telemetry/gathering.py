"""Gathers log lines of failures: of one cause and one source the first few of each second are written, the
rest as one line that says how many.

A peer that is refused a thousand times a second would otherwise write a megabyte a second into the log of the
node, and hide in it what others do. Metrics count every one.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

LINES_PER_SECOND = 10
_WINDOW_SECONDS = 1.0
_MAX_CAUSES = 1024

Write = Callable[[int], None]
"""Writes a line that stands for so many."""


class _Cause:
    """What happened of one cause in the window that began at `since`."""

    __slots__ = ("held", "last", "since", "written")

    def __init__(self, since: float, last: Write) -> None:
        self.since = since
        self.written = 0
        self.held = 0
        self.last = last


class Gathering:
    """The causes of the last second."""

    __slots__ = ("_causes", "_next")

    def __init__(self) -> None:
        self._causes: dict[Hashable, _Cause] = {}
        self._next = 0.0

    def write(self, cause: Hashable, line: Write, now: float) -> None:
        """Write a line now, or later together with others of its cause: then the last one stands for all.

        More causes than 1,024 in a second (a peer may invent some) are taken for one.
        """
        if now >= self._next:
            self.flush(now)
        found = self._causes.get(cause)
        if found is None:
            if len(self._causes) >= _MAX_CAUSES:
                cause = None
            found = self._causes.setdefault(cause, _Cause(now, line))
        if found.written < LINES_PER_SECOND:
            found.written += 1
            line(1)
        else:
            found.held += 1
            found.last = line

    def flush(self, now: float) -> None:
        """Write what was held of windows that are over. To be called about once a second."""
        self._next = now + _WINDOW_SECONDS
        for cause, found in list(self._causes.items()):
            if now - found.since < _WINDOW_SECONDS:
                continue
            del self._causes[cause]
            if found.held:
                found.last(found.held)
