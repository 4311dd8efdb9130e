"""The bodies of an exchange, in both directions: passed on as they come, and no faster than they leave.

Bytes are told to their side as taken only while the other side has less than 64 KiB that waits. What of a
request is kept for another try is bounded (`kept`).
"""

from __future__ import annotations

from ztunnel.flow.transport import HIGH_BYTES
from ztunnel.l7.request import Request
from ztunnel.waypoint.exchange.copies import Copies
from ztunnel.waypoint.exchange.kept import KeptBody
from ztunnel.waypoint.exchange.sides import Downstream, Upstream
from ztunnel.waypoint.reporting.observed import Observed
from ztunnel.waypoint.upstream.asking import Clock


class Bodies(Observed):
    """Those of one exchange, and its two sides.

    Attributes:
        active: when something last moved.
    """

    __slots__ = ("_body", "_clock", "_copies", "_down", "_owed_down", "_owed_up", "_up", "active")

    def __init__(self, clock: Clock, down: Downstream, request: Request) -> None:
        super().__init__(request, clock.now)
        self._clock = clock
        self._down = down
        self._up: Upstream | None = None
        self._body = KeptBody()
        self._copies = Copies()
        self._owed_down = 0
        self._owed_up = 0
        self.active = self.began

    # The request's.

    def body(self, payload: memoryview) -> None:
        """Some of it has come."""
        count = len(payload)
        self.note_received(payload)
        self.active = self._clock.now
        up = self._up
        if self.over:
            self._down.taken(count)
            return
        if up is None:
            self._body.wait(payload)
            self._copies.body(payload)
            return
        self._copies.body(payload)
        up.send(payload)
        self._body.sent(payload)
        if up.unsent() > HIGH_BYTES:
            self._owed_down += count
        else:
            self._down.taken(count)

    def _send_waiting(self, up: Upstream) -> None:
        """What of it has come before there was a server."""
        body = self._body
        while body.waits and self._up is up:
            part, untold = body.next()
            up.send(memoryview(part))
            if untold:
                self._down.taken(untold)

    def up_writable(self) -> None:
        """What waited for the server has left."""
        owed, self._owed_down = self._owed_down, 0
        if owed:
            self._down.taken(owed)

    # The response's.

    def payload(self, payload: memoryview) -> None:
        """Some of it has come."""
        up, count = self._up, len(payload)
        if self.over or up is None:
            return
        self.note_sent(payload)
        self.active = self._clock.now
        self._down.send(payload)
        if self._down.unsent() > HIGH_BYTES:
            self._owed_up += count
        elif self._up is up:
            up.taken(count)

    def down_writable(self) -> None:
        """What waited for the client has left."""
        owed, self._owed_up = self._owed_up, 0
        if owed and self._up is not None:
            self._up.taken(owed)

    # The end.

    def _let_go(self) -> Upstream | None:
        """The server is another's, or nobody's; what it has sent is ours to bring to an end."""
        up, self._up = self._up, None
        owed, self._owed_up = self._owed_up, 0
        if up is not None and owed:
            up.taken(owed)
        return up

    def _forget_bodies(self) -> int:
        """Nothing more is passed on. Returns how many bytes the client has not been told of."""
        lost = self._body.clear() + self._owed_down
        self._owed_down = 0
        return lost
