"""The receiving side of flow control: how much the peer may still send, and when to let it send more."""

from __future__ import annotations


class ReceiveWindow:
    """One window, of a stream or of the connection (RFC 9113 section 6.9).

    `left_bytes` is what the peer may still send by what it was told; `taken_bytes` what has left our hands
    since it was last told. The peer is told at half of the window: later would stall it, sooner would cost
    a frame for each message. It is told sooner where what was taken is more than what it has left: a
    connection's window may be held by slow readers for ever, and the others share what remains.
    """

    __slots__ = ("_half", "left_bytes", "size_bytes", "taken_bytes")

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._half = size_bytes // 2
        self.left_bytes = size_bytes
        self.taken_bytes = 0

    def take(self, count: int) -> int:
        """`count` bytes have been passed on. Returns the increment to send, 0 for none yet."""
        taken = self.taken_bytes + count
        self.taken_bytes = taken
        if taken < self._half and taken < self.left_bytes:
            return 0
        return self.tell()

    def grow(self, count: int) -> None:
        """The window is larger by `count` bytes, of which the peer is told at once."""
        self.size_bytes += count
        self._half = self.size_bytes // 2
        self.left_bytes += count

    def shrink(self, count: int) -> int:
        """The peer has learnt that the window is smaller by `count` bytes; it may have sent more before.
        Returns the increment to send, 0 for none yet."""
        self.size_bytes -= count
        self._half = self.size_bytes // 2
        self.left_bytes -= count
        return self.take(0) if self.taken_bytes else 0

    def tell(self) -> int:
        """The increment to send now: all that was passed on and not told of."""
        taken, self.taken_bytes = self.taken_bytes, 0
        self.left_bytes += taken
        return taken
