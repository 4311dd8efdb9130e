"""Bytes that are passed through a waypoint as they are, from one stream to another and back."""

from __future__ import annotations

from collections.abc import Callable

from ztunnel.errors import ConnectionFailed, Unreachable
from ztunnel.flow.transport import HIGH_BYTES, Transport

OnEnd = Callable[[ConnectionFailed | None], None]


class Passage:
    """Two streams, joined; `client` and `server` are the receivers to be attached to them, `moves` how often
    something came of either."""

    def __init__(self, client: Transport, server: Transport, on_end: OnEnd) -> None:
        """`on_end` is called once, when both ways have ended."""
        self.client = _Side(self, client)
        self.server = _Side(self, server)
        self.client.other, self.server.other = self.server, self.client
        self._on_end: OnEnd | None = on_end
        self.moves = 0

    @property
    def is_over(self) -> bool:
        """Whether both ways have ended."""
        return self._on_end is None

    def abort(self, error: ConnectionFailed) -> None:
        """End it now, both ways."""
        self.client.transport.abort(error)
        self.server.transport.abort(error)
        self.over(error)

    def over(self, error: ConnectionFailed | None) -> None:
        """Both ways have ended."""
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(error)


class _Side:
    """The receiver of one of the streams."""

    other: _Side

    def __init__(self, passage: Passage, transport: Transport) -> None:
        self._passage = passage
        self.transport = transport
        self._owed = 0
        self.done = False

    def received(self, untrusted: memoryview) -> None:
        to, count = self.other.transport, len(untrusted)
        self._passage.moves += 1
        to.write(untrusted)
        if to.unsent_bytes > HIGH_BYTES:
            self._owed += count
        else:
            self.transport.taken(count)

    def ended(self) -> None:
        self.done = True
        self.other.transport.finish()
        if self.other.done:
            self._passage.over(None)

    def writable(self) -> None:
        other = self.other
        owed, other._owed = other._owed, 0
        if owed:
            other.transport.taken(owed)

    def lost(self, error: ConnectionFailed | None) -> None:
        self.other.transport.abort(error or Unreachable("the other side gave it up"))
        self._passage.over(error)
