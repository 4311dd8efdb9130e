"""Conversations without sockets: what is pushed and what happens is written down."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from ztunnel.http2.connection import H2Connection
from ztunnel.http2.fields import Fields, push_fields
from ztunnel.http2.frame import (
    ACK,
    DEFAULT_FRAME_BYTES,
    END_STREAM,
    HEADER,
    PREFACE,
    SETTINGS_ACK,
    Frame,
    push_frame,
    push_goaway,
    push_headers,
    push_ping,
    push_settings,
    push_window_update,
)
from ztunnel.http2.limits import Limits, Role
from ztunnel.http2.standing import Standing
from ztunnel.http2.stream import Stream

CONNECT: Fields = ((b":method", b"CONNECT"), (b":authority", b"10.0.0.1:80"))
OK: Fields = ((b":status", b"200"),)
CONNECT_BLOCK, OK_BLOCK = push_fields(CONNECT), push_fields(OK)
HELLO = PREFACE + push_settings({}) + SETTINGS_ACK

Event = tuple[Any, ...]


class RecordedStream(Stream):
    """A stream that writes down what happens to it; payload that came in pieces is put together again."""

    def __init__(self, host: RecordingHost) -> None:
        super().__init__()
        self.host = host

    def on_answer(self, untrusted: Fields, end: bool) -> None:
        self.host.events.append(("answer", self.stream_id, untrusted, end))

    def on_data(self, payload: memoryview) -> None:
        assert len(payload)
        self.host.deliveries += 1
        last = self.host.events[-1] if self.host.events else None
        if last is not None and last[:2] == ("data", self.stream_id):
            self.host.events[-1] = (*last[:2], last[2] + bytes(payload))
        else:
            self.host.events.append(("data", self.stream_id, bytes(payload)))
        if self.host.takes:
            self.host.h2.take(self, len(payload))

    def on_end(self) -> None:
        self.host.events.append(("end", self.stream_id))

    def on_reset(self, code: int) -> None:
        self.host.events.append(("reset", self.stream_id, code))

    def on_window(self) -> None:
        self.host.events.append(("window", self.stream_id))


class RecordingHost:
    """Drives one h2. With `takes`, what comes is taken at once, as by a fast application. `deliveries` counts
    how often a stream was given bytes."""

    def __init__(
        self,
        role: Role,
        limits: Limits | None = None,
        takes: bool = True,
        standing: Standing | None = None,
    ) -> None:
        self.pushed = bytearray()
        self.events: list[Event] = []
        self.takes = takes
        self.deliveries = 0
        self.room = True
        self.now = 100.0
        self.rounds = 0
        self.h2 = H2Connection(self, role, limits or Limits(), self.now, standing)

    def push(self, frames: bytes) -> None:
        self.pushed += frames

    def admits(self) -> bool:
        return self.room

    def on_request(self, untrusted: Fields) -> Stream:
        self.events.append(("request", untrusted))
        return RecordedStream(self)

    def on_opened(self, stream: Stream) -> None:
        self.events.append(("opened", stream.stream_id))

    def on_settings(self) -> None:
        self.events.append(("settings",))

    def on_pong(self, opaque: bytes) -> None:
        self.events.append(("pong", opaque))

    def on_goaway(self, code: int) -> None:
        self.events.append(("goaway", code))

    def on_window(self) -> None:
        self.events.append(("window", 0))

    def receive(self, octets: bytes) -> None:
        view = memoryview(octets)
        while True:
            self.rounds += 1
            self.h2.standing.enter(self.rounds)
            if not self.h2.receive(view, self.now):
                break
            view = memoryview(b"")

    def frames(self) -> list[FrameSeen]:
        """What was pushed since the last time, as frames."""
        seen = pull_frames(bytes(self.pushed).removeprefix(PREFACE))
        self.pushed.clear()
        return seen

    def kinds(self) -> list[Frame]:
        return [seen.kind for seen in self.frames()]

    def stream(self, stream_id: int) -> Stream:
        return self.h2.streams[stream_id]


@dataclass(frozen=True)
class FrameSeen:
    """A frame that we sent."""

    kind: Frame
    flags: int
    stream_id: int
    payload: bytes = field(repr=False)

    @property
    def number(self) -> int:
        """The payload as one number: a window's increment, a reset's code."""
        return int.from_bytes(self.payload, "big")


def pull_frames(octets: bytes) -> list[FrameSeen]:
    seen = []
    while octets:
        head, flags, stream_id = HEADER.unpack_from(octets)
        length = 9 + (head >> 8)
        seen.append(FrameSeen(Frame(head & 0xFF), flags, stream_id, octets[9:length]))
        octets = octets[length:]
    return seen


def data(stream_id: int, payload: bytes, end: bool = False, padding: int | None = None) -> bytes:
    flags = END_STREAM if end else 0
    if padding is None:
        return push_frame(Frame.DATA, flags, stream_id, payload)
    return push_frame(Frame.DATA, flags | 8, stream_id, bytes((padding,)) + payload + bytes(padding))


def headers(stream_id: int, fields: Fields = CONNECT, end: bool = False) -> bytes:
    return push_headers(stream_id, push_fields(fields), end, DEFAULT_FRAME_BYTES)


def client() -> RecordingHost:
    """A client whose peer's settings have come, with nothing to read but what follows."""
    host = RecordingHost(Role.CLIENT)
    host.h2.start()
    host.receive(push_settings({}))
    host.events.clear()
    host.pushed.clear()
    return host


