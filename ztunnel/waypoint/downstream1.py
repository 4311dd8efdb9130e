"""A client's connection that speaks HTTP/1.1: one request after the other, each answered before the next.

After a request that is refused for how it is written, nothing of the connection is believed any more: it is
answered and closed.

```
reading ── head ──> exchange ── both are whole ──> reading
   │                   └── 101 ──> switched: bytes both ways
   └── refused, `close`, drained ──> answered ──> lingering until the client has closed
```
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ztunnel.errors import Unreachable
from ztunnel.flow.transport import Transport
from ztunnel.http1.framing import Frame, push_chunk, push_last_chunk
from ztunnel.http1.head import Fields, push_response_head
from ztunnel.http1.reader import NOTHING, State
from ztunnel.l7.reply import IDLE, SLOW_HEAD, Refused, Reply
from ztunnel.l7.request import Request, complete, parse_request
from ztunnel.waypoint.exchange.exchange import Exchange
from ztunnel.waypoint.link1 import Http1Link
from ztunnel.waypoint.way import HttpWay

LINGER_SECONDS: Final = 5.0
"""For a client that has had its last answer to close its side."""

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_SWITCHING: Final = b"101"
_NO_BODY: Final = frozenset((b"204", b"304"))


class Http1Server(Http1Link):
    """One connection, which is the client's end of its exchanges as well."""

    def __init__(
        self, way: HttpWay, transport: Transport, next_round: Callable[[Callable[[], None]], None]
    ) -> None:
        super().__init__(way, transport, next_round)
        self._method = b""
        self._has_body = False
        self._chunked = False
        self._bodyless = False
        self._last_fields: Fields = NOTHING
        self._last: Request | None = None
        way.live.add(self)

    # Time.

    def look(self, now: float) -> None:
        """Time has passed: whether something was waited for too long."""
        patience = self._way.patience
        exchange, quiet = self._exchange, now - self._since
        if self._over:
            if quiet > LINGER_SECONDS:
                self._way.live.discard(self)
                self._transport.abort(Unreachable("the client does not close"))
        elif exchange is not None:
            if now - max(exchange.active, self._since) > patience.idle_seconds and exchange.stalls:
                self._closing = True
                self._way.refused(IDLE.details)
                exchange.reply(IDLE)
        elif self._reader.begun:
            if quiet > patience.head_seconds:
                self._refuse(SLOW_HEAD)
        elif quiet > patience.client_idle_seconds:
            self._close()

    def drain(self) -> None:
        """Take no further request; end when the one under way is answered."""
        self._closing = True
        if self._exchange is None and not self._reader.begun:
            self._close()

    # The requests.

    def on_head(self, untrusted: Fields, frame: Frame) -> None:
        self._since = self._way.now
        self._method, self._has_body = untrusted[0][1], frame.has_body
        self._closing = self._closing or frame.close
        try:
            request = self._way.admit(complete(self._parsed(untrusted, frame), self._way.new_id))
        except Refused as refused:
            self._closing = True
            self._way.refused(refused.reply.details)
            host = next((value for name, value in untrusted if name == b"host"), b"")
            told = Request(untrusted[0][1], host, untrusted[1][1], list(untrusted[2:]))
            self._begin(told).reply(refused.reply)
            return
        exchange = self._begin(request)
        exchange.start(not frame.has_body and not request.upgrade)
        if frame.expects and not exchange.over:  # else nobody wants what it would send
            self._transport.write(_CONTINUE)

    def _parsed(self, untrusted: Fields, frame: Frame) -> Request:
        """The request that a head is. The reader has the same object for a head that is the same as the last:
        that is not parsed again. Raises Refused."""
        known = self._last
        if known is None or untrusted is not self._last_fields:
            known = self._last = parse_request(untrusted, frame.upgrade)
            self._last_fields = untrusted
        return known.copy()

    def _begin(self, request: Request) -> Exchange:
        exchange = self._exchange = Exchange(self._way, self, request)
        return exchange

    def on_body(self, payload: memoryview) -> None:
        self._body_bytes += len(payload)
        if self._exchange is None:
            self._transport.taken(len(payload))
        else:
            self._exchange.body(payload)

    def on_end(self, trailers: Fields) -> None:
        exchange = self._exchange
        if exchange is None:
            return
        if self._has_body:
            exchange.end(trailers)
        if exchange.over:
            self._answered()

    # The exchange's side.

    def respond(self, fields: Fields, end: bool) -> None:
        status, kept = fields[0][1], list(fields[1:])
        self._bodyless = self._method == b"HEAD" or status in _NO_BODY
        self._chunked = False
        if status == _SWITCHING:
            kept += [(b"connection", b"upgrade"), (b"upgrade", b"websocket")]
            self._switched = True
        elif not self._bodyless and not any(name == b"content-length" for name, _ in kept):
            self._chunked = not end
            kept.append((b"content-length", b"0") if end else (b"transfer-encoding", b"chunked"))
        if self._has_body and self._reader.state is not State.END:
            self._closing = True  # it is answered before it has been read
        if self._closing and not self._switched:
            kept.append((b"connection", b"close"))
        self._transport.write(push_response_head(status, kept))
        if end:
            self._answered()
        elif self._switched:
            self._next_round(self._read_on)

    def inform(self, fields: Fields) -> None:
        self._transport.write(push_response_head(fields[0][1], list(fields[1:])))

    def send(self, payload: memoryview) -> None:
        if self._bodyless or not len(payload):
            return
        if not self._chunked:
            self._transport.write(payload)
        else:
            for part in push_chunk(payload):
                self._transport.write(part)

    def finish(self, trailers: Fields) -> None:
        if self._switched:
            self._closing = True
        elif self._chunked:
            self._transport.write(push_last_chunk(trailers))
        self._answered()

    def reset(self) -> None:
        self._exchange = None
        self._drop()

    def taken(self, count: int) -> None:
        self._transport.taken(count)

    def unsent(self) -> int:
        return self._transport.unsent_bytes

    # The end of one.

    def _answered(self) -> None:
        """The response is whole: the next request, or the end."""
        if self._over:
            return
        if self._closing:
            self._exchange = None
            self._close()
        elif self._reader.state is State.END:
            self._exchange = None
            self._since = self._way.now
            self._reader.next()
            if len(self._ahead) and not self._reading:
                self._next_round(self._read_on)
            elif self._peer_ended and not len(self._ahead):
                self._close()

    def _refuse(self, reply: Reply) -> None:
        """Nothing more of the connection is believed."""
        self._way.refused(reply.details)
        self._reader.stop()
        self._drop_ahead()
        self._closing = True
        exchange = self._exchange
        if exchange is None:
            self._method, self._has_body = b"", False
            exchange = self._begin(Request(b"", b"", b"", []))
        if exchange.over:
            self._close()
        else:
            exchange.reply(reply)
