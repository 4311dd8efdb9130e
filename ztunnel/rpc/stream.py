"""One call on a session: messages that have come, bytes that wait to go, and how it ended."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from ztunnel.http2.frame import DEFAULT_FRAME_BYTES
from ztunnel.rpc.fields import Fields, RawFields
from ztunnel.rpc.message import HEADER, MessageReader, push_header
from ztunnel.rpc.status import RpcError

_JOINED_BYTES: Final = DEFAULT_FRAME_BYTES - HEADER.size
"""Of a message these go into one piece with its header, which fills a frame."""


def _ignore() -> None:
    """Nobody waits."""


class Stream:
    """State of one stream. The session changes it, the call reads it.

    ```
    peer to us:  head ──> messages ──> ended (a client's: with trailers) | error
    us to peer:  outgoing ──> finish (trailers; a client's: none) ──> finished
    ```

    Attributes:
        head: fields of the peer's first HEADERS; None until they are here.
        head_ended: whether those fields were all.
        trailers: of a client's stream, when they have come.
        messages: complete ones that nobody has taken.
        ended: the peer sends no more.
        error: why no more can be received: reset, malformed, connection lost.
        wanted: somebody waits for a message, so the peer may send on.
        held_bytes: come in, and not yet given back to the peer's window for this stream.
        owed_bytes: the same for the window of the connection.
        outgoing: what the peer has not taken.
        finish: the fields that end our side, empty for none; None while there may be more.
        finished: our side has ended.
        changed: called whenever any of this changes; set by whoever waits.
    """

    __slots__ = (
        "changed", "ended", "error", "finish", "finished", "head", "head_ended", "held_bytes", "id",
        "messages", "outgoing", "owed_bytes", "reader", "trailers", "wanted",
    )  # fmt: skip

    def __init__(self, stream_id: int, max_message_bytes: int) -> None:
        self.id: Final = stream_id
        self.head: RawFields | None = None
        self.head_ended = False
        self.trailers: RawFields | None = None
        self.messages: deque[bytes] = deque()
        self.reader = MessageReader(max_message_bytes)
        self.ended = False
        self.error: RpcError | None = None
        self.wanted = False
        self.held_bytes = 0
        self.owed_bytes = 0
        self.outgoing: deque[memoryview] = deque()
        self.finish: Fields | None = None
        self.finished = False
        self.changed: Callable[[], None] = _ignore

    def put(self, message: bytes) -> None:
        """Queue a message; the session sends it as the peer takes it."""
        self.outgoing.append(memoryview(push_header(len(message)) + message[:_JOINED_BYTES]))
        if len(message) > _JOINED_BYTES:
            self.outgoing.append(memoryview(message)[_JOINED_BYTES:])

    def fail(self, error: RpcError) -> None:
        """No more can be received; the first reason counts. What has come complete may still be taken."""
        if self.error is None:
            self.error = error
        self.changed()
