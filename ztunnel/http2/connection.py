"""One HTTP/2 connection without any I/O: bytes in, calls out (RFC 9113).

It is ours, and not `h2`, because a frame costs `h2` 30 to 60 us and it has no flood limits. A connection
error is a PeerError whose `reply` is the code for GOAWAY; after it the connection is over. An error of one
stream is answered with RST_STREAM and costs points of the budget.

What happens on streams and to their windows is in `streams`, what frames are in `reader`: here is what opens,
answers and ends them, and what concerns the connection as a whole.
"""

from __future__ import annotations

from typing import Final

from ztunnel.errors import PeerError
from ztunnel.http2.block import EXTRA_BYTES, HeaderBlock, begin_block, check_priority
from ztunnel.http2.budget import UPDATES_PER_FRAME, Glitch
from ztunnel.http2.decoder import FieldReader
from ztunnel.http2.fields import Fields
from ztunnel.http2.frame import (
    ACK,
    DEFAULT_FRAME_BYTES,
    DEFAULT_WINDOW,
    END_HEADERS,
    MAX_STREAM_ID,
    PREFACE,
    SETTINGS_ACK,
    Code,
    Frame,
    Setting,
    push_end,
    push_frame,
    push_headers,
    push_ping,
    push_reset,
    push_settings,
    push_window_update,
)
from ztunnel.http2.host import Host, Nobody
from ztunnel.http2.limits import Limits, Role
from ztunnel.http2.repeats import Repeats
from ztunnel.http2.settings import pull_settings
from ztunnel.http2.standing import LARGE_BLOCK, UNSTARTED_POINTS, Standing
from ztunnel.http2.stream import Stream
from ztunnel.http2.streams import HEADERS_BYTES, Streams
from ztunnel.http2.validity import check_request, check_response, check_trailers

_MAX_SETTINGS_BYTES: Final = 600
_MAX_GOAWAY_BYTES: Final = 4096


