"""Messages in the bytes of a stream: a flag, four bytes of length, the message (gRPC's PROTOCOL-HTTP2.md)."""

from __future__ import annotations

from struct import Struct

from ztunnel.rpc.status import Code, RpcError

HEADER = Struct(">BI")
"""Compressed flag (0 or 1) and length in bytes."""

_COMPRESSED = 1


def push_header(length: int) -> bytes:
    """What goes before a message of `length` bytes that is not compressed."""
    return HEADER.pack(0, length)


class MessageReader:
    """Puts messages together from any pieces."""

    __slots__ = ("_buffer", "max_bytes")

    def __init__(self, max_bytes: int) -> None:
        """`max_bytes` bounds one message, and with that what is kept here."""
        self._buffer = bytearray()
        self.max_bytes = max_bytes

    @property
    def partial(self) -> bool:
        """Whether a message has begun and is not complete."""
        return bool(self._buffer)

    def feed(self, untrusted: bytes) -> list[bytes]:
        """Take the next bytes; the messages that they complete.

        Raises:
            RpcError: the call ends with it: UNIMPLEMENTED for a compressed message (we offer no encoding),
                RESOURCE_EXHAUSTED for one that is too large (before it is read), INTERNAL for another flag.
        """
        buffer = self._buffer
        buffer += untrusted
        messages = []
        begin = 0
        with memoryview(buffer) as view:
            while len(view) - begin >= HEADER.size:
                flag, length = HEADER.unpack_from(view, begin)
                self._check(flag, length)
                end = begin + HEADER.size + length
                if end > len(view):
                    break
                messages.append(bytes(view[begin + HEADER.size : end]))
                begin = end
        del buffer[:begin]
        return messages

    def _check(self, flag: int, length: int) -> None:
        if flag == _COMPRESSED:
            raise RpcError(Code.UNIMPLEMENTED, "compressed messages are not supported: send identity")
        if flag:
            raise RpcError(Code.INTERNAL, f"a message with the flags {flag:#x}, which mean nothing")
        if length > self.max_bytes:
            raise RpcError(
                Code.RESOURCE_EXHAUSTED, f"a message of {length} bytes; {self.max_bytes} are accepted"
            )
