"""The copies of one request that are sent elsewhere as well."""

from __future__ import annotations

from ztunnel.http1.head import Fields
from ztunnel.waypoint.exchange.sides import Copy


class Copies:
    """All of them: none, for most requests."""

    __slots__ = ("_copies",)

    def __init__(self) -> None:
        self._copies: list[Copy] = []

    def begin(self, copies: list[Copy], waiting: list[bytes], ended: bool, trailers: Fields) -> None:
        """These are sent: they are given what of the body is `waiting`, and where it `ended`, its end."""
        self._copies = copies
        for part in waiting:
            self.body(memoryview(part))
        if ended and waiting:
            self.end(trailers)

    def body(self, payload: memoryview) -> None:
        """Some of the request's body has come."""
        for copy in self._copies:
            copy.body(payload)

    def end(self, trailers: Fields) -> None:
        """The request is whole."""
        for copy in self._copies:
            copy.end(trailers)

    def leave(self, ended: bool) -> None:
        """The request is over; what has not `ended` never will."""
        copies, self._copies = self._copies, []
        if not ended:
            for copy in copies:
                copy.give_up()
