"""A server's connection that speaks HTTP/2, shared by as many exchanges as the server takes."""

from __future__ import annotations

from typing import Any, Final, Protocol

from ztunnel.errors import PeerError, Unreachable
from ztunnel.flow.transport import Transport
from ztunnel.http1.head import Fields
from ztunnel.http2.fields import push_fields
from ztunnel.http2.frame import Code, push_ping
from ztunnel.http2.limits import Role
from ztunnel.http2.repeats import Repeats
from ztunnel.l7.reply import REMOTE_RESET, TERMINATED, UPSTREAM_PROTOCOL_ERROR, Reply
from ztunnel.l7.request import Request
from ztunnel.l7.response import check_interim, length_of, said_length
from ztunnel.model.traffic import Pings
from ztunnel.waypoint.exchange.deadlines import Timer
from ztunnel.waypoint.exchange.exchange import Exchange
from ztunnel.waypoint.link2 import Http2Link, HttpStream
from ztunnel.waypoint.way import Clock

_HTTP1: Final = b"HTTP/1."
_PING: Final = b"http2 up"


class Owner(Protocol):
    """Whose connection it is."""

    def waits_for(self, connection: Http2Client) -> bool:
        """Whether `room` is to be called when a request of it has ended."""

    def room(self, connection: Http2Client) -> None:
        """It takes another request."""

    def left(self, connection: Http2Client) -> None:
        """It takes no more."""


class ClientStream(HttpStream):
    """One request: the server's end of its exchange."""

    __slots__ = ("_client", "_exchange", "_left", "_trailing", "host", "reused")

    def __init__(self, client: Http2Client, exchange: Exchange) -> None:
        super().__init__(client)
        self._client = client
        self._exchange: Exchange | None = exchange
        self._trailing: Fields = ()
        self._left = -1
        self.host = client.host
        self.reused = client.reused

    # What the exchange does.

    def ask(self, request: Request, end: bool) -> None:
        fields = request.as_fields()
        if self._client.secure:
            fields = (fields[0], (b":scheme", b"https"), *fields[2:])
        self._client.h2.open(self, push_fields(fields), end)

    def send(self, payload: memoryview) -> None:
        self.put(payload)

    def finish(self, trailers: Fields) -> None:
        self.complete(trailers)

    def cancel(self) -> None:
        self._exchange = None
        if self.stream_id:
            self.give_up(Code.CANCEL)
        self._client.freed()

    def taken(self, count: int) -> None:
        self._client.h2.take(self, count)

    # What the peer does.

    def on_informational(self, untrusted: Fields) -> None:
        if self._exchange is None:
            return
        try:
            check_interim(untrusted)
        except PeerError as error:
            self._break(str(error))
            return
        if untrusted[0][1] != b"100":  # we have said so ourselves
            self._exchange.informed(untrusted)

    def on_answer(self, untrusted: Fields, end: bool) -> None:
        exchange = self._exchange
        if exchange is None:
            return
        try:
            self._left = self._client.check(untrusted, exchange.request.method, end, self.repeated)
        except PeerError as error:
            self._break(str(error))
            return
        if end:
            self._exchange = None
        exchange.responded(untrusted, end)
        if end:
            self._done()

    def on_data(self, payload: memoryview) -> None:
        count = len(payload)
        if self._exchange is None:
            self._client.h2.take(self, count)
            return
        if not self.answered:
            self._break("a body before its response")
            return
        if self._left >= 0:
            self._left -= count
            if self._left < 0:
                self._break("a response that is longer than it says")
                return
        self._exchange.payload(payload)

    def on_trailers(self, untrusted: Fields) -> None:
        self._trailing = untrusted

    def on_end(self) -> None:
        if self._exchange is not None and (self._left > 0 or not self.answered):
            self._break("a response that is shorter than it says")
            return
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.whole(self._trailing)
            self._done()

    def on_reset(self, code: int) -> None:
        self._fail(REMOTE_RESET, "", code == Code.REFUSED_STREAM)

    def on_error(self, code: int) -> None:
        self._fail(UPSTREAM_PROTOCOL_ERROR, "the server broke the rules of HTTP/2")

    def _break(self, reason: str) -> None:
        """What the server says is not to be passed on."""
        self._client.h2.reset(self, Code.PROTOCOL_ERROR)
        self._fail(UPSTREAM_PROTOCOL_ERROR, reason)

    def _fail(self, reply: Reply, reason: str, unsent: bool = False) -> None:
        exchange, self._exchange = self._exchange, None
        self._drop()
        self._client.freed()
        if exchange is not None:
            exchange.failed(reply, reason, unsent)

    def lost(self, reason: str, broken: bool) -> None:
        self._drop()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.failed(UPSTREAM_PROTOCOL_ERROR if broken else TERMINATED, reason)

    def drained(self) -> None:
        if self._exchange is not None:
            self._exchange.up_writable()

    def _done(self) -> None:
        """The response is whole; where the request is not, the server does not want the rest."""
        if not self.closed:
            self.give_up(Code.NO_ERROR if self.answered else Code.CANCEL)
        self._client.freed()


