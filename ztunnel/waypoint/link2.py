"""A connection that speaks HTTP/2 inside a stream of bytes, for both roles, and the streams on it.

Whatever comes is read at once: HTTP/2's own windows bound what a peer may send, and are opened as bodies are
taken. What is sent waits on its stream while the windows are shut, or while the bytes below have not left.
Frames of one round of the engine, of whatever streams, are written as one piece; a DATA frame that is still
there when its stream ends says so itself.
"""

from __future__ import annotations

from typing import Final

from ztunnel.errors import ConnectionFailed, PeerError, Unreachable
from ztunnel.flow.buffer import Backlog
from ztunnel.flow.transport import HIGH_BYTES, Transport
from ztunnel.http2.connection import H2Connection
from ztunnel.http2.fields import Fields, push_fields
from ztunnel.http2.frame import END_STREAM, FLAGS_AT, HEADER, Code, push_goaway
from ztunnel.http2.limits import Limits, Role
from ztunnel.http2.standing import Standing
from ztunnel.http2.stream import Stream
from ztunnel.waypoint.way import Clock

LIMITS: Final = Limits(
    open_streams=100,
    accept_streams=100,
    stream_window_bytes=256 * 1024,
    session_window_bytes=1024 * 1024,
    frame_bytes=16 * 1024,
    request_header_bytes=60 * 1024,
    response_header_bytes=60 * 1024,
    skipped_header_bytes=180 * 1024,
    request_work=8,
    response_work=4,
    wide_streams=12,
    churn_ends=True,
)
"""Of the HTTP/2 within tunnels: Istio's waypoint takes 100 streams and heads of 60 KiB. A larger one is
answered: cookies grow without anybody's wish, but not above 240 KiB. A request costs some 50 us and
no connection of its own: those of a peer in one round are a millisecond's work at most. Twelve streams may
fill four fifths of a connection's window."""

GATHER_BYTES: Final = 16 * 1024
"""So much is not kept any longer: bulk gains nothing by it."""

_CONTROL_BYTES: Final = 1024 * 1024
"""A peer that reads nothing, and has so much to read, has only asked for it."""


class HttpStream(Stream):
    """A stream with what waits to be sent on it."""

    __slots__ = ("_backlog", "_finishing", "_link", "_trailers")

    def __init__(self, link: Http2Link) -> None:
        super().__init__()
        self._link = link
        self._backlog = Backlog()
        self._finishing = False
        self._trailers: Fields = ()

    def unsent(self) -> int:
        """Bytes that wait."""
        return self._backlog.held_bytes

    def put(self, payload: memoryview) -> None:
        """Send it, now or when it may."""
        if self.closed or self.local_closed:
            return
        sent = 0
        if not self._backlog.held_bytes and not self._link.blocked:
            sent = self._link.send(self, payload)
        if sent < len(payload):
            self._backlog.append(payload[sent:])
            self._link.waiting[self] = None

    def complete(self, trailers: Fields) -> None:
        """Nothing follows but these."""
        if self.closed or self.local_closed:
            return
        self._finishing, self._trailers = True, trailers
        if not self._backlog.held_bytes:
            self._complete()

    def give_up(self, code: Code) -> None:
        """Nobody is interested in it any more."""
        self._drop()
        self._link.h2.reset(self, code)

    def on_window(self) -> None:
        backlog = self._backlog
        while backlog.held_bytes and not self._link.blocked:
            with backlog.head() as head:
                sent = self._link.send(self, head)
            if not sent:
                break
            backlog.drop(sent)
        if backlog.held_bytes:
            self._link.waiting[self] = None
            return
        self._link.waiting.pop(self, None)
        if self._finishing:
            self._complete()
        self.drained()

    def drained(self) -> None:
        """Nothing waits any more."""

    def lost(self, reason: str, broken: bool) -> None:
        """The connection has gone; `broken`: because the peer broke the rules."""

    def _complete(self) -> None:
        self._finishing = False
        if self._trailers:
            self._link.h2.trail(self, push_fields(self._trailers))
        elif self._link.ends_with(self):
            self._link.h2.finished(self)
        else:
            self._link.h2.finish(self)

    def _drop(self) -> None:
        self._backlog.clear()
        self._finishing = False
        self._link.waiting.pop(self, None)


