"""Captures every frame that passes a network namespace, once, without a program and without a thread.

The kernel keeps the frames in the socket's buffer until they are asked for.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ztunnel.demo.failure import LaboratoryFailed
from ztunnel.demo.frame import Segment, segment
from ztunnel.kernel.netns import NetworkNamespace

_EVERY_PROTOCOL = 0x0003
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_OUTGOING = 4
_MAX_FRAME_BYTES = 1 << 18
_BUFFER_BYTES = 1 << 28
_SO_RCVBUFFORCE = 33


class Capture:
    """Frames since the capture began. Made by `capture`."""

    def __init__(self, packets: socket.socket) -> None:
        """Reads from `packets`, which stays the caller's."""
        self._packets = packets
        self._frames: list[bytes] = []

    @property
    def frames(self) -> list[bytes]:
        """All Ethernet frames until now, in order, each once: as it came in, not as it left again.

        Raises:
            LaboratoryFailed: the buffer ran over, so a claim about what was not there would be void.
        """
        while True:
            try:
                frame, address = self._packets.recvfrom(_MAX_FRAME_BYTES)
            except BlockingIOError:
                break
            if address[2] != _OUTGOING:
                self._frames.append(frame)
        statistics = self._packets.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        lost = int.from_bytes(statistics[4:], "little")
        if lost:
            raise LaboratoryFailed(
                f"the capture lost {lost} frames: its buffer of {_BUFFER_BYTES} bytes ran over"
            )
        return self._frames

    @property
    def segments(self) -> list[Segment]:
        """All TCP segments until now."""
        return [found for frame in self.frames if (found := segment(frame))]

    def holds(self, payload: bytes) -> bool:
        """Whether a frame, or the payloads of one direction of one connection put together, hold these bytes.

        Retransmitted segments are taken as they come; that can only make a match less likely at their seam.
        """
        if any(payload in frame for frame in self.frames):
            return True
        streams: dict[tuple[object, object], list[bytes]] = {}
        for part in self.segments:
            streams.setdefault((part.source, part.destination), []).append(part.payload)
        return any(payload in b"".join(parts) for parts in streams.values())


@contextmanager
def capture(netns: Path) -> Iterator[Capture]:
    """Capture all that passes the interfaces of a network namespace. Raises OSError."""
    with NetworkNamespace.open(netns) as namespace:
        packets = namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_EVERY_PROTOCOL))
    with packets:
        packets.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        yield Capture(packets)
