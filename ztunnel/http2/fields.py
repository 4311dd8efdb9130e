"""Header fields of CONNECT requests and their answers (HPACK, RFC 7541).

What we send is literal, never indexed and not Huffman-coded: a tunnel's headers are sent once, and a coder
that keeps no state cannot get out of step. What peers send is read by `decoder`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

Fields = tuple[tuple[bytes, bytes], ...]
"""Header fields in order, names in lower case, pseudo-headers (`:method`) first."""

_OK: Final = (b":status", b"200")
_INDEXED_OK: Final = b"\x88"


def _push_length(length: int) -> bytes:
    """An HPACK integer with a prefix of 7 bits, the Huffman bit clear (RFC 7541 section 5.1)."""
    if length < 127:
        return bytes((length,))
    parts = [127]
    length -= 127
    while length >= 128:
        parts.append(length & 127 | 128)
        length >>= 7
    parts.append(length)
    return bytes(parts)


SHORT_BYTES: Final = 127
"""From so many on a length takes more than one octet."""

SHORT: Final = [bytes((length,)) for length in range(SHORT_BYTES)]
"""Lengths of one octet."""

_STATIC_NAMES: Final = {b":authority": 1, b":method": 2, b":path": 4, b":scheme": 6, b":status": 8}
USUAL: Final = (
    b"accept accept-encoding accept-language authorization baggage cache-control content-encoding "
    b"content-length content-type cookie date etag forwarded grpc-accept-encoding grpc-encoding "
    b"grpc-message grpc-status grpc-timeout host last-modified location origin referer server "
    b"set-cookie te traceparent tracestate user-agent vary via x-envoy-upstream-service-time "
    b"x-forwarded-client-cert x-forwarded-for x-forwarded-host x-forwarded-proto x-istio-source "
    b"x-request-id".split()
)
_NAMES: Final = {name: bytes((index,)) for name, index in _STATIC_NAMES.items()} | {
    name: b"\0" + _push_length(len(name)) + name for name in USUAL
}
"""What is sent for names that are sent often."""


def push_name(name: bytes) -> bytes:
    """What stands before the length of a value that has no index."""
    return _NAMES.get(name) or b"\0" + _push_length(len(name)) + name


def push_fields(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Encode as literals without indexing (RFC 7541 section 6.2.2); a 200 takes one byte."""
    parts = []
    for field in fields:
        name, value = field
        if field == _OK:
            parts.append(_INDEXED_OK)
            continue
        parts.append(push_name(name))
        parts.append(SHORT[len(value)] if len(value) < SHORT_BYTES else _push_length(len(value)))
        parts.append(value)
    return b"".join(parts)