class Http2Client(Http2Link):
    """One connection.

    Attributes:
        key: its owner's.
        host: the server, as the log has it.
        reused: whether it has carried a request before.
        idle_since: monotonic seconds since it has no request; None while it has some.
        born: monotonic seconds.
        carried: how many requests it has had.
        secure: whether it is over TLS of the server's own.
    """

    def __init__(self, owner: Owner, clock: Clock, transport: Transport, key: object, host: str) -> None:
        self._owner = owner
        self.key: Any = key
        self.host = host
        self.reused = False
        self.idle_since: float | None = clock.now
        self.born = clock.now
        self.carried = 0
        self.secure = False
        self._tells = False
        self._pings: Pings | None = None
        self._timer: Timer | None = None
        self._lengths: Repeats[int] = Repeats()
        super().__init__(clock, transport, Role.CLIENT)

    def received(self, untrusted: memoryview) -> None:
        if not self.h2.settled and not self.over and bytes(untrusted[: len(_HTTP1)]) == _HTTP1:
            self._transport.taken(len(untrusted))
            self._end(Code.PROTOCOL_ERROR, "the server speaks HTTP/1.1, and its port says HTTP/2")
            return
        super().received(untrusted)

    def check(self, untrusted: Fields, method: bytes, end: bool, repeated: bool) -> int:
        """The length of the body of a response (`length_of`); where it is `repeated`, what it says is not
        looked through a third time. Raises PeerError."""
        said = self._lengths.get(untrusted) if repeated else None
        if said is None:
            said = said_length(untrusted)
            if repeated:
                self._lengths.keep(untrusted, said)
        return length_of(untrusted[0][1], said, method, end)

    @property
    def under_way(self) -> int:
        """Requests that it has."""
        return len(self.h2.streams)

    @property
    def leaving(self) -> bool:
        """Whether what carries it ends soon."""
        return self._transport.leaving

    def retire(self) -> None:
        """It takes no more requests."""
        self.h2.refuse_streams()

    @property
    def settled(self) -> bool:
        """Whether its server has said how many requests it takes at once."""
        return self.h2.settled

    def can_take(self) -> bool:
        """Whether it takes one more request now. Before its server has spoken that is one: what is more than
        it takes is refused, and tried again on connections of which no more is known."""
        return not self.over and self.h2.can_open and (self.h2.settled or not self.h2.streams)

    def carry(self, exchange: Exchange) -> None:
        """Carry this one as well."""
        self.carried += 1
        self.idle_since = None
        exchange.may_be_refused()
        exchange.connected(ClientStream(self, exchange))
        self.reused = True

    def freed(self) -> None:
        """A request has ended."""
        if not self.h2.streams:
            self.idle_since = self._clock.now
        if not self.over and not self._tells and self._owner.waits_for(self):
            self._tells = True
            self._clock.next_round(self._tell)

    def _tell(self) -> None:
        self._tells = False
        if not self.over:
            self._owner.room(self)

    def on_settings(self) -> None:
        self._clock.next_round(self._tell)

    def close(self) -> None:
        """It is not needed any more."""
        self._end(Code.NO_ERROR, "idle")

    def left(self, reason: str) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        self._owner.left(self)

    # Whether the server is still there.

    def keep_asking(self, pings: Pings) -> None:
        """Ask the server from now on, and end the connection when it does not answer (http2KeepAlive; Envoy's
        connection_keepalive). What is on it is lost then."""
        self._pings = pings
        self._wait(pings)

    def _wait(self, pings: Pings) -> None:
        if not self.over:
            self._timer = self._clock.after(pings.every_seconds, self._ping)

    def _ping(self) -> None:
        pings = self._pings
        if pings is not None and not self.over:
            self.push(push_ping(_PING))
            self._timer = self._clock.after(pings.within_seconds, self._silent)

    def on_pong(self, opaque: bytes) -> None:
        pings, timer = self._pings, self._timer
        if opaque != _PING or pings is None or timer is None:
            return
        timer.cancel()
        self._wait(pings)

    def _silent(self) -> None:
        reason = "the server did not answer a ping in time (http2KeepAlive)"
        self._leave(reason)
        self._transport.abort(Unreachable(reason))
