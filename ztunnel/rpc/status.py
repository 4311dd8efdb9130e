"""How a call ends: gRPC's codes, the error that carries one, and what HTTP says without them.

Source: gRPC's doc/statuscodes.md, doc/http-grpc-status-mapping.md and doc/PROTOCOL-HTTP2.md.
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Final

from ztunnel.http2.frame import Code as H2Code
from ztunnel.http2.frame import code_name


class Code(IntEnum):
    """gRPC's status codes."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class RpcError(Exception):
    """A call that ends with another status than OK.

    A server's handler raises it to say how its call ends; a client gets it from a call that failed, be it by
    the server, the network or the deadline. Who calls translates it into what it means there.
    """

    def __init__(self, code: Code, message: str) -> None:
        """`message` is for people; it travels to the client."""
        super().__init__(message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code.name}: {self.message}"


class PeerLeft(RpcError):
    """A call that ended with its connection, of which the server had taken leave (GOAWAY NO_ERROR): it ends,
    or wants its clients spread anew, as istiod every half hour (MaxConnectionAge of gRPC)."""

    def __init__(self, message: str) -> None:
        super().__init__(Code.UNAVAILABLE, message)


_HTTP: Final = {
    400: Code.INTERNAL,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.UNIMPLEMENTED,
    429: Code.UNAVAILABLE,
    502: Code.UNAVAILABLE,
    503: Code.UNAVAILABLE,
    504: Code.UNAVAILABLE,
}
_RESETS: Final = {
    H2Code.REFUSED_STREAM: Code.UNAVAILABLE,
    H2Code.CANCEL: Code.CANCELLED,
    H2Code.ENHANCE_YOUR_CALM: Code.RESOURCE_EXHAUSTED,
    0xC: Code.PERMISSION_DENIED,  # INADEQUATE_SECURITY
}
_MAX_MESSAGE = 1024
"""Bytes of a status message that are sent; a client's limit for all trailers may be 8 KiB."""

_UNRESERVED = frozenset(range(0x20, 0x7F)) - {0x25}
_ESCAPED = re.compile(rb"%([0-9a-fA-F]{2})")


def from_http(status: int) -> Code:
    """The code for an HTTP status that came without a grpc-status."""
    return _HTTP.get(status, Code.UNKNOWN)


def from_reset(code: int) -> RpcError:
    """What an RST_STREAM of the peer means for the call."""
    return RpcError(_RESETS.get(code, Code.INTERNAL), f"the peer reset the stream with {code_name(code)}")


def parse_code(untrusted: str) -> Code:
    """The value of grpc-status; UNKNOWN for what is none."""
    try:
        return Code(int(untrusted)) if untrusted.isascii() and untrusted.isdigit() else Code.UNKNOWN
    except ValueError:
        return Code.UNKNOWN


def encode_message(message: str) -> str:
    """A text as the value of grpc-message: percent-encoded UTF-8, cut to some hundred characters."""
    raw = message.encode("utf-8", "replace")[:_MAX_MESSAGE].decode("utf-8", "ignore").encode()
    return "".join(chr(byte) if byte in _UNRESERVED else f"%{byte:02X}" for byte in raw)


def decode_message(untrusted: str) -> str:
    """The text of a grpc-message; what is wrongly encoded stays as it is, as the protocol asks."""
    raw = untrusted.encode("utf-8", "replace")
    return _ESCAPED.sub(lambda found: bytes([int(found[1], 16)]), raw).decode("utf-8", "replace")
