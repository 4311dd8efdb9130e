"""HTTP/2 frames on the wire (RFC 9113 section 4 and 6): numbers, and the few frames that a tunnel sends."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from struct import Struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_BYTES: Final = 9
HEADER: Final = Struct(">IBI")
"""A frame header as (length << 8 | type, flags, stream id): three fields in one step."""

FLAGS_AT: Final = 4
"""Where in it the flags stand."""

DEFAULT_WINDOW: Final = 65_535
DEFAULT_FRAME_BYTES: Final = 16_384
MAX_WINDOW: Final = 2**31 - 1
MAX_STREAM_ID: Final = 2**31 - 1

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITY_FLAG: Final = 0x20


class Frame(IntEnum):
    """Frame types (RFC 9113 section 6)."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Code(IntEnum):
    """Error codes (RFC 9113 section 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11


class Setting(IntEnum):
    """Settings (RFC 9113 section 6.5.2)."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


def code_name(code: int) -> str:
    """The name of an error code; unknown ones as a number (they mean INTERNAL_ERROR, RFC 9113 section 7)."""
    try:
        return Code(code).name
    except ValueError:
        return f"error code {code}"


_PACK: Final = HEADER.pack
_HEADERS: Final = int(Frame.HEADERS)  # an enum's members are slow to look up, and to reckon with


def push_frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """One frame; `kind` is a `Frame`."""
    return _PACK(len(payload) << 8 | kind, flags, stream_id) + payload


def push_end(stream_id: int) -> bytes:
    """A DATA frame without payload, the stream's last."""
    return _PACK(0, END_STREAM, stream_id)


def push_headers(stream_id: int, block: bytes, end_stream: bool, max_frame_bytes: int) -> bytes:
    """HEADERS, and CONTINUATION frames for what the peer's frame size leaves over."""
    flags = END_STREAM if end_stream else 0
    if len(block) <= max_frame_bytes:
        return push_frame(_HEADERS, flags | END_HEADERS, stream_id, block)
    parts = [block[at : at + max_frame_bytes] for at in range(0, len(block), max_frame_bytes)]
    frames = [push_frame(Frame.HEADERS, flags, stream_id, parts[0])]
    frames += [push_frame(Frame.CONTINUATION, 0, stream_id, part) for part in parts[1:-1]]
    frames.append(push_frame(Frame.CONTINUATION, END_HEADERS, stream_id, parts[-1]))
    return b"".join(frames)


def push_settings(settings: Mapping[Setting, int]) -> bytes:
    """SETTINGS with these values."""
    payload = b"".join(key.to_bytes(2, "big") + value.to_bytes(4, "big") for key, value in settings.items())
    return push_frame(Frame.SETTINGS, 0, 0, payload)


def push_window_update(stream_id: int, increment: int) -> bytes:
    """WINDOW_UPDATE; stream 0 is the connection."""
    return push_frame(Frame.WINDOW_UPDATE, 0, stream_id, increment.to_bytes(4, "big"))


def push_reset(stream_id: int, code: Code) -> bytes:
    """RST_STREAM."""
    return push_frame(Frame.RST_STREAM, 0, stream_id, code.to_bytes(4, "big"))


def push_ping(opaque: bytes, ack: bool = False) -> bytes:
    """PING with its 8 opaque bytes, or the answer to one."""
    return push_frame(Frame.PING, ACK if ack else 0, 0, opaque)


def push_goaway(last_stream_id: int, code: int, debug: bytes = b"") -> bytes:
    """GOAWAY: streams above `last_stream_id` were not and will not be looked at."""
    return push_frame(Frame.GOAWAY, 0, 0, last_stream_id.to_bytes(4, "big") + code.to_bytes(4, "big") + debug)


SETTINGS_ACK: Final = push_frame(Frame.SETTINGS, ACK, 0)
