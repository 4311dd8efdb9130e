"""A server's connection that speaks HTTP/1.1: one exchange at a time, and between two of them it is spare."""

from __future__ import annotations

from typing import Final, Protocol

from ztunnel.errors import ConnectionFailed, PeerError, Unreachable
from ztunnel.flow.transport import Transport
from ztunnel.http1.ahead import Ahead
from ztunnel.http1.framing import Frame, push_chunk, push_last_chunk
from ztunnel.http1.head import Fields, push_request_head
from ztunnel.http1.reader import ResponseReader, State
from ztunnel.l7.reply import TERMINATED, UPSTREAM_PROTOCOL_ERROR, Reply
from ztunnel.l7.request import WEBSOCKET, Request
from ztunnel.waypoint.exchange.exchange import Exchange
from ztunnel.waypoint.way import Clock

_AHEAD_SECONDS: Final = 1.0
"""A server is expected to close a spare connection so long before the time that it names, as by undici; or at
half of it, where that is short."""

_WITH_BODY: Final = frozenset((b"POST", b"PUT", b"PATCH"))


class Owner(Protocol):
    """Whose connection it is."""

    def spare(self, connection: Http1Client) -> None:
        """It can carry another request."""

    def gone(self, connection: Http1Client) -> None:
        """It carries no more."""


