"""Bytes that have come ahead of their turn, and are read piece by piece."""

from __future__ import annotations

from collections.abc import Callable

_PIECE_BYTES = 16 * 1024
_COMPACT_BYTES = 64 * 1024


class Ahead:
    """A queue of bytes of which a part that was taken out can be put back."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._at = 0

    def __len__(self) -> int:
        return len(self._bytes) - self._at

    def append(self, part: bytes | memoryview) -> None:
        """Copy `part` to the end."""
        self._bytes += part

    def take(self) -> bytes:
        """Take the next bytes out, 16 KiB at most."""
        piece = bytes(self._bytes[self._at : self._at + _PIECE_BYTES])
        self._at += len(piece)
        if self._at > _COMPACT_BYTES:
            # What was just taken may still be put back.
            done = self._at - _PIECE_BYTES
            del self._bytes[:done]
            self._at -= done
        return piece

    def put_back(self, count: int) -> None:
        """The last `count` bytes that were taken out are the next again."""
        self._at -= count

    def read(self, read: Callable[[memoryview], int]) -> None:
        """Have `read` take what it takes, piece by piece, until it leaves some of one. It returns how many
        bytes it took; all of them, where it wants no more and has cleared this."""
        while len(self):
            piece = self.take()
            rest = len(piece) - read(memoryview(piece))
            if rest:
                self.put_back(rest)
                return

    def clear(self) -> int:
        """Forget everything. Returns how many bytes that were."""
        lost = len(self)
        self._bytes.clear()
        self._at = 0
        return lost
