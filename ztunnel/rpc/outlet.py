"""What goes out on a session: control frames as they are made, messages as the peer takes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from h2.connection import H2Connection

from ztunnel.http2.budget import UPDATES_PER_FRAME, GlitchBudget
from ztunnel.rpc.stream import Stream

_TURN_BYTES: Final = 64 << 10
"""Of one stream before the next one has its turn."""


class Outlet:
    """Bytes that wait to be written."""

    def __init__(self, h2: H2Connection, budget: GlitchBudget, ended: Callable[[Stream], None]) -> None:
        """`ended` is called when our side of a stream has ended."""
        self._h2 = h2
        self._budget = budget
        self._ended = ended
        self._out = bytearray()

    def __len__(self) -> int:
        return len(self._out)

    def put(self, frame: bytes) -> None:
        """A frame that h2 is not to know of."""
        self.collect()
        self._out += frame

    def collect(self) -> None:
        """Take what h2 has made."""
        self._out += self._h2.data_to_send()

    def pull(self, streams: Mapping[int, Stream], most_bytes: int) -> bytes:
        """Some `most_bytes` to write, from one stream after the other; nothing until something changes."""
        self.collect()
        progress = True
        while progress and len(self._out) < most_bytes:
            progress = False
            for stream in tuple(streams.values()):
                if self._send(stream):
                    progress = True
                    self.collect()
        out = bytes(self._out)
        self._out.clear()
        return out

    def _send(self, stream: Stream) -> bool:
        """What its window allows, and its end; whether there was anything."""
        if stream.finished:
            return False
        outgoing, sent = stream.outgoing, 0
        while outgoing and sent < _TURN_BYTES:
            room = min(self._h2.local_flow_control_window(stream.id), self._h2.max_outbound_frame_size)
            if room <= 0:
                break
            piece = outgoing.popleft()
            self._h2.send_data(stream.id, piece[:room])
            self._budget.updates += UPDATES_PER_FRAME
            sent += min(room, len(piece))
            if len(piece) > room:
                outgoing.appendleft(piece[room:])
            if not outgoing:
                stream.changed()
        if outgoing or stream.finish is None:
            return sent > 0
        if stream.finish:
            self._h2.send_headers(stream.id, stream.finish, end_stream=True)
        else:
            self._h2.end_stream(stream.id)
        stream.finished = True
        self._ended(stream)
        return True
