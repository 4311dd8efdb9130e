"""A client's connection that speaks HTTP/2: each stream is an exchange."""

from __future__ import annotations

from typing import Final

from ztunnel.errors import ConnectionFailed, Unreachable
from ztunnel.flow.transport import Transport
from ztunnel.http1.head import Fields
from ztunnel.http2.fields import push_fields
from ztunnel.http2.frame import MAX_STREAM_ID, Code, push_goaway, push_reset
from ztunnel.http2.limits import Role
from ztunnel.http2.repeats import Repeats
from ztunnel.http2.standing import Standing
from ztunnel.http2.stream import Stream
from ztunnel.l7.reply import FIELDS_TOO_LARGE, IDLE, MALFORMED, SLOW_HEAD, Refused, Reply
from ztunnel.l7.request import Request, complete, parse_stream
from ztunnel.waypoint.exchange.exchange import Exchange
from ztunnel.waypoint.link2 import Http2Link, HttpStream
from ztunnel.waypoint.way import HttpWay

LINGER_SECONDS: Final = 5.0
"""For a client that has had its goodbye to close its side."""

_NOTICE_SECONDS: Final = 1.0
_ANSWER_SECONDS: Final = 0.5
"""For a client to read an answer that came before it had said all."""

_STOPS_AT: Final = 300
"""The first status at which curl sends no more of a body."""

_CONTINUE: Final = push_fields([(b":status", b"100")])


class ServerStream(HttpStream):
    """One request: the client's end of its exchange."""

    __slots__ = ("_left", "_server", "exchange", "headers")

    def __init__(self, server: Http2Server, untrusted: Fields) -> None:
        super().__init__(server)
        self._server = server
        self._left = -1
        self.headers = untrusted
        self.exchange: Exchange | None = None

    def begin(self, way: HttpWay) -> None:
        """The stream is open: look at what it asks for."""
        untrusted, self.headers = self.headers, ()
        if self.oversized:
            self._refuse(way, untrusted, FIELDS_TOO_LARGE)
            return
        try:
            request = way.admit(complete(self._server.read(untrusted, self.repeated), way.new_id))
        except Refused as refused:
            self._refuse(way, untrusted, refused.reply)
            return
        if request.length > 0 and self.remote_closed:
            self._refuse(way, untrusted, MALFORMED)
            return
        self._left = request.length
        exchange = self.exchange = Exchange(way, self, request)
        exchange.start(self.remote_closed)
        if any(name == b"expect" for name, _ in untrusted) and not exchange.over:
            self._server.h2.inform(self, _CONTINUE)

    def _refuse(self, way: HttpWay, untrusted: Fields, reply: Reply) -> None:
        """It goes nowhere; what is known of it is logged."""
        way.refused(reply.details)
        known = dict(untrusted)
        said = [field for field in untrusted if not field[0].startswith(b":")]
        method, host = known.get(b":method", b""), known.get(b":authority", b"")
        self.exchange = Exchange(way, self, Request(method, host, known.get(b":path", b""), said))
        self.exchange.reply(reply)

    # What the peer does.

    def on_data(self, payload: memoryview) -> None:
        exchange, count = self.exchange, len(payload)
        if self._left >= 0:
            self._left -= count
            if self._left < 0:
                self._malformed()
                return
        if exchange is None or exchange.over:
            self.taken(count)
        else:
            exchange.body(payload)

    def on_trailers(self, untrusted: Fields) -> None:
        self.headers = untrusted

    def on_end(self) -> None:
        exchange = self.exchange
        if exchange is None:
            return
        if exchange.over:
            self._server.stop(self)
        elif self.is_short:
            if exchange.status < _STOPS_AT:
                self._malformed()
        else:
            trailers, self.headers = self.headers, ()
            exchange.end(trailers)

    @property
    def is_short(self) -> bool:
        """Whether the client has ended its body before it was as long as it said. It may that, when an error
        is being answered: curl stops so, and reads the rest of that."""
        return self.remote_closed and self._left > 0

    def on_reset(self, code: int) -> None:
        self.lost("the client has reset it", False)

    def on_error(self, code: int) -> None:
        self._drop()
        self._server.refused(MALFORMED.details)
        if self.exchange is not None:
            self.exchange.reply(MALFORMED)

    def lost(self, reason: str, broken: bool) -> None:
        self._drop()
        if self.exchange is not None:
            self.exchange.gone()

    def drained(self) -> None:
        if self.exchange is not None:
            self.exchange.down_writable()

    def _malformed(self) -> None:
        """A body that is not as long as it said (RFC 9113 section 8.1.1)."""
        exchange = self.exchange
        self._server.refused(MALFORMED.details)
        self.give_up(Code.PROTOCOL_ERROR)
        if exchange is not None:
            exchange.reply(MALFORMED)

    # What the exchange does.

    def respond(self, fields: Fields, end: bool) -> None:
        if self.closed:
            return
        if not end:
            self._server.h2.answer(self, push_fields(fields))
            return
        self.answered = True
        self._server.h2.trail(self, push_fields(fields))
        self._rest_is_unwanted()

    def inform(self, fields: Fields) -> None:
        if not self.closed:
            self._server.h2.inform(self, push_fields(fields))

    def send(self, payload: memoryview) -> None:
        self.put(payload)

    def finish(self, trailers: Fields) -> None:
        self.complete(trailers)

    def reset(self) -> None:
        self.give_up(Code.INTERNAL_ERROR)

    def taken(self, count: int) -> None:
        if self.local_closed:
            self._server.h2.discard(count)
        else:
            self._server.h2.take(self, count)

    def _complete(self) -> None:
        super()._complete()
        self._rest_is_unwanted()

    def _rest_is_unwanted(self) -> None:
        """It was answered before all of it had come: the client may send what the window still allows, and
        is told to stop in a moment (RFC 9113 section 8.1). At once, curl 7 does not read the answer."""
        if not self.remote_closed and not self.closed:
            self._server.unwanted[self] = self._server.now


