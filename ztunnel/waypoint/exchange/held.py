"""A request that is held before anything is sent on: what has come of its body, and who listens to it; and
what its response is changed by."""

from __future__ import annotations

from ztunnel.http1.head import Fields
from ztunnel.l7.extauthz.outcome import HeaderChange, edited
from ztunnel.l7.request import Request
from ztunnel.waypoint.exchange.attempts import Time
from ztunnel.waypoint.exchange.sides import Copy, Downstream
from ztunnel.waypoint.exchange.tries import Tries
from ztunnel.waypoint.upstream.asking import Clock


class Held(Tries):
    """One exchange.

    Attributes:
        matched: the request by which its route is found, where that is not `admitted`; None: it is.
        changes: of its response, beyond those of the plan.
    """

    __slots__ = ("changes", "matched")

    def __init__(self, clock: Clock, time: Time, down: Downstream, request: Request) -> None:
        super().__init__(clock, time, down, request)
        self.matched: Request | None = None
        self.changes: list[HeaderChange] | None = None

    @property
    def is_whole(self) -> bool:
        """Whether all of the request has come."""
        return self._ended

    def hear(self, copy: Copy) -> None:
        """This is told of the request's body, what has come of it included."""
        self._copies.begin([copy], self._body.waiting(), self._ended, self._trailers)

    def read_ahead(self) -> None:
        """What has come of the body is held here, and the client may send more."""
        untold = self._body.tell()
        if untold:
            self._down.taken(untold)

    def body_begin(self, most_bytes: int) -> bytes:
        """What has come of the body, so much of it at most."""
        parts, size = [], 0
        for part in self._body.waiting():
            parts.append(part)
            size += len(part)
            if size >= most_bytes:
                break
        return b"".join(parts)[:most_bytes]

    def _edit(self, fields: Fields, upstream: str = "") -> Fields:
        """A response's fields as the client gets them; `upstream`: as of `Plan.edit`."""
        fields = self.plan.edit(fields + self.added, upstream)
        return edited(fields, self.changes) if self.changes else fields
