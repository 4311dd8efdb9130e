"""A client's connection that speaks HTTP/1.1: one request after the other, each answered before the next.

What a client sends ahead of its turn stays unread, so that it is the client's buffers that fill. After a
request that is refused for how it is written, nothing of the connection is believed any more: it is answered
and closed.

```
reading ── head ──> exchange ── both are whole ──> reading
   │                   └── 101 ──> switched: bytes both ways
   └── refused, `close`, drained ──> answered ──> lingering until the client has closed
```
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ztunnel.errors import ConnectionFailed, PeerError, Unreachable
from ztunnel.flow.transport import Transport
from ztunnel.http1.ahead import Ahead
from ztunnel.http1.framing import Frame, push_chunk, push_last_chunk
from ztunnel.http1.head import Fields, push_response_head
from ztunnel.http1.reader import NOTHING, RequestReader, State
from ztunnel.l7.reply import IDLE, SLOW_HEAD, Refused, Reply, of_codec
from ztunnel.l7.request import Request, complete, parse_request
from ztunnel.waypoint.exchange.exchange import Exchange
from ztunnel.waypoint.way import HttpWay

LINGER_SECONDS: Final = 5.0
"""For a client that has had its last answer to close its side."""

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_SWITCHING: Final = b"101"
_NO_BODY: Final = frozenset((b"204", b"304"))


class Http1Server:
    """One connection: a receiver of its transport, of its reader, and the client's end of its exchanges.

    Args:
        next_round: has something called in the engine's next round.
    """

    def __init__(
        self, way: HttpWay, transport: Transport, next_round: Callable[[Callable[[], None]], None]
    ) -> None:
        self._way = way
        self._transport = transport
        self._next_round = next_round
        self._reader = RequestReader(self)
        self._ahead = Ahead()
        self._exchange: Exchange | None = None
        self._since = way.now
        self._method = b""
        self._has_body = False
        self._body_bytes = 0
        self._closing = False
        self._chunked = False
        self._bodyless = False
        self._over = False
        self._peer_ended = False
        self._reading = False
        self._switched = False
        self._last_fields: Fields = NOTHING
        self._last: Request | None = None
        way.live.add(self)

    # The transport's side.

    def received(self, untrusted: memoryview) -> None:
        if self._over:
            self._transport.taken(len(untrusted))
        elif len(self._ahead):
            self._ahead.append(untrusted)
        else:
            taken = self._read(untrusted)
            if taken < len(untrusted):
                self._ahead.append(untrusted[taken:])

    def ended(self) -> None:
        self._peer_ended = True
        if self._over:
            self._way.live.discard(self)
        elif self._exchange is None:
            if not len(self._ahead):
                self._end_of_input()
        elif self._switched:
            self._exchange.end(())
        else:
            self._go()

    def writable(self) -> None:
        if self._exchange is not None:
            self._exchange.down_writable()

    def lost(self, error: ConnectionFailed | None) -> None:
        self._leave()
        self._way.live.discard(self)
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.gone()

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

    # Reading.

    def _read(self, untrusted: memoryview) -> int:
        """Returns how much was read; the rest waits. Once it is over, nothing does."""
        size = len(untrusted)
        if self._switched:
            if self._exchange is not None:
                self._exchange.body(untrusted)
            return size
        begun = self._reader.begun
        self._reading, self._body_bytes = True, 0
        try:
            taken = self._reader.read(untrusted)
        except PeerError as error:
            self._transport.taken(size - self._body_bytes)
            self._refuse(of_codec(error.reply))
            return size
        finally:
            self._reading = False
        if self._over:
            self._transport.taken(size - self._body_bytes)
            return size
        self._transport.taken(taken - self._body_bytes)
        if not begun and self._exchange is None:
            self._since = self._way.now
        if taken < size and self._reader.state is not State.END:
            self._next_round(self._read_on)
        return taken

    def _read_on(self) -> None:
        """Read what has come ahead."""
        self._ahead.read(self._read)
        if self._peer_ended and not len(self._ahead) and not self._over:
            self.ended()

    def _end_of_input(self) -> None:
        """The client has said all that it will."""
        try:
            self._reader.ended()
        except PeerError as error:
            self._refuse(of_codec(error.reply))
            return
        self._closing = True
        self._close()

    def _go(self) -> None:
        """The client has closed its side while it waits for an answer. It may be that it closes the other one
        as well, or that it still reads: Envoy takes it to have gone (its connections of HTTP know no half),
        and so do we, so that nothing is carried on for nobody."""
        self._leave()
        self._way.live.discard(self)
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.gone()
        self._transport.finish()

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
        if frame.expects:
            self._transport.write(_CONTINUE)
        self._begin(request).start(not frame.has_body and not request.upgrade)

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

    # The end of one, and of all.

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

    def _close(self) -> None:
        """All has been said."""
        if not self._over:
            self._leave()
            self._transport.finish()
            if self._peer_ended:
                self._way.live.discard(self)

    def _drop(self) -> None:
        """It cannot go on, and the client is to notice."""
        self._leave()
        self._way.live.discard(self)
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.gone()
        self._transport.abort(Unreachable("the response was cut off"))

    def _drop_ahead(self) -> None:
        lost = self._ahead.clear()
        if lost:
            self._transport.taken(lost)

    def _leave(self) -> None:
        if not self._over:
            self._over = True
            self._since = self._way.now
            self._reader.stop()
            self._drop_ahead()