def server(limits: Limits | None = None, takes: bool = True) -> RecordingHost:
    """A server whose peer has said hello."""
    host = RecordingHost(Role.SERVER, limits, takes)
    host.h2.start()
    host.receive(HELLO)
    host.events.clear()
    host.pushed.clear()
    return host


@dataclass
class Pair:
    """A client and a server back to back."""

    client: RecordingHost = field(default_factory=lambda: RecordingHost(Role.CLIENT))
    server: RecordingHost = field(default_factory=lambda: RecordingHost(Role.SERVER))

    def __post_init__(self) -> None:
        self.client.h2.start()
        self.server.h2.start()
        self.exchange()

    def exchange(self) -> None:
        while self.client.pushed or self.server.pushed:
            up, down = bytes(self.client.pushed), bytes(self.server.pushed)
            self.client.pushed.clear()
            self.server.pushed.clear()
            if up:
                self.server.receive(up)
            if down:
                self.client.receive(down)

    def open(self) -> RecordedStream:
        stream = RecordedStream(self.client)
        self.client.h2.open(stream, CONNECT_BLOCK)
        self.exchange()
        return stream

    def send(self, host: RecordingHost, stream: Stream, payload: bytes) -> None:
        """What a tunnel does with an application's bytes, within the windows that there are."""
        stream.send_window -= len(payload)
        host.h2.send_window -= len(payload)
        assert stream.send_window >= 0
        assert host.h2.send_window >= 0
        host.push(data(stream.stream_id, payload))
        self.exchange()


STREAM_IDS = st.sampled_from([0, 1, 2, 3, 5, 7, 99])
FRAMES = st.one_of(
    st.builds(data, STREAM_IDS, st.binary(max_size=300), st.booleans(), st.none() | st.integers(0, 40)),
    st.builds(headers, STREAM_IDS, st.sampled_from([CONNECT, OK, ()]), st.booleans()),
    st.builds(push_ping, st.binary(min_size=8, max_size=8), st.booleans()),
    st.builds(push_window_update, STREAM_IDS, st.integers(0, 2**31 - 1)),
    st.builds(push_goaway, STREAM_IDS, st.integers(0, 20)),
    st.builds(
        push_frame,
        st.sampled_from(Frame),
        st.integers(0, 255),
        STREAM_IDS,
        st.binary(max_size=40),
    ),
    st.just(push_frame(Frame.SETTINGS, ACK, 0)),
    st.just(push_frame(Frame.RST_STREAM, 0, 1, b"\0\0\0\x08")),
)
"""Frames of every kind, right and wrong."""


def split(octets: bytes, cuts: list[int]) -> list[bytes]:
    """`octets` in pieces, cut at these places."""
    places = [0, *sorted(cut % (len(octets) + 1) for cut in cuts), len(octets)]
    return [octets[start:stop] for start, stop in itertools.pairwise(places)]
