"""The streams of a connection and their windows: who may send how much, and what still comes for a stream
that is over.

A stream's life, as its two flags tell it:

```
adopted ── END_STREAM sent ──> local_closed ──┐
   │                                          ├──> closed, out of `streams`
   ├────── END_STREAM came ──> remote_closed ─┘
   └────── RST_STREAM, either way ────────────────> closed; what still comes is credited and dropped
```

The connection's window is never promised twice. Each stream begins with a small share of it, one for each
that there may be; what is left over lets the windows of those grow whose applications read as fast as bytes
come. So slow readers hold their shares and no more, however many they are, and the others go on.

Until the peer has acknowledged our settings it may know of no other share than the protocol's 65,535 bytes,
and send so many on each stream (RFC 9113 section 6.9.3): Go's client does not wait. Where that is more than
the share, it is told of the share only once it has many streams (`Limits.wide_streams`).
"""

from __future__ import annotations

from typing import Final

from ztunnel.errors import PeerError
from ztunnel.http2.budget import Glitch
from ztunnel.http2.frame import (
    DEFAULT_WINDOW,
    END_STREAM,
    MAX_STREAM_ID,
    MAX_WINDOW,
    Code,
    Setting,
    push_reset,
    push_settings,
    push_window_update,
)
from ztunnel.http2.host import Host
from ztunnel.http2.limits import Limits, Role
from ztunnel.http2.reader import FrameReader
from ztunnel.http2.standing import UNSTARTED_POINTS, Standing
from ztunnel.http2.stream import Stream
from ztunnel.http2.window import ReceiveWindow

EARLY_SECONDS: Final = 1.0
"""A stream that the peer resets sooner came to nothing (Envoy's premature_reset_min_stream_lifetime)."""

_RESETS_REMEMBERED: Final = 256
_GAPS_REMEMBERED: Final = 16

HEADERS_BYTES: Final = 16 * 1024
"""What headers of a stream that we have reset count for among the bytes that may be under way for it."""


