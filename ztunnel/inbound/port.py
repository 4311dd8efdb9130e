"""Which port of a client an application is to see, where the client's own is not to be had."""

from __future__ import annotations

from typing import Final

_PRIVILEGED: Final = 1024
_FIRST, _LAST = 32769, 60999
"""Odd ports of the default ephemeral range: connect() chooses even ones while there are some
(net/ipv4/inet_hashtables.c), so that a client's own later calls rarely meet them."""


def port_beside(port: int) -> int:
    """For a client whose own port our accepted socket has already, as in plaintext: another one of the same
    class, privileged or not, and always the same one.

    A call that the client itself makes from it to the same application would be lost while this one lives. So
    it lies where clients rarely call from: below 512, or between 16384 and 32767.
    """
    if port < _PRIVILEGED:
        return port ^ 0x200 or 0x1FF
    if 0x4000 <= port < 0x8000:
        return port ^ 0x2000
    return port & 0x3FFF | 0x4000


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
