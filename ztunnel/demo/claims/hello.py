"""The version of TLS that a server chose, out of its ServerHello in a capture (RFC 8446, 4.1.3)."""

from __future__ import annotations

import struct

TLS_1_3 = 0x0304
_HANDSHAKE, _SERVER_HELLO, _SUPPORTED_VERSIONS = 22, 2, 43
_SESSION_ID_AT = 43  # record header 5, handshake header 4, version 2, random 32


def server_version(untrusted: bytes) -> int | None:
    """The version that a segment's payload agrees on, None where it does not begin with a ServerHello.

    The extension decides, because TLS 1.3 disguises itself as 1.2 in the old field.
    """
    try:
        if untrusted[0] != _HANDSHAKE or untrusted[5] != _SERVER_HELLO:
            return None
        (version,) = struct.unpack_from("!H", untrusted, 9)
        at = _SESSION_ID_AT + 1 + untrusted[_SESSION_ID_AT] + 3  # cipher suite 2, compression 1
        (length,) = struct.unpack_from("!H", untrusted, at)
        at, end = at + 2, at + 2 + length
        while at < end:
            kind, size = struct.unpack_from("!HH", untrusted, at)
            if kind == _SUPPORTED_VERSIONS:
                (version,) = struct.unpack_from("!H", untrusted, at + 4)
            at += 4 + size
    except (IndexError, struct.error):
        return None
    return int(version)
