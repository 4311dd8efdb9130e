"""A client's connection of HTTP/1.1 below its requests: what comes is read in turn, and how it ends.

What a client sends ahead of its turn stays unread, so that it is the client's buffers that fill.
"""

from __future__ import annotations

from collections.abc import Callable

from ztunnel.errors import ConnectionFailed, PeerError, Unreachable
from ztunnel.flow.transport import Transport
from ztunnel.http1.ahead import Ahead
from ztunnel.http1.framing import Frame
from ztunnel.http1.head import Fields
from ztunnel.http1.reader import RequestReader, State
from ztunnel.l7.reply import Reply, of_codec
from ztunnel.waypoint.exchange.exchange import Exchange
from ztunnel.waypoint.way import HttpWay


class Http1Link:
    """One of them: a receiver of its transport, and of its reader.

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
        self._body_bytes = 0
        self._closing = False
        self._over = False
        self._peer_ended = False
        self._reading = False
        self._switched = False

    # What becomes of what is read.

    def on_head(self, untrusted: Fields, frame: Frame) -> None:
        """A request begins."""
        raise NotImplementedError

    def on_body(self, payload: memoryview) -> None:
        """Some of its body."""
        raise NotImplementedError

    def on_end(self, trailers: Fields) -> None:
        """It is whole."""
        raise NotImplementedError

    def _refuse(self, reply: Reply) -> None:
        """Nothing more of the connection is believed."""
        raise NotImplementedError

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

    # The end.

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