class Http2Server(Http2Link):
    """One connection.

    Attributes:
        unwanted: streams that were answered before all of them had come, since when (monotonic seconds).
    """

    def __init__(self, way: HttpWay, transport: Transport, standing: Standing | None = None) -> None:
        self._way = way
        self._since = way.now
        self._draining_since = 0.0
        self.unwanted: dict[ServerStream, float] = {}
        self._known: Repeats[Request] = Repeats()
        super().__init__(way.clock, transport, Role.SERVER, standing)
        way.live.add(self)

    def read(self, untrusted: Fields, repeated: bool) -> Request:
        """The request that these fields are; where they are `repeated` they are not parsed a third time.

        Raises:
            Refused: they are none.
        """
        if not repeated:
            return parse_stream(untrusted)
        known = self._known.get(untrusted)
        if known is None:
            known = self._known.keep(untrusted, parse_stream(untrusted))
        return known.copy()

    def admits(self) -> bool:
        return not self.over

    def on_request(self, untrusted: Fields) -> Stream:
        return ServerStream(self, untrusted)

    def on_opened(self, stream: Stream) -> None:
        assert isinstance(stream, ServerStream)
        stream.started = True
        self._since = self._way.now
        stream.begin(self._way)

    def received(self, untrusted: memoryview) -> None:
        before = self.h2.malformed
        super().received(untrusted)
        for _ in range(self.h2.malformed - before):
            self.refused(MALFORMED.details)

    @property
    def now(self) -> float:
        """Monotonic seconds."""
        return self._way.now

    def stop(self, stream: ServerStream) -> None:
        """A client has ended a request that was answered before: it is told what it was to be told in a
        moment. Of a stream that both sides have ended that is to be ignored (RFC 9113 section 5.1), but curl
        7 sees only then that it is over (curl/curl#15316)."""
        if self.unwanted.pop(stream, None) is not None:
            self.push(push_reset(stream.stream_id, Code.NO_ERROR))

    def refused(self, reason: str) -> None:
        """Something was, for how it was written."""
        self._way.refused(reason)

    def look(self, now: float) -> None:
        """Time has passed: whether something was waited for too long."""
        if self.over:
            if now - self._since > LINGER_SECONDS:
                self._way.live.discard(self)
                self._transport.abort(Unreachable("the client does not close"))
            return
        unfinished = self.h2.unfinished_since
        if unfinished and now - unfinished > self._way.patience.head_seconds:
            self.refused(SLOW_HEAD.details)
            self._end(Code.ENHANCE_YOUR_CALM, "a frame or a header block that does not end")
            return
        draining = self._draining_since and now - self._draining_since > _NOTICE_SECONDS
        if draining:
            self.push(push_goaway(self.h2.refuse_streams(), Code.NO_ERROR))
        self._look_at_streams(now)
        idle = now - self._since > self._way.patience.client_idle_seconds
        if not self.h2.streams and (draining or idle):
            self._end(Code.NO_ERROR, "idle")

    def _look_at_streams(self, now: float) -> None:
        for each, since in tuple(self.unwanted.items()):
            if each.closed or now - since > _ANSWER_SECONDS:
                del self.unwanted[each]
                self.h2.reset(each, Code.NO_ERROR)
        patience = self._way.patience.idle_seconds
        for stream in list(self.h2.streams.values()):
            if not isinstance(stream, ServerStream):
                continue
            exchange = stream.exchange
            if exchange is not None and now - exchange.active > patience:
                if exchange.over:
                    self.h2.reset(stream, Code.CANCEL)
                elif exchange.stalls or stream.is_short:
                    self.refused(IDLE.details)
                    exchange.reply(IDLE)
                    self._since = now

    def drain(self) -> None:
        """Take no further request; end when those under way are answered. The client is told before the last
        that is taken is named, so that none under way is lost (RFC 9113 section 6.8)."""
        if not self._draining_since and not self.over:
            self._draining_since = self._way.now
            self.push(push_goaway(MAX_STREAM_ID, Code.NO_ERROR))

    def ended(self) -> None:
        super().ended()
        self._way.live.discard(self)

    def lost(self, error: ConnectionFailed | None) -> None:
        super().lost(error)
        self._way.live.discard(self)

    def left(self, reason: str) -> None:
        self._since = self._way.now