class Http2Link:
    """One connection: a receiver of its transport, and the host of its HTTP/2.

    Attributes:
        waiting: streams with bytes that may not leave yet.
        over: it has ended.
    """

    def __init__(
        self, clock: Clock, transport: Transport, role: Role, standing: Standing | None = None
    ) -> None:
        self._clock = clock
        self._transport = transport
        self.waiting: dict[HttpStream, None] = {}
        self.over = False
        # Frames of this round, and the last one where it is DATA: whose, and where it begins.
        self._frames = bytearray()
        self._writes = False
        self._last: HttpStream | None = None
        self._last_at = 0
        self.h2 = H2Connection(self, role, LIMITS, clock.now, standing)
        self.h2.start()

    @property
    def blocked(self) -> bool:
        """Whether too much of what was sent has not left."""
        return self._transport.unsent_bytes > HIGH_BYTES

    # The transport's side.

    def received(self, untrusted: memoryview) -> None:
        self._transport.taken(len(untrusted))
        if self.over:
            return
        h2, clock = self.h2, self._clock
        h2.standing.enter(clock.number)
        try:
            if h2.receive(untrusted, clock.now):
                clock.next_round(self._read_on)
        except PeerError as error:
            self._end(error.reply, str(error))

    def _read_on(self) -> None:
        self.received(memoryview(b""))

    def ended(self) -> None:
        self._end(Code.NO_ERROR, "the peer has closed the connection")

    def writable(self) -> None:
        self._resume()

    def lost(self, error: ConnectionFailed | None) -> None:
        self._leave(str(error) if error else "the connection was cut")

    # The host's side.

    def push(self, frames: bytes) -> None:
        self._frames += frames
        self._last = None
        self._gather()

    def admits(self) -> bool:
        return False

    def on_request(self, untrusted: Fields) -> Stream:
        raise NotImplementedError

    def on_opened(self, stream: Stream) -> None:
        raise NotImplementedError

    def on_settings(self) -> None:
        """Nothing waits for them."""

    def on_pong(self, opaque: bytes) -> None:
        """We do not ask."""

    def on_goaway(self, code: int) -> None:
        """The peer takes no more streams."""

    def on_window(self) -> None:
        self._resume()

    def _resume(self) -> None:
        for stream in list(self.waiting):
            if self.blocked or self.over:
                return
            stream.on_window()

    # What is sent.

    def send(self, stream: HttpStream, payload: memoryview) -> int:
        """Send as much of it as the peer's windows take now. Returns how many bytes."""
        h2, done, size = self.h2, 0, len(payload)
        while done < size:
            count = h2.grant(stream, size - done)
            if not count:
                break
            frames = self._frames
            self._last, self._last_at = stream, len(frames)
            frames += HEADER.pack(count << 8, 0, stream.stream_id)
            frames += payload[done : done + count]
            done += count
            self._gather()
        return done

    def ends_with(self, stream: HttpStream) -> bool:
        """Whether its last DATA frame is still there and nothing follows it: then it ends the stream."""
        if self._last is not stream:
            return False
        self._frames[self._last_at + FLAGS_AT] = END_STREAM
        self._last = None
        return True

    def _gather(self) -> None:
        """Something more is to be written in this round."""
        if len(self._frames) >= GATHER_BYTES:
            self._write_out()
        elif not self._writes:
            self._writes = True
            self._clock.post(self._write_gathered)

    def _write_gathered(self) -> None:
        self._writes = False
        self._write_out()

    def _write_out(self) -> None:
        frames = self._frames
        if not frames:
            return
        self._frames = bytearray()
        self._last = None
        self._transport.write(memoryview(frames))
        if self._transport.unsent_bytes > _CONTROL_BYTES and not self.over:
            self._clock.next_round(self._deaf)

    # The end.

    def _deaf(self) -> None:
        if self._transport.unsent_bytes > _CONTROL_BYTES:
            self._end(Code.ENHANCE_YOUR_CALM, "the peer does not read")

    def _end(self, code: int, reason: str) -> None:
        """Say goodbye."""
        if self.over:
            return
        self._write_out()
        self._transport.write(push_goaway(self.h2.refuse_streams(), code))
        self._transport.finish()
        if code != Code.NO_ERROR:
            self.refused("http2.codec_error")
        self._leave(reason, code != Code.NO_ERROR)
        if code != Code.NO_ERROR:
            self._transport.abort(Unreachable(reason))

    def refused(self, reason: str) -> None:
        """The connection ends because of what the peer does."""

    def _leave(self, reason: str, broken: bool = False) -> None:
        """It is over: every stream is told."""
        if self.over:
            return
        self.over = True
        self.waiting.clear()
        self._frames = bytearray()
        self._last = None
        streams = list(self.h2.streams.values())
        self.h2.release()
        for stream in streams:
            stream.closed = True
            if isinstance(stream, HttpStream):
                stream.lost(reason, broken)
        self.left(reason)

    def left(self, reason: str) -> None:
        """It has ended."""
