"""Which port of a client an application is to see, where the client's own is not to be had."""

from __future__ import annotations

_FIRST, _LAST = 32769, 60999
"""Odd ports of the default ephemeral range: connect() chooses even ones while there are some
(net/ipv4/inet_hashtables.c), so that a client's own later calls rarely meet them."""


class SparePorts:
    """Ports for clients without one, in turn: each comes again as late as possible, when what it was used for
    has long left TIME_WAIT."""

    __slots__ = ("_next",)

    def __init__(self, first: int = _FIRST) -> None:
        self._next = first

    def take(self, count: int) -> tuple[int, ...]:
        """The next `count` ones."""
        taken = []
        for _ in range(count):
            taken.append(self._next)
            self._next = self._next + 2 if self._next < _LAST else _FIRST
        return tuple(taken)
