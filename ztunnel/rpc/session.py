"""gRPC's calls on one HTTP/2 connection without I/O, for both roles: h2, with limits before and around it.

Flow control is the back-pressure: a stream's window is given back only while somebody waits for its next
message, so a call whose messages nobody takes stops its sender at `window_bytes`. A client gives back the
window of the connection at once, so that such a call never stops the others; a server, as messages are taken,
so that a connection holds no more than `session_window_bytes` that nobody has taken.

What goes out is made when it is asked for (`pull`), from one stream after the other: what waits is a message
for each call, and control frames, of which `backlog` says how many bytes there are.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import H2Error
from h2.settings import SettingCodes, Settings

from ztunnel.errors import PeerError
from ztunnel.flow.rate import Bucket
from ztunnel.http2.budget import Glitch
from ztunnel.http2.frame import DEFAULT_WINDOW, MAX_STREAM_ID, Code, push_goaway
from ztunnel.rpc.fields import Fields, response
from ztunnel.rpc.guard import GoAway, Guard
from ztunnel.rpc.limits import Limits
from ztunnel.rpc.outlet import Outlet
from ztunnel.rpc.status import Code as Status
from ztunnel.rpc.status import RpcError, from_reset
from ztunnel.rpc.stream import Stream

_RESET_BY_US: Final = 4 * Glitch.OUR_RESET
"""What makes us reset a stream is the peer's doing (MadeYouReset, CVE-2025-8671)."""


