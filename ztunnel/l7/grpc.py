"""Counts the messages in a body of gRPC, without keeping any of it (gRPC over HTTP/2,
Length-Prefixed-Message: a flag, the length in four bytes, the message)."""

from __future__ import annotations

_PREFIX_BYTES = 5


class MessageCounter:
    """Of one direction of one call.

    Attributes:
        count: messages that have begun.
    """

    __slots__ = ("_left", "_prefix", "count")

    def __init__(self) -> None:
        self.count = 0
        self._left = 0
        self._prefix = b""

    def feed(self, untrusted: memoryview) -> None:
        """Some of the body, cut anywhere."""
        at, end = 0, len(untrusted)
        while True:
            skipped = min(self._left, end - at)
            self._left -= skipped
            at += skipped
            if at >= end:
                return
            stop = at + _PREFIX_BYTES - len(self._prefix)
            prefix = self._prefix + bytes(untrusted[at:stop])
            at = min(stop, end)
            if len(prefix) < _PREFIX_BYTES:
                self._prefix = prefix
                return
            self._prefix = b""
            self._left = int.from_bytes(prefix[1:], "big")
            self.count += 1
