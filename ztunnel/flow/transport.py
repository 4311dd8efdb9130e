"""A stream of bytes as whoever reads and writes it within the process sees it: a tunnel that ends here, or a
socket.

Back-pressure goes both ways without anybody waiting: what a receiver was given counts as held until it says
`taken`, and what was written and has not left is in `unsent_bytes`, of which the receiver hears by `writable`
when it is gone.
"""

from __future__ import annotations

from typing import Final, Protocol

from ztunnel.errors import ConnectionFailed

HIGH_BYTES: Final = 64 * 1024
"""Whoever has so much unsent is given no more of what can be left where it is."""


class Receiver(Protocol):
    """Who is at this end of a stream."""

    def received(self, untrusted: memoryview) -> None:
        """Bytes of the peer. The view is void after the call; all of them are to be told to
        `Transport.taken` when they have left our hands."""

    def ended(self) -> None:
        """The peer will send no more."""

    def writable(self) -> None:
        """All that was written has left."""

    def lost(self, error: ConnectionFailed | None) -> None:
        """The stream was cut, both ways; nothing is called after this. None: the peer gave it up. Where both
        sides have finished it, nothing more is said."""


class Transport(Protocol):
    """This end of a stream."""

    @property
    def unsent_bytes(self) -> int:
        """What was written and has not left."""

    @property
    def leaving(self) -> bool:
        """Whether what carries it takes nothing new any more, and ends when all on it has: whoever keeps it
        for later is to close it."""

    def write(self, part: bytes | memoryview) -> None:
        """Send; what cannot leave now is copied and kept. Nothing happens once it is over."""

    def finish(self) -> None:
        """Nothing more will be written: when all has left, the peer is told."""

    def taken(self, count: int) -> None:
        """Bytes that were received have left our hands."""

    def abort(self, error: ConnectionFailed) -> None:
        """End it now, in both directions; the receiver hears no more."""
