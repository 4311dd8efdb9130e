"""The tries of one request: each at a server that is found for it, until one answers or none is left.

```
wanted ── a server stands ──> asked ── lost, too slow, or its answer a failure ──> wanted again, or a reply
   └── there is none ────────────────────────────────────────────────────────────┘
```
"""

from __future__ import annotations

from functools import partial

from ztunnel.http1.head import Fields
from ztunnel.l7 import reply as replies
from ztunnel.l7.balancing.ring import NOT_TRIED, Endpoints
from ztunnel.l7.reply import Reply
from ztunnel.l7.request import Request
from ztunnel.l7.routing.plan import NO_PLAN
from ztunnel.waypoint.exchange.attempts import IDEMPOTENT, Attempts, Time
from ztunnel.waypoint.exchange.bodies import Bodies
from ztunnel.waypoint.exchange.sides import Downstream, Upstream
from ztunnel.waypoint.upstream.asking import Clock


class Tries(Bodies):
    """Those of one request.

    Attributes:
        plan: what was decided of it.
        attempts: how often and how long it is tried.
        tried: the endpoints that it was sent to.
    """

    __slots__ = ("_ended", "_pending", "_responded", "_trailers", "_wanted", "attempts", "plan", "tried")

    def __init__(self, clock: Clock, time: Time, down: Downstream, request: Request) -> None:
        super().__init__(clock, down, request)
        self._trailers: Fields = ()
        self._ended = False
        self._responded = False
        self._wanted = False
        self._pending = 0
        self.plan = NO_PLAN
        self.attempts = Attempts(time)
        self.tried: Endpoints = NOT_TRIED

    def reply(self, reply: Reply) -> None:
        """Answer it here."""
        raise NotImplementedError

    def _seek(self) -> None:
        """Find a server: `connected` or `unreachable` follows, perhaps before this returns."""
        raise NotImplementedError

    def _connect(self) -> None:
        if self.over:
            return
        self.attempts.count += 1
        self._wanted = True
        self._pending += 1
        self._begin_time()
        self._seek()

    @property
    def stalls(self) -> bool:
        """Whether it cannot go on before a side does something: the client has more to send, or one of both
        does not read. A call of gRPC may wait before its first message, and so may what has been answered."""
        up = self._up
        if self._down.unsent() or (up is not None and up.unsent()):
            return True
        return not (self._ended or self._responded or self.is_grpc)

    def may_be_refused(self) -> None:
        """The upstream that follows may give the request back unread (HTTP/2: REFUSED_STREAM, GOAWAY): its
        body is needed once more then."""
        if self.attempts.retries.any and self._body.whole:
            self._body.keep()

    def connected(self, up: Upstream) -> None:
        """An upstream stands; it is the exchange's until the response is whole."""
        self._pending -= 1
        if self.over or not self._wanted:
            up.cancel()
            return
        self._wanted = False
        self._up = up
        self.host = up.host
        body = self._body
        whole = self._ended and not body.waits and not self._trailers
        up.ask(self.request, whole)
        self._send_waiting(up)
        if self._up is up and self._ended and not whole:
            up.finish(self._trailers)

    def unreachable(self, reply: Reply, reason: str = "", unsent: bool = False) -> None:
        """There is no upstream. `unsent`: another one may be tried at once."""
        self._pending -= 1
        if self.over or not self._wanted or self._pending > 0:
            return
        self._wanted = False
        self._lost(reply, reason, unsent)

    def failed(self, reply: Reply, reason: str = "", unsent: bool = False) -> None:
        """The upstream was lost. `unsent`: the request cannot have had an effect there. What was not answered
        is tried again where that is safe, or its rule says so."""
        up, self._up = self._up, None
        if self.over:
            return
        if up is None:
            self.unreachable(reply, reason, unsent)
            return
        self._lost(reply, reason, unsent, stale=up.reused and self.request.method in IDEMPOTENT)

    def _lost(self, reply: Reply, reason: str, unsent: bool, stale: bool = False) -> None:
        """A try has come to nothing, or the response to no end."""
        self.failure = reason
        self.attempts.end_try(reply.flag)
        reply = reply.because(reason) if reason else reply
        if self._body.whole and not self._responded:
            wait = self.attempts.after_loss(reply, unsent, stale)
            if wait >= 0:
                self._try_again(wait)
                return
        self.reply(reply)

    def _is_tried_again(self, fields: Fields, end: bool) -> bool:
        """Whether the response is a failure, and another one is asked for."""
        up = self._up
        if up is None or not self._body.whole or (wait := self.attempts.after_response(fields)) < 0:
            return False
        self._up = None
        self.attempts.end_try()
        if not end:
            up.cancel()
        self._try_again(wait)
        return True

    def _try_again(self, wait: float) -> None:
        self._body.rewind()
        if wait:
            self.attempts.wait(wait, self._connect)
        else:
            self._connect()

    def _begin_time(self) -> None:
        """Once the request is whole. Where protocols were switched it has no end, nor its response."""
        tried = self._up is not None or self._wanted
        if self._ended and tried and self.attempts.timed and not self.switched:
            self.attempts.begin(partial(self.reply, replies.TIMEOUT), self._try_over)

    def _try_over(self) -> None:
        if self.over or self._responded:
            return
        up, self._up = self._up, None
        self._wanted = False
        if up is not None:
            up.cancel()
        self._lost(replies.TRY_TIMEOUT, "", unsent=False)
