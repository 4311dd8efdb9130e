"""The body of a request, as far as it waits for a server, or may be needed for another one.

What waits is not told to the client as taken, so that its window bounds it. What was sent is kept for another
try up to 64 KiB; a body that is longer is sent once.
"""

from __future__ import annotations

MOST_BYTES = 64 * 1024


class KeptBody:
    """One body.

    Attributes:
        whole: nothing of it is lost: it can be sent once more from its beginning.
        untaken: bytes of it that the client has not been told of as taken.
    """

    __slots__ = ("_at", "_fresh", "_keeps", "_parts", "_size", "untaken", "whole")

    def __init__(self, keeps: bool = False) -> None:
        """`keeps`: it may be sent more than once."""
        self._parts: list[bytes] = []
        self._at = 0
        self._fresh = 0
        self._size = 0
        self._keeps = keeps
        self.whole = True
        self.untaken = 0

    def keep(self) -> None:
        """It may be sent more than once; nothing of it has been yet."""
        self._keeps = True

    def wait(self, payload: memoryview) -> None:
        """This part waits for a server."""
        self._parts.append(bytes(payload))
        self._size += len(payload)
        self.untaken += len(payload)

    def sent(self, payload: memoryview) -> None:
        """This part has been sent to a server at once; all before it has."""
        if not self._keeps or self._size + len(payload) > MOST_BYTES:
            self.whole = False
            self.forget()
            return
        self._parts.append(bytes(payload))
        self._size += len(payload)
        self._at = self._fresh = len(self._parts)

    @property
    def waits(self) -> bool:
        """Whether some of it is to be sent."""
        return self._at < len(self._parts)

    def waiting(self) -> list[bytes]:
        """What is to be sent."""
        return self._parts[self._at :]

    def next(self) -> tuple[bytes, int]:
        """The next part to send, and how many bytes of it the client is to be told of: all, or none where
        that was done the first time."""
        part = self._parts[self._at]
        self._at += 1
        untold = 0
        if self._at > self._fresh:
            self._fresh = self._at
            untold = len(part)
            self.untaken -= untold
        if not self._keeps or self._size > MOST_BYTES:
            self.forget()
        return part, untold

    def tell(self) -> int:
        """What waits is held here, so that the client may send more: how many bytes it is to be told of."""
        untold, self.untaken = self.untaken, 0
        self._fresh = len(self._parts)
        return untold

    def rewind(self) -> None:
        """From the beginning, to another server."""
        self._at = 0

    def forget(self) -> None:
        """What was sent is not needed any more."""
        self._keeps = False
        self._drop()

    def clear(self) -> int:
        """None of it is. Returns how many bytes the client has not been told of."""
        untold, self.untaken = self.untaken, 0
        self._parts.clear()
        self._at = self._fresh = self._size = 0
        self._keeps = False
        return untold

    def _drop(self) -> None:
        if self._at:
            self._size -= sum([len(part) for part in self._parts[: self._at]])
            del self._parts[: self._at]
            self._fresh -= self._at
            self._at = 0
            self.whole = False