class H2Connection(Streams):
    """State of one connection.

    Attributes:
        frame_bytes: the largest frame that the peer takes.
        open_streams: how many streams we may have open.
        settled: whether the peer's settings have come.
        malformed: requests that were reset because they are none (RFC 9113 section 8.1.1).
    """

    __slots__ = (
        "_block_limit",
        "_checked",
        "_fields",
        "_fields_limit",
        "_headers_work",
        "_refusing",
        "frame_bytes",
        "malformed",
        "open_streams",
        "settled",
    )

    def __init__(
        self, host: Host, role: Role, limits: Limits, now: float, standing: Standing | None = None
    ) -> None:
        """`standing` is the peer's where it has other sessions."""
        super().__init__(host, role, limits, now, standing or Standing(now))
        self.settled = False
        self.malformed = 0
        self.frame_bytes = DEFAULT_FRAME_BYTES
        self.open_streams = limits.open_streams
        client = role is Role.CLIENT
        self._fields_limit = limits.response_header_bytes if client else limits.request_header_bytes
        self._headers_work = limits.response_work if client else limits.request_work
        self._block_limit = self._fields_limit + limits.skipped_header_bytes
        self._fields = FieldReader(self._fields_limit, limits.skipped_header_bytes > 0)
        self._checked: Repeats[bool] = Repeats()
        self._refusing = False
        headers = self._block_limit + EXTRA_BYTES
        self._methods = {
            Frame.HEADERS: (headers, self._on_headers),
            Frame.PRIORITY: (5, self._on_priority),
            Frame.RST_STREAM: (4, self._on_reset),
            Frame.SETTINGS: (_MAX_SETTINGS_BYTES, self._on_settings),
            Frame.PUSH_PROMISE: (headers, self._on_push_promise),
            Frame.PING: (8, self._on_ping),
            Frame.GOAWAY: (_MAX_GOAWAY_BYTES, self._on_goaway),
            Frame.WINDOW_UPDATE: (4, self._on_window_update),
            Frame.CONTINUATION: (headers, self._on_continuation),
        }

    # What we do.

    def start(self) -> None:
        """Send the preface and our settings."""
        limits = self._limits
        client = self.role is Role.CLIENT
        settings = {
            Setting.INITIAL_WINDOW_SIZE: self._promised_bytes if self._wide else self._stream_window_bytes,
            Setting.MAX_FRAME_SIZE: limits.frame_bytes,
            Setting.MAX_HEADER_LIST_SIZE: self._fields_limit,
        }
        if client:
            settings[Setting.ENABLE_PUSH] = 0
        else:
            settings[Setting.MAX_CONCURRENT_STREAMS] = limits.accept_streams
        self._host.push(
            (PREFACE if client else b"")
            + push_settings(settings)
            + push_window_update(0, limits.session_window_bytes - DEFAULT_WINDOW)
        )

    @property
    def can_open(self) -> bool:
        """Whether the peer takes one more stream of ours, and there are ids and window left for it: slow
        readers may hold all of a connection's window but an eighth."""
        return (
            len(self.streams) < self.open_streams
            and not self._refusing
            and self._next_id < MAX_STREAM_ID
            and self.send_window > 0
            and self._window.left_bytes > self._limits.session_window_bytes // 8
        )

    def open(self, stream: Stream, block: bytes, end: bool = False) -> None:
        """Send a request, its fields encoded by `push_fields` (client); with `end`, nothing follows."""
        stream.stream_id = self._next_id
        self._next_id += 2
        self._adopt(stream)
        self._push_headers(stream, block, end)
        if end:
            self._close_local(stream)

    def answer(self, stream: Stream, block: bytes, end: bool = False) -> None:
        """Send a response, its fields encoded (server); with `end` it is a refusal, and nothing follows."""
        stream.answered = True
        self._push_headers(stream, block, end)
        if end:
            self._close_refused(stream)

    def inform(self, stream: Stream, block: bytes) -> None:
        """Send a response that is only interim (1xx), its fields encoded (server)."""
        self._push_headers(stream, block, end=False)

    def send(self, stream: Stream, payload: memoryview) -> int:
        """Send as much of `payload` as the peer's windows and frames take now. Returns how many bytes."""
        done, size = 0, len(payload)
        while done < size:
            count = self.grant(stream, size - done)
            if not count:
                break
            part = bytes(payload[done : done + count])
            self._host.push(push_frame(Frame.DATA, 0, stream.stream_id, part))
            done += count
        return done

    def grant(self, stream: Stream, size_bytes: int) -> int:
        """For who writes DATA frames himself: how many of so many bytes the next one may have. It is counted
        as sent."""
        count = min(size_bytes, self.frame_bytes, stream.send_window, self.send_window)
        if count <= 0:
            return 0
        stream.send_window -= count
        self.send_window -= count
        self.budget.updates += UPDATES_PER_FRAME
        return count

    def trail(self, stream: Stream, block: bytes) -> None:
        """End the stream with trailers, their fields encoded."""
        self._push_headers(stream, block, end=True)
        self._close_local(stream)

    def finish(self, stream: Stream) -> None:
        """We will send no more on the stream."""
        self._host.push(push_end(stream.stream_id))
        self._close_local(stream)

    def finished(self, stream: Stream) -> None:
        """The same, where the last DATA frame has said so."""
        self._close_local(stream)

    def release(self) -> None:
        """The connection is over: let go of whoever drove it. Streams that still have bytes to deliver may
        say so."""
        self.streams.clear()
        self._host = Nobody()
        self._methods = {}

    def refuse_streams(self) -> int:
        """Refuse streams from now on. Returns the last id that was looked at, for GOAWAY."""
        self._refusing = True
        return self._peer_id

    def _push_headers(self, stream: Stream, block: bytes, end: bool) -> None:
        self._host.push(push_headers(stream.stream_id, block, end, self.frame_bytes))

    # What the peer does.

    def _on_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        block = begin_block(flags, stream_id, payload)
        if self._is_idle(stream_id) and (self.role is Role.CLIENT or not stream_id & 1):
            raise PeerError("headers for a stream that was never opened", Code.PROTOCOL_ERROR)
        if flags & END_HEADERS:
            self._on_block(block)
        else:
            self._block = block

    def _on_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        block = self._block
        if block is None or block.stream_id != stream_id:
            raise PeerError("a continuation of nothing", Code.PROTOCOL_ERROR)
        self.budget.spend(Glitch.CONTINUATION, self.now)
        block.add(payload, self._limits.continuations, self._block_limit)
        if flags & END_HEADERS:
            self._block = None
            self._on_block(block)

    def _on_block(self, block: HeaderBlock) -> None:
        """A whole header block. It is decoded whatever comes of it: the decoder's state depends on it."""
        self.standing.work_left -= self._headers_work
        fields = self._fields.read(block.octets)
        size = (len(fields) + len(block.octets) // 64) // LARGE_BLOCK
        if size:
            self.standing.churn.take(size * UNSTARTED_POINTS, self.now)
        stream = self.streams.get(block.stream_id)
        if stream is None:
            if self.role is Role.SERVER and block.stream_id > self._peer_id:
                self._on_request(block, fields)
            else:
                self._stray(None, block.stream_id, HEADERS_BYTES)
        elif stream.remote_closed:
            self._stream_error(stream, Code.STREAM_CLOSED)
        elif self._fields.oversized:
            self._stream_error(stream, Code.ENHANCE_YOUR_CALM)
        elif self.role is Role.CLIENT and not stream.answered:
            self._on_answer(stream, block, fields)
        else:
            self._on_trailers(stream, block, fields)

    def _on_request(self, block: HeaderBlock, fields: Fields) -> None:
        self._open_peers(block.stream_id)
        if len(self.streams) >= self._limits.accept_streams:
            self.budget.spend(Glitch.REFUSED, self.now)  # it knows better
            self._refuse(block, Code.REFUSED_STREAM)
            return
        if self._refusing or not self._host.admits():
            self.standing.churn.take(UNSTARTED_POINTS, self.now)
            self._refuse(block, Code.REFUSED_STREAM)
            return
        oversized = self._fields.oversized
        try:
            if not oversized:
                self._check(fields)
        except PeerError:
            self.malformed += 1
            self.budget.spend(Glitch.OUR_RESET, self.now)
            self._refuse(block, Code.PROTOCOL_ERROR)
            return
        stream = self._host.on_request(fields)
        stream.oversized = oversized
        stream.repeated = self._fields.repeated
        stream.stream_id = block.stream_id
        self._adopt(stream)
        if block.end_stream:
            self._end_remote(stream)
        self._host.on_opened(stream)

    def _check(self, untrusted: Fields) -> None:
        """A request, or a response where we are the client: is checked, unless it says what one before has
        said. Raises PeerError."""
        repeated = self._fields.repeated
        if repeated and self._checked.get(untrusted):
            return
        if self.role is Role.CLIENT:
            check_response(untrusted)
        else:
            check_request(untrusted)
        if repeated:
            self._checked.keep(untrusted, True)

    def _refuse(self, block: HeaderBlock, code: Code) -> None:
        """Give a stream up before anybody was told of it."""
        self._host.push(push_reset(block.stream_id, code))
        self._remember_reset(block.stream_id, 0 if block.end_stream else self._promised_bytes)

    def _on_trailers(self, stream: Stream, block: HeaderBlock, fields: Fields) -> None:
        try:
            if not block.end_stream:
                raise PeerError("headers in the middle of a stream", Code.PROTOCOL_ERROR)
            check_trailers(fields)
        except PeerError:
            self._stream_error(stream, Code.PROTOCOL_ERROR)
        else:
            stream.on_trailers(fields)
            if not stream.closed:
                self._end_remote(stream)

    def _on_answer(self, stream: Stream, block: HeaderBlock, fields: Fields) -> None:
        try:
            self._check(fields)
        except PeerError:
            self._stream_error(stream, Code.PROTOCOL_ERROR)
            return
        stream.repeated = self._fields.repeated
        informational = fields[0][1].startswith(b"1")  # pseudo-header fields come first, and it has one
        if informational and not block.end_stream:
            self.budget.spend(Glitch.STRAY, self.now)
            stream.on_informational(fields)
            return
        stream.answered = True
        if block.end_stream:
            stream.remote_closed = True
            if stream.local_closed:
                self._drop_in_order(stream)
        stream.on_answer(fields, block.end_stream)

    def _on_priority(self, flags: int, stream_id: int, payload: bytes) -> None:
        """It means nothing to us (RFC 9113 section 5.3), but has its form (section 6.3)."""
        if not stream_id:
            raise PeerError("PRIORITY of the connection", Code.PROTOCOL_ERROR)
        self.budget.spend(Glitch.PRIORITY, self.now)
        if len(payload) == 5:
            check_priority(stream_id, payload)
            return
        stream = self.streams.get(stream_id)
        if stream is None:
            raise PeerError("PRIORITY has 5 bytes", Code.FRAME_SIZE_ERROR)
        self._stream_error(stream, Code.FRAME_SIZE_ERROR)

    def _on_push_promise(self, flags: int, stream_id: int, payload: bytes) -> None:
        raise PeerError("a push, which nobody asked for", Code.PROTOCOL_ERROR)

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 8:
            raise PeerError("PING has 8 bytes", Code.FRAME_SIZE_ERROR)
        if stream_id:
            raise PeerError("PING on a stream", Code.PROTOCOL_ERROR)
        if flags & ACK:
            self._host.on_pong(payload)
        else:
            self.budget.spend(Glitch.PING, self.now)
            self._host.push(push_ping(payload, ack=True))

    def _on_goaway(self, flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) < 8:
            raise PeerError("GOAWAY has at least 8 bytes", Code.FRAME_SIZE_ERROR)
        if stream_id:
            raise PeerError("GOAWAY on a stream", Code.PROTOCOL_ERROR)
        last = int.from_bytes(payload[:4], "big") & MAX_STREAM_ID
        self._refusing = self._refusing or self.role is Role.CLIENT
        if self.role is Role.CLIENT:
            for stream in [stream for stream_id, stream in self.streams.items() if stream_id > last]:
                self._drop(stream)
                self._remember_reset(stream.stream_id, stream.window.left_bytes)
                stream.on_reset(Code.REFUSED_STREAM)
        self.budget.spend(Glitch.STRAY, self.now)
        self._host.on_goaway(int.from_bytes(payload[4:8], "big"))

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise PeerError("SETTINGS on a stream", Code.PROTOCOL_ERROR)
        if flags & ACK:
            if payload:
                raise PeerError("SETTINGS of a wrong size", Code.FRAME_SIZE_ERROR)
            self._acknowledged()
            return
        if self.settled:
            self.budget.spend(Glitch.SETTINGS, self.now)
        # The peer's HEADER_TABLE_SIZE means nothing to us: we use no table.
        settings = pull_settings(payload)
        self.frame_bytes = settings.get(Setting.MAX_FRAME_SIZE, self.frame_bytes)
        if Setting.MAX_CONCURRENT_STREAMS in settings:
            self.open_streams = min(settings[Setting.MAX_CONCURRENT_STREAMS], self._limits.open_streams)
        if Setting.INITIAL_WINDOW_SIZE in settings:
            self._resize(settings[Setting.INITIAL_WINDOW_SIZE])
        self.settled = True
        self._host.push(SETTINGS_ACK)
        self._host.on_settings()
