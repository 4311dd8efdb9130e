"""The head of a message: its first line and its fields (RFC 9112 sections 2 to 5), read by the grammar alone.

A head is taken as a whole or not at all. No line may end in anything but CR LF, no name may have a blank
behind it, no line may be folded, no value may hold a control character: where two parsers could read two
messages out of the same bytes, there is none. Fields are those of HTTP/2: names in lower case, the first line
as pseudo-header fields before them.
"""

from __future__ import annotations

import re
from typing import Final

from ztunnel.errors import PeerError

Fields = tuple[tuple[bytes, bytes], ...]
"""Fields in order, names in lower case, pseudo-header fields (`:method`) first."""

BAD_REQUEST: Final = 400
TOO_LARGE: Final = 431
NOT_IMPLEMENTED: Final = 501
TOO_OLD: Final = 426
NO_SUCH_VERSION: Final = 505

MAX_HEAD_BYTES: Final = 60 * 1024
"""Envoy's max_request_headers_kb."""

MAX_FIELDS: Final = 100
"""Envoy's max_headers_count."""

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_REQUEST_LINE: Final = re.compile(rb"(" + _TOKEN + rb"{1,64}) ([!-~]+) HTTP/([0-9])\.([0-9])\r\n")
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: [\t -~\x80-\xff]*)?\r\n")
_FIELD: Final = re.compile(rb"(" + _TOKEN + rb"+):([\t -~\x80-\xff]*)\r\n")
_FIELDS: Final = re.compile(rb"(?:" + _TOKEN + rb"+:[\t -~\x80-\xff]*\r\n)*")
_START: Final = re.compile(_TOKEN)
_BARE_END: Final = re.compile(rb"(?:\A|[^\r])\n|\r[^\n]")
_BLANK: Final = b" \t"

_REASONS: Final = {
    100: b"Continue", 101: b"Switching Protocols", 200: b"OK", 201: b"Created", 202: b"Accepted",
    204: b"No Content", 206: b"Partial Content", 301: b"Moved Permanently", 302: b"Found", 303: b"See Other",
    304: b"Not Modified", 307: b"Temporary Redirect", 308: b"Permanent Redirect", 400: b"Bad Request",
    401: b"Unauthorized", 403: b"Forbidden", 404: b"Not Found", 405: b"Method Not Allowed",
    408: b"Request Timeout", 409: b"Conflict", 413: b"Payload Too Large", 426: b"Upgrade Required",
    429: b"Too Many Requests", 431: b"Request Header Fields Too Large", 500: b"Internal Server Error",
    501: b"Not Implemented", 502: b"Bad Gateway", 503: b"Service Unavailable", 504: b"Gateway Timeout",
    505: b"HTTP Version Not Supported",
}  # fmt: skip
"""Of the statuses that are common; others go without a reason (RFC 9112 section 4)."""

_STATUS_LINES: Final = {
    b"%d" % status: b"HTTP/1.1 %d %b\r\n" % (status, reason) for status, reason in _REASONS.items()
}


def parse_request_head(untrusted: bytes) -> Fields:
    """`:method`, `:path` (the request target as it is), then the fields.

    Args:
        untrusted: the head with its empty line.

    Raises:
        PeerError: `reply` is the status to answer with.
    """
    line = _REQUEST_LINE.match(untrusted)
    if line is None:
        raise PeerError("not a request line", BAD_REQUEST)
    if line[3] != b"1":
        raise PeerError("not HTTP/1", NO_SUCH_VERSION)
    if line[4] == b"0":
        raise PeerError("HTTP/1.0", TOO_OLD)
    if line[4] != b"1":
        raise PeerError("not HTTP/1.1", NO_SUCH_VERSION)
    return ((b":method", line[1]), (b":path", line[2]), *parse_fields(untrusted, line.end()))


def parse_response_head(untrusted: bytes) -> tuple[Fields, bool]:
    """`:status`, then the fields; and whether it is of HTTP/1.0. Raises PeerError."""
    line = _STATUS_LINE.match(untrusted)
    if line is None:
        raise PeerError("not a status line", BAD_REQUEST)
    return ((b":status", line[2]), *parse_fields(untrusted, line.end())), line[1] == b"0"


def parse_fields(untrusted: bytes, start: int = 0) -> list[tuple[bytes, bytes]]:
    """The field lines from `start` on, an empty line behind them. Raises PeerError."""
    stop = len(untrusted) - 2
    if _FIELDS.fullmatch(untrusted, start, stop) is None:
        raise PeerError("not field lines", BAD_REQUEST)
    found = [(name.lower(), value.strip(_BLANK)) for name, value in _FIELD.findall(untrusted, start, stop)]
    if len(found) > MAX_FIELDS:
        raise PeerError(f"more than {MAX_FIELDS} fields", TOO_LARGE)
    return found


def check_beginning(untrusted: bytes | bytearray) -> None:
    """What a head cannot begin with is refused before it is whole: TLS, another protocol, bare line ends.
    Raises PeerError."""
    if untrusted and _START.match(untrusted) is None:
        raise PeerError("not the beginning of a message", BAD_REQUEST)
    if _BARE_END.search(untrusted) is not None:
        raise PeerError("a line that does not end in CR LF", BAD_REQUEST)
    if len(untrusted) > MAX_HEAD_BYTES:
        raise PeerError(f"a head above {MAX_HEAD_BYTES} bytes", TOO_LARGE)


def push_request_head(method: bytes, target: bytes, fields: list[tuple[bytes, bytes]]) -> bytes:
    """A request's head; `fields` are without pseudo-header fields and well formed."""
    parts = [method, b" ", target, b" HTTP/1.1\r\n"]
    _push_lines(parts, fields)
    return b"".join(parts)


def push_response_head(status: bytes, fields: list[tuple[bytes, bytes]]) -> bytes:
    """A response's head; `status` in digits, `fields` as of `push_request_head`."""
    parts = [_STATUS_LINES.get(status) or b"HTTP/1.1 %b \r\n" % status]
    _push_lines(parts, fields)
    return b"".join(parts)


def _push_lines(parts: list[bytes], fields: list[tuple[bytes, bytes]]) -> None:
    for name, value in fields:
        parts.append(name)
        parts.append(b": ")
        parts.append(value)
        parts.append(b"\r\n")
    parts.append(b"\r\n")
