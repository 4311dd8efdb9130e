"""One stream of a session as the protocol sees it; what is done with its bytes is the subclass's matter."""

from __future__ import annotations

from ztunnel.http2.fields import Fields
from ztunnel.http2.window import ReceiveWindow

_NO_WINDOW = ReceiveWindow(0)


class Stream:
    """Protocol state of one stream, and what happens to it.

    The connection calls the `on_` methods, which a subclass gives a meaning: a socket in the product, a
    list in tests. It is one object and not two because every byte of every tunnel passes here.

    Attributes:
        send_window: bytes that the peer still takes on this stream; negative after a change
            of its settings.
        window: what the peer may still send us.
        answered: a response has come, or has been sent.
        local_closed, remote_closed: END_STREAM was sent, has come.
        closed: the stream is over; no `on_` method is called any more.
        ending: what `on_data` is given is the last, and `on_end` follows at once. It may be False then.
        opened_at: monotonic seconds.
        started: whether anything has been done for it.
        repeated: the fields of what the peer has begun it with, a request or the response to ours, are as an
            object those of one before.
        oversized: its request is only the beginning of one that is larger than is taken, and was not checked.
    """

    __slots__ = (
        "answered",
        "closed",
        "ending",
        "local_closed",
        "opened_at",
        "oversized",
        "remote_closed",
        "repeated",
        "send_window",
        "started",
        "stream_id",
        "window",
    )

    def __init__(self) -> None:
        self.stream_id = 0
        self.send_window = 0
        self.window = _NO_WINDOW
        self.answered = False
        self.local_closed = False
        self.remote_closed = False
        self.closed = False
        self.ending = False
        self.opened_at = 0.0
        self.started = False
        self.oversized = False
        self.repeated = False

    def on_answer(self, untrusted: Fields, end: bool) -> None:
        """The response to our request; with `end`, nothing will follow it."""

    def on_data(self, payload: memoryview) -> None:
        """Bytes from the peer. The view is void after the call; what is kept must be copied, and everything
        has to be reported to `H2Connection.take` when it has left our hands."""

    def on_informational(self, untrusted: Fields) -> None:
        """A response that is only interim (1xx); the response follows."""

    def on_trailers(self, untrusted: Fields) -> None:
        """Fields behind the payload; `on_end` follows at once."""

    def on_end(self) -> None:
        """The peer will send no more."""

    def on_reset(self, code: int) -> None:
        """The peer reset the stream."""

    def on_error(self, code: int) -> None:
        """We have reset the stream, because the peer broke the rules on it."""
        self.on_reset(code)

    def on_window(self) -> None:
        """The peer takes bytes again, where it took none before."""
