"""Buffers: reused blocks that bytes pass through within one round, and the backlog of what a socket did not
take."""

from __future__ import annotations

from typing import Final

BLOCK_BYTES: Final = 256 * 1024
"""One read of bulk (less than 200 KB) with room for frame headers; still inside the second-level cache."""

_PIECE_BYTES: Final = 64 * 1024


class Block:
    """A reused stretch of memory.

    Attributes:
        at: how many bytes from its start are in use.
        frame_at, frame_end, frame_stream: the last DATA frame that may grow: where it begins and ends, and on
            which stream it is. It may only while nothing follows it (`frame_end` is `at`); -1: there is none.
    """

    __slots__ = ("at", "frame_at", "frame_end", "frame_stream", "memory", "view")

    def __init__(self, size_bytes: int = BLOCK_BYTES) -> None:
        self.memory = bytearray(size_bytes)
        self.view = memoryview(self.memory)
        self.at = 0
        self.frame_at = self.frame_end = -1
        self.frame_stream = 0


class Blocks:
    """Spare blocks. A block is taken for a round and given back at its end, so that there are as many as
    there are sessions which write in the same round, not as many as there are sessions."""

    __slots__ = ("_keep", "_spare")

    def __init__(self, keep: int = 16) -> None:
        self._keep = keep
        self._spare: list[Block] = []

    def take(self) -> Block:
        """An empty block; the caller gives it back before the round ends."""
        return self._spare.pop() if self._spare else Block()

    def give(self, block: Block) -> None:
        """Take a block back; more than `keep` spare ones go to the garbage."""
        block.at = 0
        block.frame_end = -1
        if len(self._spare) < self._keep:
            self._spare.append(block)


class Backlog:
    """Bytes that wait for a socket, in order, held in pieces of 64 KiB however small the parts they came
    in: a peer that sends single bytes must not cost an object for each."""

    __slots__ = ("_offset", "_pieces", "held_bytes")

    def __init__(self) -> None:
        # A list, although it is a queue: a window's worth is 64 pieces, and most backlogs stay empty.
        self._pieces: list[bytearray] = []
        self._offset = 0
        self.held_bytes = 0

    def __len__(self) -> int:
        return self.held_bytes

    def append(self, part: memoryview | bytes) -> None:
        """Copy `part` to the end."""
        pieces = self._pieces
        if pieces and len(pieces[-1]) + len(part) <= _PIECE_BYTES:
            pieces[-1] += part
        else:
            pieces.append(bytearray(part))
        self.held_bytes += len(part)

    def head(self) -> memoryview:
        """The next bytes to write; the view is to be released before anything is appended or dropped."""
        return memoryview(self._pieces[0])[self._offset :]

    def drop(self, count: int) -> None:
        """Forget `count` bytes, at most as many as `head` showed."""
        self.held_bytes -= count
        self._offset += count
        if self._offset >= len(self._pieces[0]):
            del self._pieces[0]
            self._offset = 0

    def clear(self) -> int:
        """Forget everything; returns how many bytes that were."""
        lost, self.held_bytes, self._offset = self.held_bytes, 0, 0
        self._pieces.clear()
        return lost
