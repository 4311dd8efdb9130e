"""A server's connection that speaks HTTP/1.1: one exchange at a time, and between two of them it is spare."""

from __future__ import annotations

from typing import Protocol

from ztunnel.errors import ConnectionFailed, PeerError, Unreachable
from ztunnel.flow.transport import Transport
from ztunnel.http1.ahead import Ahead
from ztunnel.http1.framing import Frame
from ztunnel.http1.head import Fields, push_request_head
from ztunnel.http1.reader import ResponseReader, State
from ztunnel.l7.reply import TERMINATED, UPSTREAM_PROTOCOL_ERROR, Reply
from ztunnel.l7.request import Request
from ztunnel.waypoint.exchange import Exchange
from ztunnel.waypoint.way import Clock

_WITH_BODY = frozenset((b"POST", b"PUT", b"PATCH"))
_JOINED_BYTES = 4096


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
        self._upgrade = False
        self._over = False
        self._peer_ended = False
        self.host = host
        self.reused = False
        self.idle_since = clock.now

    def carry(self, exchange: Exchange) -> None:
        """Carry this one."""
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
        size = len(payload)
        if not size:
            return
        if not self._chunked:
            self._transport.write(payload)
        elif size < _JOINED_BYTES:
            self._transport.write(b"%x\r\n%b\r\n" % (size, bytes(payload)))
        else:
            self._transport.write(b"%x\r\n" % size)
            self._transport.write(payload)
            self._transport.write(b"\r\n")

    def finish(self, trailers: Fields) -> None:
        self._sent = True
        if self._switched:
            self._transport.finish()
        elif self._chunked:
            lines = [b"%b: %b\r\n" % field for field in trailers]
            self._transport.write(b"0\r\n%b\r\n" % b"".join(lines))

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
        if self._switched and self._exchange is not None:
            self._exchange.payload(untrusted)
        elif self._exchange is None:
            self.close("the server sent what nobody had asked for")
        elif len(self._ahead):
            self._ahead.append(untrusted)
        else:
            self._read(untrusted)

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
            if self._exchange is exchange:
                self._fail(TERMINATED)

    def writable(self) -> None:
        if self._exchange is not None:
            self._exchange.up_writable()

    def lost(self, error: ConnectionFailed | None) -> None:
        self._fail(TERMINATED, str(error) if error else "")

    # Reading.

    def _read(self, untrusted: memoryview) -> None:
        self._body_bytes = 0
        try:
            taken = self._reader.read(untrusted)
        except PeerError as error:
            self._fail(UPSTREAM_PROTOCOL_ERROR, str(error))
            return
        if self._over:
            return
        self._transport.taken(taken - self._body_bytes)
        rest = untrusted[taken:]
        if not len(rest):
            return
        if self._switched and self._exchange is not None:
            self._exchange.payload(rest)
        elif self._exchange is None or self._reader.state is State.END:
            self._fail(UPSTREAM_PROTOCOL_ERROR, "more than a response")
        else:
            self._ahead.append(rest)
            self._clock.next_round(self._read_on)

    def _read_on(self) -> None:
        rest = bytearray()
        while len(self._ahead):
            rest += self._ahead.take()
        if rest and not self._over:
            self._read(memoryview(bytes(rest)))
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
            if not self._upgrade:
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
        if exchange is not None and frame is not None and frame.has_body:
            exchange.whole(trailers)
        if self._over:
            return
        if not self._sent or frame is None or frame.close or self._upgrade:
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