class Http1Client:
    """One connection: a receiver of its transport and of its reader, and the server's end of its exchanges.

    Attributes:
        host: the server, as the log has it.
        reused: whether it has carried a request before the one that it carries.
        idle_since: monotonic seconds; when it became spare.
        born: monotonic seconds.
        carried: how many requests it has had.
    """

    def __init__(self, owner: Owner, clock: Clock, transport: Transport, host: str) -> None:
        self._owner = owner
        self._clock = clock
        self._transport = transport
        self._reader = ResponseReader(self)
        self._ahead = Ahead()
        self._exchange: Exchange | None = None
        self._body_bytes = 0
        self._frame: Frame | None = None
        self._interim = False
        self._sent = False
        self._chunked = False
        self._switched = False
        self._whole = False
        self._upgrade = False
        self._over = False
        self._peer_ended = False
        self.host = host
        self.reused = False
        self.idle_since = self.born = clock.now
        self.carried = 0

    @property
    def leaving(self) -> bool:
        """Whether what carries it ends soon."""
        return self._transport.leaving

    def is_late(self, now: float) -> bool:
        """Whether the server may be about to close it, as it is spare for as long as that keeps it: a request
        that crosses the end is lost (envoyproxy/envoy#28105)."""
        kept = self._frame.kept_seconds if self._frame is not None else -1
        return kept >= 0 and now - self.idle_since > max(kept - _AHEAD_SECONDS, kept / 2)

    def carry(self, exchange: Exchange) -> None:
        """Carry this one."""
        self.carried += 1
        self._exchange = exchange
        exchange.connected(self)

    # The exchange's side.

    def ask(self, request: Request, end: bool) -> None:
        fields = [(b"host", request.authority)]
        fields += [field for field in request.fields if field[0] != b"te"]
        self._upgrade = bool(request.upgrade)
        self._chunked = False
        if self._upgrade:
            fields += [(b"connection", b"upgrade"), (b"upgrade", request.upgrade)]
        elif request.length < 0 and not end:
            self._chunked = True
            fields.append((b"transfer-encoding", b"chunked"))
        elif request.length < 0 and request.method in _WITH_BODY:
            fields.append((b"content-length", b"0"))
        self._reader.next()
        self._reader.asked = request.method
        self._sent = end
        self._transport.write(push_request_head(request.method, request.path, fields))

    def send(self, payload: memoryview) -> None:
        if not len(payload):
            return
        if not self._chunked:
            self._transport.write(payload)
        else:
            for part in push_chunk(payload):
                self._transport.write(part)

    def finish(self, trailers: Fields) -> None:
        self._sent = True
        if self._switched:
            self._transport.finish()
        elif self._chunked:
            self._transport.write(push_last_chunk(trailers))

    def cancel(self) -> None:
        self._exchange = None
        self.close("the request was given up")

    def taken(self, count: int) -> None:
        self._transport.taken(count)

    def unsent(self) -> int:
        return self._transport.unsent_bytes

    def close(self, why: str) -> None:
        """It carries no more."""
        if not self._over:
            self._leave()
            self._transport.abort(Unreachable(why))

    # The transport's side.

    def received(self, untrusted: memoryview) -> None:
        if self._over:
            return
        if len(self._ahead):
            self._ahead.append(untrusted)
        else:
            taken = self._read(untrusted)
            if taken < len(untrusted):
                self._ahead.append(untrusted[taken:])

    def ended(self) -> None:
        if self._over:
            return
        exchange = self._exchange
        if exchange is None:
            self.close("the server has closed it")
            return
        if self._switched:
            exchange.whole(())
            self.close("the server has closed it")
            return
        if len(self._ahead):
            self._peer_ended = True  # what is read of it then says whether it was all
            return
        try:
            self._reader.ended()
        except PeerError:
            self._fail(TERMINATED)
        else:
            if self._whole:
                self._settle(False)
            elif self._exchange is exchange:
                self._fail(TERMINATED)

    def writable(self) -> None:
        if self._exchange is not None:
            self._exchange.up_writable()

    def lost(self, error: ConnectionFailed | None) -> None:
        self._fail(TERMINATED, str(error) if error else "")

    # Reading.

    def _read(self, untrusted: memoryview) -> int:
        """Returns how much was read; the rest waits. Once it is over, nothing does."""
        size = len(untrusted)
        if self._exchange is None:
            self.close("the server sent what nobody had asked for")
            return size
        if self._switched:
            self._exchange.payload(untrusted)
            return size
        self._body_bytes = 0
        try:
            taken = self._reader.read(untrusted)
        except PeerError as error:
            self._fail(UPSTREAM_PROTOCOL_ERROR, str(error))
            return size
        if self._over:
            return size
        self._transport.taken(taken - self._body_bytes)
        if self._whole:
            self._settle(taken < size or len(self._ahead) > 0)
        elif taken < size and self._reader.state is State.END:
            return taken + self._read(untrusted[taken:])  # switched
        elif taken < size:
            self._clock.next_round(self._read_on)
            return taken
        return size

    def _read_on(self) -> None:
        self._ahead.read(self._read)
        if self._peer_ended and not len(self._ahead):
            self.ended()

    def on_head(self, untrusted: Fields, frame: Frame) -> None:
        exchange = self._exchange
        status = untrusted[0][1]
        self._frame = frame
        self._interim = status.startswith(b"1") and status != b"101"
        if exchange is None:
            return
        if status == b"101":
            if not self._upgrade or frame.upgrade not in (b"", WEBSOCKET):
                raise PeerError("a switch that nobody asked for")
            self._switched = True
            exchange.responded(untrusted, False)
        elif not self._interim:
            exchange.responded(untrusted, not frame.has_body)
        elif status != b"100":  # we have said so ourselves
            exchange.informed(untrusted)

    def on_body(self, payload: memoryview) -> None:
        self._body_bytes += len(payload)
        if self._exchange is None:
            self._transport.taken(len(payload))
        else:
            self._exchange.payload(payload)

    def on_end(self, trailers: Fields) -> None:
        if self._interim:
            self._reader.next()
            return
        if self._switched:
            return
        exchange, frame, self._exchange = self._exchange, self._frame, None
        self._whole = True
        if exchange is not None and frame is not None and frame.has_body:
            exchange.whole(trailers)

    def _settle(self, more: bool) -> None:
        """The response is whole. With `more` behind it nobody else's request goes this way: what nobody had
        asked for would be taken for the answer."""
        frame, self._whole = self._frame, False
        if self._over:
            return
        if more or not self._sent or frame is None or frame.close or self._upgrade:
            self.close("the connection ends with the response")
            return
        self.reused = True
        self.idle_since = self._clock.now
        self._owner.spare(self)

    # The end.

    def _fail(self, reply: Reply, reason: str = "") -> None:
        exchange, self._exchange = self._exchange, None
        self.close(reply.details)
        if exchange is not None:
            exchange.failed(reply, reason)

    def _leave(self) -> None:
        if not self._over:
            self._over = True
            self._reader.stop()
            self._ahead.clear()
            self._owner.gone(self)
