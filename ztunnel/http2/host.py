"""What an HTTP/2 connection needs of whoever drives it."""

from __future__ import annotations

from typing import Protocol

from ztunnel.http2.fields import Fields
from ztunnel.http2.stream import Stream


class Host(Protocol):
    """Who an HTTP/2 connection speaks through and reports to."""

    def push(self, frames: bytes) -> None:
        """Send these frames, after everything pushed before."""

    def admits(self) -> bool:
        """Whether one more stream may be accepted."""

    def on_request(self, untrusted: Fields) -> Stream:
        """The peer opened a stream; the stream that is to stand for it."""

    def on_opened(self, stream: Stream) -> None:
        """That stream has its id and windows now, and can be answered."""

    def on_settings(self) -> None:
        """The peer's settings have come, or have changed."""

    def on_pong(self, opaque: bytes) -> None:
        """The answer to a PING of ours."""

    def on_goaway(self, code: int) -> None:
        """The peer takes no more streams; those it has not looked at have been reset with REFUSED_STREAM."""

    def on_window(self) -> None:
        """The peer takes bytes again on the connection, where it took none before."""


class Nobody:
    """Takes the host's place when the connection is over: what streams still say leads nowhere."""

    def push(self, frames: bytes) -> None:
        """Nothing is sent."""

    def admits(self) -> bool:
        """No."""
        return False

    def on_request(self, untrusted: Fields) -> Stream:
        """A stream that nobody has."""
        return Stream()

    def on_opened(self, stream: Stream) -> None:
        """Nothing follows."""

    def on_settings(self) -> None:
        """Nothing follows."""

    def on_pong(self, opaque: bytes) -> None:
        """Nothing follows."""

    def on_goaway(self, code: int) -> None:
        """Nothing follows."""

    def on_window(self) -> None:
        """Nothing follows."""
