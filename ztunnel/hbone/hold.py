"""What a tunnel holds of its session: less than the session, which knows all kinds of tunnels (`carry`).

A class and not a Protocol, because each message of a tunnel passes here: compiled, its attributes are quick.
"""

from __future__ import annotations

from ztunnel.errors import ConnectionFailed
from ztunnel.flow.engine import Engine
from ztunnel.flow.held import Share
from ztunnel.flow.timers import Deadlines
from ztunnel.hbone.relay import Pipe
from ztunnel.http2.connection import H2Connection
from ztunnel.http2.stream import Stream


class TunnelStream(Stream):
    """A tunnel as its session sees it, whatever is at its other end."""

    __slots__ = ()

    def session_lost(self, error: ConnectionFailed) -> None:
        """The session died under the tunnel."""
        raise NotImplementedError

    def abort(self, error: ConnectionFailed) -> None:
        """End it now. Nothing if it has ended already."""
        raise NotImplementedError


class TunnelSession:
    """A session as its tunnels see it.

    Attributes:
        share: of the bytes that are held for applications.
        waiting: those that have bytes to send and may not; `on_window` is called when they may.
        unanswered: until when the peer is to answer a CONNECT, by the tunnel.
        read_bytes, reads: how much to read from an application at once, and how often per wake-up.
    """

    engine: Engine
    share: Share
    pipe: Pipe
    h2: H2Connection
    waiting: set[Stream]
    unanswered: Deadlines
    read_bytes: int
    reads: int

    def left(self, tunnel: Stream) -> None:
        """A tunnel has ended."""
        raise NotImplementedError

    @property
    def leaving(self) -> bool:
        """Whether it takes no more tunnels, and ends with its last one."""
        raise NotImplementedError
