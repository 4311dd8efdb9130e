"""Where a message's body ends, and whether the connection goes on behind it (RFC 9112 section 6).

The gate against request smuggling: exactly one way to frame a body, said exactly once. `Transfer-Encoding` is
`chunked` and nothing else, `Content-Length` is one number in digits, both together are refused, as is either
of them twice.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final, NamedTuple

from ztunnel.errors import PeerError
from ztunnel.http1.head import BAD_REQUEST, NOT_IMPLEMENTED, Fields

_DIGITS: Final = re.compile(rb"[0-9]{1,18}")
_KEPT: Final = re.compile(rb"(?:.*[,\t ])?timeout=([0-9]{1,6})(?![0-9])", re.IGNORECASE)
_NO_BODY: Final = frozenset((b"204", b"304"))


_JOINED_BYTES: Final = 4096
"""A chunk that is smaller is copied into one piece with its size."""


class Framing(Enum):
    """How a body ends."""

    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"


class Frame(NamedTuple):
    """What a head says of what follows it.

    Attributes:
        length: of the body in bytes, where `framing` is LENGTH.
        close: the connection ends behind the message.
        upgrade: the protocols asked for or switched to, in lower case, with commas; empty for none.
        expects: the client waits for 100 (Continue) before it sends the body.
        kept_seconds: for how long a server keeps a connection that carries nothing (`Keep-Alive`, RFC 2068
            section 19.7.1.1); -1: it does not say.
    """

    framing: Framing
    length: int = 0
    close: bool = False
    upgrade: bytes = b""
    expects: bool = False
    kept_seconds: int = -1

    @property
    def has_body(self) -> bool:
        """Whether something follows the head."""
        return self.framing is not Framing.NONE


def frame_request(untrusted: Fields) -> Frame:
    """The frame of a request.

    Raises:
        PeerError: it is framed in no way or in several; `reply` is the status to answer with.
    """
    length, chunked, options, upgrade, expects, _ = _say(untrusted)
    if expects and expects.lower() != b"100-continue":
        raise PeerError("an expectation that is not 100-continue", 417)
    framing = Framing.CHUNKED if chunked else (Framing.LENGTH if length > 0 else Framing.NONE)
    wants = upgrade if b"upgrade" in options else b""
    return Frame(framing, max(length, 0), b"close" in options, wants, bool(expects))


def frame_response(untrusted: Fields, method: bytes, old: bool) -> Frame:
    """The frame of a response to a request of `method`; `old`: it is of HTTP/1.0.

    Raises:
        PeerError: as of `frame_request`.
    """
    status = untrusted[0][1]
    length, chunked, options, upgrade, _, kept = _say(untrusted)
    if chunked and old:
        raise PeerError("Transfer-Encoding in HTTP/1.0", BAD_REQUEST)
    close = b"close" in options or (old and b"keep-alive" not in options)
    if status == b"101":
        return Frame(Framing.NONE, 0, False, upgrade)
    if method == b"HEAD" or status in _NO_BODY or status.startswith(b"1"):
        return Frame(Framing.NONE, 0, close, kept_seconds=kept)
    if chunked:
        return Frame(Framing.CHUNKED, 0, close, kept_seconds=kept)
    if length >= 0:
        return Frame(Framing.LENGTH if length else Framing.NONE, length, close, kept_seconds=kept)
    return Frame(Framing.CLOSE, 0, True)


def _say(untrusted: Fields) -> tuple[int, bool, frozenset[bytes], bytes, bytes, int]:
    """Length (-1 for none), whether chunked, the connection's options, `upgrade`, `expect`, and the time of
    `keep-alive` (-1 for none)."""
    length, chunked, upgrade, expects, kept = -1, False, b"", b"", -1
    options: frozenset[bytes] = frozenset()
    for name, value in untrusted:
        if name == b"content-length":
            if length >= 0 or _DIGITS.fullmatch(value) is None:
                raise PeerError("Content-Length twice, or not a number", BAD_REQUEST)
            length = int(value)
        elif name == b"transfer-encoding":
            _require_chunked(value, chunked)
            chunked = True
        elif name == b"connection":
            options |= connection_options(value)
        elif name == b"upgrade":
            upgrade = upgrade + b"," + value.lower() if upgrade else value.lower()
        elif name == b"expect":
            expects = value
        elif name == b"keep-alive":
            found = _KEPT.match(value)
            kept = int(found[1]) if found is not None else -1
    if chunked and length >= 0:
        raise PeerError("Content-Length beside Transfer-Encoding", BAD_REQUEST)
    return length, chunked, options, upgrade, expects, kept


def _require_chunked(untrusted: bytes, again: bool) -> None:
    """Raises PeerError for a Transfer-Encoding that is another, or not the only one."""
    coding = untrusted.lower()
    if again or coding != b"chunked":
        reply = BAD_REQUEST if again or b"chunked" in coding else NOT_IMPLEMENTED
        raise PeerError("a Transfer-Encoding that is not exactly chunked", reply)


def connection_options(value: bytes) -> frozenset[bytes]:
    """The options of a `connection` field, in lower case."""
    return frozenset(option.strip(b" \t") for option in value.lower().split(b",")) - {b""}


def push_chunk(payload: memoryview) -> tuple[bytes | memoryview, ...]:
    """A chunk of a body, in the pieces that it is written in; it is not empty (RFC 9112 section 7.1)."""
    size = len(payload)
    if size < _JOINED_BYTES:
        return (b"%x\r\n%b\r\n" % (size, bytes(payload)),)
    return b"%x\r\n" % size, payload, b"\r\n"


def push_last_chunk(trailers: Fields) -> bytes:
    """The end of a chunked body."""
    return b"0\r\n%b\r\n" % b"".join([b"%b: %b\r\n" % field for field in trailers])
