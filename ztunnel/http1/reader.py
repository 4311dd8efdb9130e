"""Reads the messages of one peer, one after the other: bytes in, calls out.

```
head ──> none: end            length: bytes counted down ──> end
     ├─> chunked: size ─> data ─> CR LF ─> size ... 0 ─> trailers ─> end
     └─> close: whatever comes, until the peer closes (responses only)
end ── next ──> head
```

Payload is passed on as it comes, without a copy. What is done in one call is bounded: chunks of one byte cost
their sender's next turn, not the others'.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final, Protocol

from ztunnel.errors import PeerError
from ztunnel.http1.framing import Frame, Framing, frame_request, frame_response
from ztunnel.http1.head import (
    BAD_REQUEST,
    MAX_HEAD_BYTES,
    TOO_LARGE,
    Fields,
    check_beginning,
    parse_fields,
    parse_request_head,
    parse_response_head,
)

_VERSION: Final = b"HTTP/1."
_HEAD_END: Final = b"\r\n\r\n"
_CHUNK_HEAD: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(;[\t -~\x80-\xff]*)?\r\n")
_CHUNK_BEGINNING: Final = re.compile(rb"(?:[0-9A-Fa-f]{1,15}(?:;[\t -~\x80-\xff]*)?\r?)?")
_PADDED_HEAD: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]{0,16}(;[\t -~\x80-\xff]*)?\r\n")
_PADDED_BEGINNING: Final = re.compile(rb"(?:[0-9A-Fa-f]{1,15}[ \t]{0,16}(?:;[\t -~\x80-\xff]*)?\r?)?")
"""Servers and load balancers pad the sizes of chunks (akka/akka-http#1812, valyala/fasthttp#372); of clients
that could be two requests for two readers."""

_MAX_CHUNK_HEAD_BYTES: Final = 1024
_MAX_TRAILER_BYTES: Final = 16 * 1024
_EXTENSION_BYTES: Final = 16 * 1024
"""Of all chunks of a message: nobody uses them, and they cost nothing to send (Go CVE-2023-39326)."""

_WORK_PER_CALL: Final = 64
_HEAD_WORK: Final = 8
"""So many chunks, or an eighth as many heads: less than a millisecond."""

_NO_TRAILERS: Final = frozenset(
    b"transfer-encoding content-length host trailer connection upgrade te expect".split()
)
"""What frames or routes a message says nothing behind it (RFC 9110 section 6.5.1)."""


NOTHING: Fields = ()
"""No trailers."""

_NO_FRAME: Final = Frame(Framing.NONE)
_REMEMBERED_BYTES: Final = 2048
"""A head of so many bytes at most is remembered, one of each peer."""


class Events(Protocol):
    """What a message is made of, as it comes."""

    def on_head(self, untrusted: Fields, frame: Frame) -> None:
        """A head, and what follows it. `on_end` comes in any case, also where nothing does."""

    def on_body(self, payload: memoryview) -> None:
        """Some of the body; the view is void after the call."""

    def on_end(self, trailers: Fields) -> None:
        """The message is whole."""


class State(Enum):
    """What comes next."""

    HEAD = "head"
    LENGTH = "length"
    CHUNK = "chunk"
    DATA = "data"
    DATA_END = "data end"
    TRAILERS = "trailers"
    CLOSE = "close"
    END = "end"


class MessageReader:
    """The receiving end of a connection. Subclasses say which role the peer has.

    Attributes:
        state: what comes next; at END nothing is taken until `next`.
    """

    def __init__(self, events: Events) -> None:
        self._events = events
        self.state = State.HEAD
        self._kept = bytearray()
        self._left = 0
        self._extensions = 0
        self._chunk_head, self._chunk_beginning = _CHUNK_HEAD, _CHUNK_BEGINNING
        self._blank = False
        # The last head, and what it says: most peers say the same again and again.
        self._last = b""
        self._fields: Fields = NOTHING
        self._frame = _NO_FRAME

    @property
    def begun(self) -> bool:
        """Whether some of a message has come that is not whole."""
        return self.state is not State.END and (self.state is not State.HEAD or bool(self._kept))

    def next(self) -> None:
        """Take the next message."""
        self.state = State.HEAD

    def stop(self) -> None:
        """Take nothing more."""
        self.state = State.END
        self._kept.clear()

    def read(self, untrusted: memoryview) -> int:
        """Take what can be taken now.

        Returns:
            How many bytes; the others are to be given again: behind the end of the message after `next`, and
            otherwise in the next round, because enough was done for the peer in this one.

        Raises:
            PeerError: the connection cannot go on; `reply` is the status to answer a request with.
        """
        at, end, work = 0, len(untrusted), 0
        while at < end and self.state is not State.END and work < _WORK_PER_CALL:
            state = self.state
            if state is State.LENGTH or state is State.DATA:
                at = self._payload(untrusted, at)
            elif state is State.HEAD:
                work += _HEAD_WORK
                at = self._head(untrusted, at)
            elif state is State.CLOSE:
                self._events.on_body(untrusted[at:])
                at = end
            else:
                work += 1
                at = self._between(untrusted, at)
        return at

    def ended(self) -> None:
        """The peer has closed its side.

        Raises:
            PeerError: in the middle of a message.
        """
        if self.state is State.CLOSE:
            self._whole(())
        elif self.begun:
            raise PeerError("the connection ended in the middle of a message", BAD_REQUEST)

    def _parse(self, untrusted: bytes) -> tuple[Fields, Frame]:
        raise NotImplementedError

    def _check(self, untrusted: bytearray) -> None:
        """Refuse what a head cannot begin with."""
        check_beginning(untrusted)

    def _head(self, view: memoryview, at: int) -> int:
        kept = self._kept
        known = len(kept)
        last = self._last
        if last and not known and bytes(view[at : at + len(last)]) == last:
            self._say(self._fields, self._frame)
            return at + len(last)
        kept += view[at : at + MAX_HEAD_BYTES + len(_HEAD_END)]
        if kept.startswith(b"\r\n") and not self._blank:
            self._blank = True  # one is allowed behind a body (RFC 9112 section 2.2)
            kept.clear()
            return at + 2 - known
        stop = kept.find(_HEAD_END, max(known - 3, 0))
        if stop < 0:
            if kept != b"\r":
                self._check(kept)
            return len(view)
        stop += len(_HEAD_END)
        octets = bytes(kept[:stop])
        kept.clear()
        if octets != self._last:
            check_beginning(octets[:1])
            if stop > MAX_HEAD_BYTES:
                raise PeerError(f"a head above {MAX_HEAD_BYTES} bytes", TOO_LARGE)
            self._fields, self._frame = self._parse(octets)
            self._last = octets if stop <= _REMEMBERED_BYTES else b""
        self._say(self._fields, self._frame)
        return at + stop - known

    def _say(self, fields: Fields, frame: Frame) -> None:
        """A head is whole."""
        self._blank = False
        self._begin(frame)
        self._events.on_head(fields, frame)
        if frame.framing is Framing.NONE:
            self._whole(())

    def _begin(self, frame: Frame) -> None:
        self._left, self._extensions = frame.length, 0
        if frame.framing is Framing.LENGTH:
            self.state = State.LENGTH
        elif frame.framing is Framing.CHUNKED:
            self.state = State.CHUNK
        elif frame.framing is Framing.CLOSE:
            self.state = State.CLOSE

    def _payload(self, view: memoryview, at: int) -> int:
        count = min(self._left, len(view) - at)
        self._left -= count
        self._events.on_body(view[at : at + count])
        if not self._left:
            if self.state is State.DATA:
                self.state = State.DATA_END
            elif self.state is State.LENGTH:
                self._whole(())
        return at + count

    def _between(self, view: memoryview, at: int) -> int:
        """What is between the data of chunks."""
        if self.state is State.TRAILERS:
            return self._trailers(view, at)
        line, after = self._line(view, at)
        if line is None:
            return after
        if self.state is State.DATA_END:
            if line != b"\r\n":
                raise PeerError("a chunk that does not end where it said", BAD_REQUEST)
            self.state = State.CHUNK
            return after
        found = self._chunk_head.fullmatch(line)
        if found is None:
            raise PeerError("not the size of a chunk", BAD_REQUEST)
        self._extensions += len(line)
        if self._extensions > _EXTENSION_BYTES and found[2]:
            raise PeerError("extensions of chunks without end", BAD_REQUEST)
        self._left = int(found[1], 16)
        self.state = State.DATA if self._left else State.TRAILERS
        return after

    def _line(self, view: memoryview, at: int) -> tuple[bytes | None, int]:
        """The next line, and what is behind it; None where it is not whole."""
        kept = self._kept
        known = len(kept)
        kept += view[at : at + _MAX_CHUNK_HEAD_BYTES]
        stop = kept.find(b"\n")
        if stop < 0:
            if self.state is State.DATA_END:
                fits = b"\r\n".startswith(kept)
            else:
                begins = self._chunk_beginning.fullmatch(kept) is not None
                fits = begins and len(kept) <= _MAX_CHUNK_HEAD_BYTES
            if not fits:
                raise PeerError("not the size or the end of a chunk", BAD_REQUEST)
            return None, min(len(view), at + _MAX_CHUNK_HEAD_BYTES)
        line = bytes(kept[: stop + 1])
        kept.clear()
        return line, at + stop + 1 - known

    def _trailers(self, view: memoryview, at: int) -> int:
        kept = self._kept
        known = len(kept)
        kept += view[at : at + _MAX_TRAILER_BYTES]
        if kept.startswith(b"\r\n"):
            stop, trailers = 2, NOTHING
        else:
            stop = kept.find(_HEAD_END, max(known - 3, 0)) + len(_HEAD_END)
            if stop < len(_HEAD_END):
                if len(kept) > _MAX_TRAILER_BYTES:
                    raise PeerError("trailers without end", TOO_LARGE)
                if kept != b"\r":
                    check_beginning(kept)
                return min(len(view), at + _MAX_TRAILER_BYTES)
            trailers = tuple(parse_fields(bytes(kept[:stop])))
            if not _NO_TRAILERS.isdisjoint([field[0] for field in trailers]):
                raise PeerError("a trailer that frames or routes a message", BAD_REQUEST)
        kept.clear()
        self._whole(trailers)
        return at + stop - known

    def _whole(self, trailers: Fields) -> None:
        self.state = State.END
        self._events.on_end(trailers)


class RequestReader(MessageReader):
    """The peer is a client."""

    def _parse(self, untrusted: bytes) -> tuple[Fields, Frame]:
        fields = parse_request_head(untrusted)
        return fields, frame_request(fields)


class ResponseReader(MessageReader):
    """The peer is a server. `asked` is the method of the request that the next response is to; responses that
    are only interim (1xx) come before it, each a message of its own."""

    def __init__(self, events: Events) -> None:
        super().__init__(events)
        self._chunk_head, self._chunk_beginning = _PADDED_HEAD, _PADDED_BEGINNING
        self._asked = b""

    @property
    def asked(self) -> bytes:
        """See above."""
        return self._asked

    @asked.setter
    def asked(self, method: bytes) -> None:
        if method != self._asked:
            self._asked, self._last = method, b""  # the same head frames another body

    def _check(self, untrusted: bytearray) -> None:
        if untrusted[: len(_VERSION)] != _VERSION[: len(untrusted)]:
            raise PeerError("not a status line", BAD_REQUEST)
        check_beginning(untrusted)

    def _parse(self, untrusted: bytes) -> tuple[Fields, Frame]:
        fields, old = parse_response_head(untrusted)
        return fields, frame_response(fields, self._asked, old)