class Streams(FrameReader):
    """Flow control in both directions.

    Attributes:
        role: which end we are.
        send_window: bytes that the peer still takes on the connection.
    """

    __slots__ = (
        "_acks_due",
        "_forgotten_id",
        "_gaps",
        "_host",
        "_initial_send_window",
        "_limits",
        "_next_id",
        "_peer_id",
        "_promised_bytes",
        "_reset",
        "_spare_bytes",
        "_stream_window_bytes",
        "_wide",
        "_window",
        "role",
        "send_window",
    )

    def __init__(self, host: Host, role: Role, limits: Limits, now: float, standing: Standing) -> None:
        super().__init__(limits.frame_bytes, role is Role.SERVER, now, standing)
        self._host = host
        self._limits = limits
        self.role = role
        self.send_window = DEFAULT_WINDOW
        self._initial_send_window = DEFAULT_WINDOW
        self._window = ReceiveWindow(limits.session_window_bytes)
        most = limits.open_streams if role is Role.CLIENT else limits.accept_streams
        self._stream_window_bytes = limits.first_window_bytes(most)
        # What the peer believes that it may send on a new stream.
        self._promised_bytes = max(self._stream_window_bytes, DEFAULT_WINDOW)
        # Whether the peer has not been told of its streams' share.
        narrow = self._stream_window_bytes < DEFAULT_WINDOW
        self._wide = role is Role.SERVER and narrow and limits.wide_streams > 0
        self._acks_due = 1
        # What the windows of streams may grow by, all together.
        self._spare_bytes = limits.session_window_bytes - most * self._stream_window_bytes
        # Ids: ours are odd as the client; as the server we have none.
        self._next_id = 1
        self._peer_id = 0
        # Streams that we reset, and how much the peer may have under way for each; the highest one forgotten.
        self._reset: dict[int, int] = {}
        self._forgotten_id = 0
        # Ids that the peer passed over, as pairs of which the second is the first that it used again.
        self._gaps: list[tuple[int, int]] = []

    def reset(self, stream: Stream, code: Code) -> None:
        """Give the stream up, in both directions."""
        if not stream.closed:
            self._host.push(push_reset(stream.stream_id, code))
            self._drop(stream)
            self._remember_reset(stream.stream_id, 0 if stream.remote_closed else stream.window.left_bytes)

    def _remember_reset(self, stream_id: int, left_bytes: int) -> None:
        """What was under way for a stream when we gave it up is no fault of the peer's."""
        self._reset[stream_id] = left_bytes
        if len(self._reset) > _RESETS_REMEMBERED:
            oldest = next(iter(self._reset))
            del self._reset[oldest]
            self._forgotten_id = max(self._forgotten_id, oldest)

    def _open_peers(self, stream_id: int) -> None:
        """The peer opens a stream; ids that it passed over can be used no more (RFC 9113 section 5.1.1)."""
        first = self._peer_id + 2 if self._peer_id else 1
        if stream_id > first:
            self._gaps.append((first, stream_id))
            del self._gaps[:-_GAPS_REMEMBERED]
        self._peer_id = stream_id

    def _give(self, stream: Stream, count: int) -> None:
        self.take(stream, count)

    def take(self, stream: Stream, count: int) -> None:
        """`count` bytes of the stream have left our hands: let the peer send more."""
        increment = self._window.take(count)
        if increment:
            self._host.push(push_window_update(0, increment))
        if not stream.remote_closed and not stream.closed:
            window = stream.window
            increment = window.take(count)
            if increment:
                if self._spare_bytes > 0 and window.size_bytes < self._limits.stream_window_bytes:
                    increment += self._grow(window)
                self._host.push(push_window_update(stream.stream_id, increment))

    def discard(self, count: int) -> None:
        """`count` bytes of a stream on which the peer is to send no more; the others may send as many."""
        self._discard(count)

    def _grow(self, window: ReceiveWindow) -> int:
        """Half of a window has been read: let it be twice as large, where there is so much to spare."""
        growth = min(
            window.size_bytes, self._limits.stream_window_bytes - window.size_bytes, self._spare_bytes
        )
        self._spare_bytes -= growth
        window.grow(growth)
        return growth

    def _adopt(self, stream: Stream) -> None:
        stream.send_window = self._initial_send_window
        stream.window = ReceiveWindow(self._promised_bytes)
        self._spare_bytes -= self._promised_bytes - self._stream_window_bytes
        stream.opened_at = self.now
        self.streams[stream.stream_id] = stream
        if self._wide and len(self.streams) > self._limits.wide_streams:
            self._wide = False
            self._acks_due += 1
            self._host.push(push_settings({Setting.INITIAL_WINDOW_SIZE: self._stream_window_bytes}))

    def _acknowledged(self) -> None:
        """The peer has read our settings: from here on it keeps to the window that they say."""
        self._acks_due = max(self._acks_due - 1, 0)
        if self._wide or self._acks_due:
            return
        excess = self._promised_bytes - self._stream_window_bytes
        self._promised_bytes = self._stream_window_bytes
        if not excess:
            return
        for stream in self.streams.values():
            self._spare_bytes += excess
            increment = stream.window.shrink(excess)
            if increment and not stream.remote_closed:
                self._host.push(push_window_update(stream.stream_id, increment))

    def _close_local(self, stream: Stream) -> None:
        stream.local_closed = True
        if stream.remote_closed:
            self._drop_in_order(stream)

    def _close_refused(self, stream: Stream) -> None:
        """It came to nothing, and its end pays for nothing."""
        stream.local_closed = True
        if stream.remote_closed:
            self._drop(stream)

    def _drop_in_order(self, stream: Stream) -> None:
        """Both sides have ended it: that pays for one that came to nothing."""
        self.budget.give_back()
        self.standing.churn.give(1)
        self._drop(stream)

    def _drop(self, stream: Stream) -> None:
        stream.closed = True
        self._spare_bytes += stream.window.size_bytes - self._stream_window_bytes
        self.streams.pop(stream.stream_id, None)

    def _begin_data(self, stream: Stream | None, stream_id: int, length: int, flags: int) -> Stream | None:
        if length > self._frame_limit:
            raise PeerError("a frame above our limit", Code.FRAME_SIZE_ERROR)
        window = self._window
        left = window.left_bytes = window.left_bytes - length
        if left < window.taken_bytes:
            if left < 0:
                raise PeerError("more bytes than the connection's window", Code.FLOW_CONTROL_ERROR)
            self._host.push(push_window_update(0, window.tell()))
        if not length and not flags & END_STREAM:
            self.budget.spend(Glitch.EMPTY, self.now)
        if stream is None:
            # The reserved bit of the id is to be ignored (RFC 9113 section 4.1).
            stream_id &= MAX_STREAM_ID
            stream = self.streams.get(stream_id)
        if stream is None or stream.remote_closed:
            self._stray(stream, stream_id, length)
            return None
        stream.window.left_bytes -= length
        if stream.window.left_bytes < 0:
            self._stream_error(stream, Code.FLOW_CONTROL_ERROR)
            return None
        return stream

    def _has_room(self, stream: Stream, length: int) -> bool:
        return length <= self._window.left_bytes and length <= stream.window.left_bytes

    def _stray(self, stream: Stream | None, stream_id: int, length: int) -> None:
        """DATA or HEADERS for a stream that is over.

        1. The peer has ended it itself, and not we: an error of that stream.
        2. It was never opened: ids go up only (RFC 9113 section 5.1.1).
        3. We have reset it: what was under way then is no fault of the peer's.
        4. The peer has closed it, so it knows better (RFC 9113 section 5.1, closed).
        """
        if stream is not None:
            self._stream_error(stream, Code.STREAM_CLOSED)
        elif self._is_idle(stream_id) or self._was_passed_over(stream_id):
            raise PeerError("a frame for a stream that was never opened", Code.PROTOCOL_ERROR)
        elif stream_id in self._reset or stream_id <= self._forgotten_id:
            left = self._reset.get(stream_id, -1) - length
            if left < 0:
                self.budget.spend(Glitch.STRAY, self.now)
            else:
                self._reset[stream_id] = left
        else:
            raise PeerError("a frame for a stream that is closed", Code.STREAM_CLOSED)

    def _was_passed_over(self, stream_id: int) -> bool:
        return any(first <= stream_id < used for first, used in self._gaps)

    def _is_idle(self, stream_id: int) -> bool:
        if not stream_id & 1:
            return True
        return stream_id >= self._next_id if self.role is Role.CLIENT else stream_id > self._peer_id

    def _discard(self, count: int) -> None:
        """Bytes that nobody wants still count for the connection's window."""
        increment = self._window.take(count)
        if increment:
            self._host.push(push_window_update(0, increment))

    def _end_remote(self, stream: Stream) -> None:
        if stream.closed:
            return
        stream.remote_closed = True
        if stream.local_closed:
            self._drop_in_order(stream)
        stream.on_end()

    def _stream_error(self, stream: Stream, code: Code) -> None:
        """The peer broke the rules on one stream: give that up, and count it (MadeYouReset,
        CVE-2025-8671)."""
        self.budget.spend(Glitch.OUR_RESET, self.now)
        self.reset(stream, code)
        stream.on_error(code)

    def lose_streams(self, now: float) -> None:
        """The peer has ended the connection, or what it did has: that resets every stream. Each is closed
        from now on, whenever it is told."""
        self.now = now
        for stream in self.streams.values():
            self._came_to_nothing(stream)
            stream.closed = True
        self.streams.clear()

    def _came_to_nothing(self, stream: Stream) -> bool:
        """The peer gives a stream up, which costs points soon after it was opened. Whether it has none
        left."""
        if self.role is Role.CLIENT or self.now - stream.opened_at >= EARLY_SECONDS:
            return False
        return self.standing.churn.take(1 if stream.started else UNSTARTED_POINTS, self.now) < 0

    def _reset_again(self) -> None:
        """A reset of a stream that is over: it has crossed the end of that, or is for what we sent before the
        peer's first reset came (hyper's h2 sends one for each such frame). So it is no glitch, but what an
        application did."""
        if self.standing.churn.take(UNSTARTED_POINTS, self.now) < 0 and self._limits.churn_ends:
            raise PeerError("too many resets", Code.ENHANCE_YOUR_CALM)

    def _on_reset(self, flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise PeerError("RST_STREAM has 4 bytes", Code.FRAME_SIZE_ERROR)
        stream = self.streams.get(stream_id)
        if stream is None:
            if self._is_idle(stream_id):
                raise PeerError("a reset of a stream that was never opened", Code.PROTOCOL_ERROR)
            if self._reset.get(stream_id, -1) < 0:
                self._reset_again()
            else:
                self._reset[stream_id] = -1
            return
        if self._came_to_nothing(stream) and self._limits.churn_ends:
            raise PeerError("too many streams that are reset early", Code.ENHANCE_YOUR_CALM)
        self._drop(stream)
        stream.on_reset(int.from_bytes(payload, "big"))

    def _on_window_update(self, flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise PeerError("WINDOW_UPDATE has 4 bytes", Code.FRAME_SIZE_ERROR)
        self.budget.spend_update(self.now)
        increment = int.from_bytes(payload, "big") & MAX_WINDOW
        if not stream_id:
            self._open_window(increment)
            return
        stream = self.streams.get(stream_id)
        if stream is None:
            # The peer may tell of bytes that it took before it learnt that the stream is over: no glitch.
            if self._is_idle(stream_id):
                raise PeerError("a window for a stream that was never opened", Code.PROTOCOL_ERROR)
            return
        before = stream.send_window
        if not increment:
            self._stream_error(stream, Code.PROTOCOL_ERROR)
        elif before + increment > MAX_WINDOW:
            self._stream_error(stream, Code.FLOW_CONTROL_ERROR)
        else:
            stream.send_window = before + increment
            if before <= 0 < stream.send_window:
                stream.on_window()

    def _open_window(self, increment: int) -> None:
        if not increment:
            raise PeerError("WINDOW_UPDATE of nothing", Code.PROTOCOL_ERROR)
        before = self.send_window
        if before + increment > MAX_WINDOW:
            raise PeerError("a window above 2^31-1", Code.FLOW_CONTROL_ERROR)
        self.send_window = before + increment
        if before <= 0:
            self._host.on_window()

    def _resize(self, value: int) -> None:
        """Another initial window: it moves the windows of open streams as well, below zero if need be."""
        difference = value - self._initial_send_window
        self._initial_send_window = value
        for stream in list(self.streams.values()):
            before = stream.send_window
            if before + difference > MAX_WINDOW:
                raise PeerError("a window above 2^31-1", Code.FLOW_CONTROL_ERROR)
            stream.send_window = before + difference
            if before <= 0 < stream.send_window:
                stream.on_window()
