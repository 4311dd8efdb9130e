"""A response as it goes back to the client, whichever version its server speaks.

What HTTP/2 frames by itself, HTTP/1.1 frames by fields: a response whose fields say another length than it
has, or that is no response at all, would make a client of HTTP/1.1 take the rest of it for the next one.
"""

from __future__ import annotations

import re
from typing import Final

from ztunnel.errors import PeerError
from ztunnel.http1.framing import connection_options
from ztunnel.http1.head import Fields
from ztunnel.l7.field import can_stand_in_lines

_STATUS: Final = re.compile(rb"[1-9][0-9][0-9]")
_DIGITS: Final = re.compile(rb"[0-9]{1,18}")
_NO_BODY: Final = frozenset((b"204", b"304"))
_NO_LENGTH: Final = frozenset((b"101", b"204"))
"""Nor may they name one (RFC 9110 section 8.6): some clients refuse it (istio/istio#32127)."""

_HOP_BY_HOP: Final = frozenset(b"connection keep-alive proxy-connection transfer-encoding upgrade".split())


def said_length(untrusted: Fields) -> int:
    """The Content-Length of a response of HTTP/2, -1 where there is none.

    Raises:
        PeerError: it is malformed (RFC 9113 section 8.1.1), or could not be written as HTTP/1.1.
    """
    length = -1
    status = untrusted[0][1]
    if not _STATUS.fullmatch(status) or status.startswith(b"1"):
        raise PeerError("a response without a final status")
    fields = untrusted[1:]
    if not can_stand_in_lines(fields):
        raise PeerError("a response with a field that HTTP/1.1 has not")
    for name, value in fields:
        if name == b"content-length":
            if length >= 0 or not _DIGITS.fullmatch(value):
                raise PeerError("Content-Length twice, or not a number")
            length = int(value)
    return length


def length_of(status: bytes, length: int, method: bytes, end: bool) -> int:
    """The length of the body of a response with that `status` to a request of `method`, -1 where it is not
    said; `length` is what its fields say, and with `end` nothing follows.

    Raises:
        PeerError: it is not as long as it says.
    """
    if method == b"HEAD" or status in _NO_BODY:
        return 0
    if end and length > 0:
        raise PeerError("a response that is not as long as it says")
    return length


def check_interim(untrusted: Fields) -> None:
    """Raises PeerError where an interim response of HTTP/2 is none: there is nothing to switch to (RFC 9113
    section 8.6)."""
    status = untrusted[0][1]
    if not _STATUS.fullmatch(status) or status == b"101":
        raise PeerError("an interim response that is none")
    if not can_stand_in_lines(untrusted[1:]):
        raise PeerError("an interim response with a field that HTTP/1.1 has not")


def passed_back(untrusted: Fields, milliseconds: int) -> Fields:
    """A response as it goes to the client: `:status`, then its fields without what was for the upstream
    connection, and how long the upstream took."""
    kept = _without_hops(untrusted)
    if untrusted[0][1] in _NO_LENGTH:
        kept = [field for field in kept if field[0] != b"content-length"]
    kept.append((b"x-envoy-upstream-service-time", b"%d" % milliseconds))
    return tuple(kept)


def interim_passed_back(untrusted: Fields) -> Fields:
    """The same of an interim response, which has no body."""
    return tuple(field for field in _without_hops(untrusted) if field[0] != b"content-length")


def _without_hops(untrusted: Fields) -> list[tuple[bytes, bytes]]:
    kept = [untrusted[0]]
    nominated: frozenset[bytes] = frozenset()
    for field in untrusted[1:]:
        if field[0] not in _HOP_BY_HOP:
            kept.append(field)
        elif field[0] == b"connection":
            nominated |= connection_options(field[1])
    if nominated:
        kept[1:] = [field for field in kept[1:] if field[0] not in nominated]
    return kept
