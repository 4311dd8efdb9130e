"""Cuts one peer's byte stream into frames, without holding the payload of any DATA frame.

```
receive ── header ──> DATA: `_begin_data` says who gets it; its bytes are passed on as they come (`_left`)
                 ├──> a frame we know: held until it is whole (`_partial`), then given to its method
                 └──> any other: counted, its payload skipped (`_skip`)
```

What is done for a peer in one round of the engine is bounded (`Standing.work_left`): what it sent beyond that
is kept, and read when `receive` is called again.

This is the hot loop of the data path: a DATA frame that is whole costs no object but the view of its
payload. That is why the protocol's state is a subclass (`H2Connection`) and not a second object.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from ztunnel.errors import PeerError
from ztunnel.http2.block import HeaderBlock
from ztunnel.http2.budget import Glitch, GlitchBudget
from ztunnel.http2.frame import (
    ACK,
    END_STREAM,
    HEADER,
    HEADER_BYTES,
    MAX_STREAM_ID,
    PADDED,
    PREFACE,
    Code,
    Frame,
)
from ztunnel.http2.standing import Standing
from ztunnel.http2.stream import Stream

SMALL_BYTES: Final = 1024
"""Of less, what is passed on together with its neighbours costs less than what is passed on alone."""

FrameMethod = Callable[[int, int, bytes], None]
"""What is done with one whole frame: flags, stream id, payload."""


class FrameReader:
    """The receiving end of a connection. A subclass says what the frames mean.

    Attributes:
        now: monotonic seconds of the last `receive`.
        streams: the open streams by id.
        budget: what the session may still do without carrying anything.
        standing: what the peer may still do, on all its sessions.
        unfinished_since: monotonic seconds; when a frame or a header block began that is not whole; 0: none.
    """

    __slots__ = (
        "_begun",
        "_block",
        "_ends",
        "_frame_limit",
        "_left",
        "_methods",
        "_partial",
        "_preface",
        "_skip",
        "_target",
        "budget",
        "now",
        "standing",
        "streams",
        "unfinished_since",
    )

    def __init__(self, frame_limit_bytes: int, expect_preface: bool, now: float, standing: Standing) -> None:
        self.now = now
        self.streams: dict[int, Stream] = {}
        self.standing = standing
        self.budget = GlitchBudget(now, standing.glitches)
        self._frame_limit = frame_limit_bytes
        self._methods: Mapping[int, tuple[int, FrameMethod]] = {}
        self._preface = PREFACE if expect_preface else b""
        self._begun = not expect_preface
        self._partial: bytes | memoryview = b""
        self._left = 0
        self._skip = 0
        self._target: Stream | None = None
        self._ends = False
        self._block: HeaderBlock | None = None
        self.unfinished_since = 0.0

    def _begin_data(self, stream: Stream | None, stream_id: int, length: int, flags: int) -> Stream | None:
        """Account for a DATA frame. Returns who gets its payload, None for nobody."""
        raise NotImplementedError

    def _has_room(self, stream: Stream, length: int) -> bool:
        """Whether the windows allow a DATA frame of that length."""
        raise NotImplementedError

    def _end_remote(self, stream: Stream) -> None:
        """The peer has ended the stream."""
        raise NotImplementedError

    def _discard(self, count: int) -> None:
        """Bytes of a DATA frame that nobody wants."""
        raise NotImplementedError

    def _give(self, stream: Stream, count: int) -> None:
        """Bytes of a stream's DATA frame that are not its payload."""
        raise NotImplementedError

    def receive(self, untrusted: memoryview, now: float) -> bool:
        """What the peer sent. The streams and the host hear of it before this returns.

        Returns:
            True where the peer sent more than is done for it in a round: call again in the next one, with
            nothing or with what came.

        Raises:
            PeerError: the connection is over; `reply` is the code to say it with.
        """
        self.now = now
        view, at = self._resume(untrusted)
        first, end = at, len(view)
        unpack = HEADER.unpack_from
        streams, standing = self.streams, self.standing
        while end - at >= HEADER_BYTES:
            if standing.work_left <= 0:
                self._keep(view[at:] if view is not untrusted else bytes(view[at:]), at > first)
                return True
            standing.work_left -= 1
            head, flags, stream_id = unpack(view, at)
            if head & 0xFF or flags & PADDED or self._block is not None:
                after = self._other_frame(view, at)
                if after < 0:
                    break
                at = after
                continue
            at += HEADER_BYTES
            length = head >> 8
            target = self._begin_data(streams.get(stream_id), stream_id, length, flags)
            stop = at + length
            if stop > end:
                self._left, self._target, self._ends = length, target, bool(flags & END_STREAM)
                at = self._continue(view, at)
                break
            if target is None:
                self._discard(length)
            elif length:
                stop = self._pass_on(target, stream_id, flags, view, at, stop)
            if flags & END_STREAM and target is not None:
                self._end_remote(target)
            at = stop
        if at < end or self._block is not None or self.unfinished_since:
            self._keep(bytes(view[at:]), at > first)
        return False

    def _keep(self, rest: bytes | memoryview, progress: bool) -> None:
        """What is not whole waits. A header block is not since its first frame, whatever comes of it."""
        self._partial = rest
        if self._block is None and (progress or not self._partial):
            self.unfinished_since = 0.0
        if (self._partial or self._block is not None) and not self.unfinished_since:
            self.unfinished_since = self.now

    def _pass_on(  # noqa: PLR0913 (where the frame is, and what it is)
        self, target: Stream, stream_id: int, flags: int, view: memoryview, at: int, stop: int
    ) -> int:
        """A payload. A little one goes together with those that follow it, so that the application gets them
        by one system call and not by one for each. Returns where the last of them ends."""
        end = len(view)
        if flags or stop - at >= SMALL_BYTES or end - stop <= HEADER_BYTES:
            target.ending = flags & END_STREAM != 0
            target.on_data(view[at:stop])
            return stop
        standing = self.standing
        joined = bytearray()
        while end - stop > HEADER_BYTES and standing.work_left > 0:
            head, flags, next_id = HEADER.unpack_from(view, stop)
            length = head >> 8
            after = stop + HEADER_BYTES + length
            if head & 0xFF or flags or next_id != stream_id or after > end or not 0 < length < SMALL_BYTES:
                break
            if not self._has_room(target, length):
                break
            standing.work_left -= 1
            self._begin_data(target, stream_id, length, flags)
            joined += view[at:stop]
            at, stop = stop + HEADER_BYTES, after
        if joined:
            joined += view[at:stop]
            target.on_data(memoryview(joined))
        else:
            target.on_data(view[at:stop])
        return stop

    def _resume(self, view: memoryview) -> tuple[memoryview, int]:
        """Finish what an earlier piece began. Returns where to go on."""
        at = 0
        if self._preface:
            at = min(len(self._preface), len(view))
            if view[:at] != self._preface[:at]:
                raise PeerError("not an HTTP/2 preface", Code.PROTOCOL_ERROR)
            self._preface = self._preface[at:]
        if self._left or self._skip:
            at = self._continue(view, at)
        elif self._partial:
            # The start of a frame that is held whole: at most the limit for headers. Or what is left of a
            # read, which is not copied anew for each round that does a little of it.
            joined = b"".join((self._partial, view)) if len(view) else self._partial
            view, self._partial = memoryview(joined), b""
        return view, at

    def _continue(self, view: memoryview, at: int) -> int:
        """Pass on, or skip, what `view` holds of the current frame's payload. Returns where it ends."""
        if self._left:
            part = view[at : at + self._left]
            at += len(part)
            self._left -= len(part)
            target = self._target
            if target is None or target.closed:
                self._discard(len(part))
            elif part:
                target.on_data(part)
            if not self._left:
                self._target = None
                if target is not None and self._ends:
                    self._end_remote(target)
        if self._skip and not self._left:
            skipped = min(self._skip, len(view) - at)
            self._skip -= skipped
            at += skipped
        return at

    def _other_frame(self, view: memoryview, at: int) -> int:
        """Any frame but plain DATA. Returns where it ends, -1 where it is not whole yet."""
        head, flags, stream_id = HEADER.unpack_from(view, at)
        kind, length = head & 0xFF, head >> 8
        if length > self._frame_limit:
            raise PeerError("a frame above our limit", Code.FRAME_SIZE_ERROR)
        if self._block is not None and kind != Frame.CONTINUATION:
            raise PeerError("a header block was interrupted", Code.PROTOCOL_ERROR)
        stream_id &= MAX_STREAM_ID
        if not self._begun:
            self._begun = True
            if kind != Frame.SETTINGS or flags & ACK:
                raise PeerError("the preface does not end with SETTINGS", Code.PROTOCOL_ERROR)
        if kind == Frame.DATA:
            return self._padded_data(view, at)
        handler = self._methods.get(kind)
        if handler is None:
            self.budget.spend(Glitch.UNKNOWN, self.now)
            self._skip = length
            return self._continue(view, at + HEADER_BYTES)
        limit, handle = handler
        if length > limit:
            raise PeerError(f"a {Frame(kind).name} frame of {length} bytes", Code.FRAME_SIZE_ERROR)
        stop: int = at + HEADER_BYTES + length
        if stop > len(view):
            return -1
        handle(flags, stream_id, bytes(view[at + HEADER_BYTES : stop]))
        return stop

    def _padded_data(self, view: memoryview, at: int) -> int:
        """DATA with padding: the padding counts for flow control, and nobody takes it."""
        head, flags, stream_id = HEADER.unpack_from(view, at)
        length = head >> 8
        at += HEADER_BYTES
        if not length:
            raise PeerError("padding without a length", Code.FRAME_SIZE_ERROR)
        if at == len(view):
            return -1
        padding = view[at]
        if padding >= length:
            raise PeerError("more padding than payload", Code.PROTOCOL_ERROR)
        if length == padding + 1 and not flags & END_STREAM:
            self.budget.spend(Glitch.EMPTY, self.now)
        target = self._begin_data(self.streams.get(stream_id), stream_id, length, flags)
        if target is None:
            self._discard(padding + 1)
        else:
            self._give(target, padding + 1)
        self._left, self._skip = length - 1 - padding, padding
        self._target, self._ends = target, bool(flags & END_STREAM)
        if not self._left and self._ends and target is not None:
            self._end_remote(target)
        return self._continue(view, at + 1)