class Session:
    """One connection. Feed it what is received, send what it returns.

    Attributes:
        streams: those that h2 holds open, by id.
        opened: of a server: calls that nobody has taken up yet; the caller empties it.
        leaving: the peer's GOAWAY, once it has come: no new calls.
    """

    def __init__(self, limits: Limits, *, server: bool, now: float, peer: Bucket) -> None:
        """`peer` are the points of all connections of the other end (`http2/budget.py`)."""
        self._limits = limits
        self._server = server
        self._guard = Guard(server=server, header_bytes=2 * limits.header_bytes, now=now, peer=peer)
        self._h2 = _connection(limits, server)
        self._outlet = Outlet(self._h2, self._guard.budget, self._finished)
        self._unreturned = 0
        self._last_taken = 0
        self._refuse_above = MAX_STREAM_ID
        self.streams: dict[int, Stream] = {}
        self.opened: list[Stream] = []
        self.leaving: GoAway | None = None
        self._h2.initiate_connection()
        if limits.session_window_bytes > DEFAULT_WINDOW:
            self._h2.increment_flow_control_window(limits.session_window_bytes - DEFAULT_WINDOW)
        self._outlet.collect()

    @property
    def backlog(self) -> int:
        """Bytes of control frames that the peer has not taken: at some point it is read no further."""
        return len(self._outlet)

    @property
    def full(self) -> bool:
        """Of a client: whether the server takes no further call at the moment."""
        return len(self.streams) >= self._h2.remote_settings.max_concurrent_streams

    def receive(self, untrusted: bytes, now: float) -> None:
        """Take the next bytes of the peer.

        Raises:
            PeerError: the connection is over; send what `pull` returns (a GOAWAY that says why), and close.
        """
        try:
            passed, gone = self._guard.feed(untrusted, now)
            for event in self._h2.receive_data(passed) if passed else ():
                self._act(event, now)
        except PeerError as error:
            self._outlet.put(push_goaway(self._last_taken, error.reply, str(error).encode()))
            raise
        except H2Error as error:
            self._outlet.collect()  # h2 has made the GOAWAY
            code = int(getattr(error, "error_code", Code.PROTOCOL_ERROR))
            raise PeerError(f"the peer breaks the rules of HTTP/2: {error}", code) from error
        for each in gone:
            self._peer_leaves(each)
        self._return_window()
        self._outlet.collect()

    def pull(self, most_bytes: int) -> bytes:
        """What is to be written now, some `most_bytes`; nothing until something changes."""
        return self._outlet.pull(self.streams, most_bytes)

    def open(self, fields: Fields) -> Stream:
        """Begin a call; for clients.

        Raises:
            RpcError: UNAVAILABLE, the server takes no new calls on this connection: try on another one.
        """
        if self.leaving is not None:
            raise RpcError(Status.UNAVAILABLE, "the server is leaving (GOAWAY)")
        try:
            stream_id = self._h2.get_next_available_stream_id()
            self._h2.send_headers(stream_id, fields)
        except H2Error as error:
            raise RpcError(Status.UNAVAILABLE, f"no call can be opened here any more: {error}") from error
        stream = self.streams[stream_id] = Stream(stream_id, self._limits.message_bytes)
        return stream

    def begin(self, stream: Stream) -> None:
        """Send the fields that begin an answer; of a server, before the first message."""
        if stream.id in self.streams:
            self._h2.send_headers(stream.id, response())

    def refuse(self, stream: Stream, fields: Fields) -> None:
        """Send a whole answer of nothing but fields; of a server."""
        if stream.id in self.streams:
            self._h2.send_headers(stream.id, fields, end_stream=True)
            stream.finished = True
            self._finished(stream)

    def want(self, stream: Stream) -> None:
        """Somebody waits for the next message, all others are taken: the peer may send it."""
        stream.wanted = True
        self._settle(stream)
        self._return_stream_window(stream)
        self._return_window()

    def reset(self, stream: Stream, code: Code) -> None:
        """Give a call up. Harmless for one that is over."""
        if self._drop(stream.id) is not None:
            self._send_reset(stream.id, code)
            self._return_window()

    def ping(self) -> None:
        """Ask the peer whether it is there; anything that it sends is an answer."""
        self._h2.ping(b"alive?!?")

    def go_away(self, *, final: bool) -> None:
        """Tell the peer that no new calls are taken; of a server first as a warning, then in earnest: calls
        that were under way to us when the warning came are still taken (RFC 9113 section 6.8)."""
        if final:
            self._refuse_above = self._last_taken
        self._outlet.put(push_goaway(self._last_taken if final else MAX_STREAM_ID, Code.NO_ERROR))

    def fail(self, error: RpcError) -> None:
        """The connection is lost, and with it every call."""
        lost = tuple(self.streams.values())
        self.streams.clear()
        for stream in lost:
            stream.fail(error)

    def _act(self, event: Event, now: float) -> None:
        match event:
            case DataReceived(stream_id=int()):
                self._data(event, now)
            case RequestReceived(stream_id=int(stream_id)):
                self._request(stream_id, event)
            case ResponseReceived(stream_id=int(stream_id)):
                if stream := self.streams.get(stream_id):
                    stream.head, stream.head_ended = event.headers, event.stream_ended is not None
                    stream.changed()
            case TrailersReceived(stream_id=int(stream_id)):
                if stream := self.streams.get(stream_id):
                    stream.trailers = event.headers
            case StreamEnded(stream_id=int(stream_id)):
                if stream := self.streams.get(stream_id):
                    self._peer_ended(stream)
            case StreamReset(stream_id=int(stream_id)):
                self._reset(stream_id, event, now)

    def _request(self, stream_id: int, event: RequestReceived) -> None:
        if stream_id > self._refuse_above:
            self._send_reset(stream_id, Code.REFUSED_STREAM)
            return
        self._last_taken = stream_id
        stream = self.streams[stream_id] = Stream(stream_id, self._limits.message_bytes)
        stream.head = event.headers
        self.opened.append(stream)

    def _data(self, event: DataReceived, now: float) -> None:
        length = event.flow_controlled_length or 0
        stream = self.streams.get(event.stream_id or 0)
        if stream is None or stream.error is not None:
            self._unreturned += length
            return
        stream.held_bytes += length
        if self._server and not stream.wanted:
            stream.owed_bytes += length
        else:
            self._unreturned += length
        try:
            messages = stream.reader.feed(event.data or b"")
        except RpcError as error:
            self._guard.budget.spend(_RESET_BY_US, now)
            self._misfit(stream, error)
            return
        if messages:
            stream.messages.extend(messages)
            stream.wanted = False
            stream.changed()
        self._return_stream_window(stream)

    def _misfit(self, stream: Stream, error: RpcError) -> None:
        """The peer's messages cannot be taken: a client gives up, a server's call says so in its answer."""
        if not self._server:
            self.reset(stream, Code.CANCEL)
        stream.fail(error)

    def _peer_ended(self, stream: Stream) -> None:
        stream.ended = True
        if stream.finished:
            self._drop(stream.id)
            self._guard.budget.give_back()
        if stream.reader.partial and stream.error is None and stream.trailers is None:
            self._misfit(stream, RpcError(Status.INTERNAL, "the peer ended within a message"))
        stream.changed()

    def _finished(self, stream: Stream) -> None:
        """Our side of a stream has ended."""
        if stream.ended:
            self._drop(stream.id)
            self._return_window()
            self._guard.budget.give_back()
        elif self._server:
            # What the client still sends is of no use (RFC 9113 section 8.1).
            self.reset(stream, Code.NO_ERROR)
        stream.changed()

    def _reset(self, stream_id: int, event: StreamReset, now: float) -> None:
        if not event.remote_reset:
            self._guard.budget.spend(_RESET_BY_US, now)
        stream = self._drop(stream_id)
        if stream is None:
            return
        code = int(event.error_code or 0)
        if code == Code.NO_ERROR and stream.ended:
            stream.finished = True  # the server has answered in full and needs nothing more of us
            stream.changed()
        else:
            stream.fail(from_reset(code))

    def _peer_leaves(self, goaway: GoAway) -> None:
        self.leaving = goaway
        if self._server:
            return
        for stream in [each for each in self.streams.values() if each.id > goaway.last_stream_id]:
            del self.streams[stream.id]
            stream.fail(
                RpcError(Status.UNAVAILABLE, f"the server left before it looked at the call ({goaway})")
            )

    def _drop(self, stream_id: int) -> Stream | None:
        """A stream that is over, if there is one; what it holds is held no longer."""
        stream = self.streams.pop(stream_id, None)
        if stream is not None:
            self._settle(stream)
        return stream

    def _settle(self, stream: Stream) -> None:
        self._unreturned += stream.owed_bytes
        stream.owed_bytes = 0

    def _return_window(self) -> None:
        if self._unreturned >= self._limits.session_window_bytes // 4:
            self._h2.increment_flow_control_window(self._unreturned)
            self._unreturned = 0

    def _return_stream_window(self, stream: Stream) -> None:
        due = stream.wanted and stream.held_bytes >= self._limits.window_bytes // 4
        if due and not stream.ended and stream.id in self.streams:
            with suppress(H2Error, KeyError):  # h2 has seen its end, in the same piece of input
                self._h2.increment_flow_control_window(stream.held_bytes, stream.id)
            stream.held_bytes = 0

    def _send_reset(self, stream_id: int, code: Code) -> None:
        with suppress(H2Error):  # as above
            self._h2.reset_stream(stream_id, ErrorCodes(code))


def _connection(limits: Limits, server: bool) -> H2Connection:
    h2 = H2Connection(H2Configuration(client_side=not server, header_encoding=None))
    settings = {
        SettingCodes.INITIAL_WINDOW_SIZE: limits.window_bytes,
        SettingCodes.MAX_FRAME_SIZE: limits.frame_bytes,
        SettingCodes.MAX_CONCURRENT_STREAMS: limits.streams,
        SettingCodes.MAX_HEADER_LIST_SIZE: limits.header_bytes,
        SettingCodes.ENABLE_PUSH: 0,
    }
    h2.local_settings = Settings(client=not server, initial_values=settings)
    h2.max_inbound_frame_size = limits.frame_bytes
    h2.decoder.max_header_list_size = limits.header_bytes
    return h2
