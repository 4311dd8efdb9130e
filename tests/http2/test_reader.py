"""The byte stream: cut anywhere it means the same, and it may hold anything."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.http2.recording import (
    CONNECT,
    FRAMES,
    HELLO,
    Event,
    RecordingHost,
    data,
    headers,
    server,
    split,
)
from ztunnel.errors import PeerError
from ztunnel.http2.fields import push_fields
from ztunnel.http2.frame import END_HEADERS, HEADER, PREFACE, Code, Frame, push_frame, push_ping
from ztunnel.http2.limits import Limits, Role
from ztunnel.http2.standing import WORK_PER_ROUND


def run(octets: list[bytes]) -> tuple[list[Event], bytes, int | None]:
    """What a server makes of these pieces: events, answers, and the code that it ends with."""
    host = RecordingHost(Role.SERVER)
    code = None
    try:
        for piece in octets:
            host.receive(piece)
    except PeerError as error:
        code = error.reply
    return host.events, bytes(host.pushed), code


@given(st.lists(FRAMES, max_size=12), st.lists(st.integers(0, 1 << 16), max_size=20))
@example([headers(1), data(1, b"hello", padding=3), data(1, b"", end=True)], list(range(200)))
def test_any_split_of_the_input_gives_the_same_events(frames: list[bytes], cuts: list[int]) -> None:
    octets = HELLO + headers(1) + b"".join(frames)
    assert run(split(octets, cuts)) == run([octets])


@given(st.lists(FRAMES, max_size=6))
def test_byte_by_byte_gives_the_same_events(frames: list[bytes]) -> None:
    octets = HELLO + headers(1) + b"".join(frames)
    assert run([octets[at : at + 1] for at in range(len(octets))]) == run([octets])


@given(st.binary(max_size=400), st.booleans())
def test_garbage_is_a_peer_error_or_nothing(garbage: bytes, behind_hello: bool) -> None:
    run([(HELLO if behind_hello else b"") + garbage])


@given(st.lists(FRAMES, max_size=12), st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=6))
def test_frames_with_wrong_bytes_in_them_are_a_peer_error_or_events(
    frames: list[bytes], changes: list[tuple[int, int]]
) -> None:
    octets = bytearray(b"".join(frames))
    for place, value in changes:
        if octets:
            octets[place % len(octets)] = value
    run([HELLO + headers(1) + bytes(octets)])


def test_the_payload_of_a_frame_is_passed_on_before_its_end() -> None:
    host = server()
    host.receive(headers(1))
    whole = data(1, b"abcdef")
    host.receive(whole[:12])
    assert host.events[-1] == ("data", 1, b"abc")
    host.receive(whole[12:])
    assert host.events[-1] == ("data", 1, b"abcdef")


def test_frames_of_little_payload_are_passed_on_together() -> None:
    host = server()
    host.receive(headers(1) + headers(3))
    octets = bytes(range(100))
    host.receive(b"".join(data(1, octets[at : at + 1]) for at in range(100)))
    assert host.events[-1] == ("data", 1, octets)
    assert host.deliveries == 1
    host.receive(data(1, b"a") + data(3, b"b") + data(1, b"c") + data(1, b"") + data(1, b"d", end=True))
    assert host.events[-4:] == [
        ("data", 1, octets + b"a"),
        ("data", 3, b"b"),
        ("data", 1, b"cd"),
        ("end", 1),
    ]


def test_of_frames_passed_on_together_each_is_within_the_windows() -> None:
    host = server(Limits(stream_window_bytes=1000), takes=False)
    host.receive(headers(1))
    room = host.stream(1).window.left_bytes
    sent = [bytes((number % 256,)) * 100 for number in range(room // 100 + 1)]
    host.receive(b"".join(data(1, each) for each in sent))
    assert host.events[-2:] == [
        ("data", 1, b"".join(sent)[: room // 100 * 100]),
        ("reset", 1, Code.FLOW_CONTROL_ERROR),
    ]


def test_frames_passed_on_together_count_for_the_work_of_a_round() -> None:
    host = server()
    host.receive(headers(1))
    before = host.rounds
    host.receive(data(1, b"x") * 3 * WORK_PER_ROUND)
    assert host.rounds - before >= 3
    assert host.events[-1] == ("data", 1, b"x" * 3 * WORK_PER_ROUND)


def test_padding_is_left_out_however_it_is_cut() -> None:
    host = server()
    host.receive(headers(1))
    for octet in data(1, b"abc", end=True, padding=7) + headers(3):
        host.receive(bytes((octet,)))
    assert host.events[2:] == [("data", 1, b"abc"), ("end", 1), ("request", CONNECT), ("opened", 3)]


def test_a_preface_that_is_not_one_ends_the_connection_at_its_first_wrong_byte() -> None:
    host = RecordingHost(Role.SERVER)
    host.receive(PREFACE[:10])
    with pytest.raises(PeerError):
        host.receive(b"x")


@pytest.mark.parametrize("kind", [Frame.DATA, Frame.HEADERS, 0x55])
def test_a_frame_above_our_limit_is_refused_at_its_header(kind: int) -> None:
    host = server(Limits(frame_bytes=20_000))
    with pytest.raises(PeerError) as error:
        host.receive(HEADER.pack(20_001 << 8 | kind, 0, 1))
    assert error.value.reply == Code.FRAME_SIZE_ERROR


@pytest.mark.parametrize(
    "kind", [Frame.PING, Frame.SETTINGS, Frame.WINDOW_UPDATE, Frame.RST_STREAM, Frame.GOAWAY, Frame.PRIORITY]
)
def test_a_control_frame_is_refused_at_its_header_when_it_is_too_long(kind: Frame) -> None:
    with pytest.raises(PeerError) as error:
        server().receive(HEADER.pack(10_000 << 8 | kind, 0, 0))
    assert error.value.reply == Code.FRAME_SIZE_ERROR


def test_an_unknown_frame_is_skipped_without_being_held() -> None:
    host = server()
    host.receive(HEADER.pack(1_000_000 << 8 | 0x55, 0, 0))
    for _ in range(10):
        host.receive(bytes(100_000))
        assert host.h2._partial == b""
    host.receive(headers(1))
    assert ("opened", 1) in host.events


def test_the_reserved_bit_of_a_stream_id_is_ignored() -> None:
    host = server()
    host.receive(headers(1))
    host.receive(data(1 | 1 << 31, b"abc"))
    assert host.events[-1] == ("data", 1, b"abc")


def test_padding_must_have_a_length_and_fit() -> None:
    host = server()
    host.receive(headers(1))
    with pytest.raises(PeerError):
        host.receive(push_frame(Frame.DATA, 8, 1))
    host = server()
    host.receive(headers(1))
    with pytest.raises(PeerError):
        host.receive(push_frame(Frame.DATA, 8, 1, b"\x05abc"))


def test_since_when_something_is_not_whole_is_known() -> None:
    host = server()

    def receive(now: float, octets: bytes) -> float:
        host.now = now
        host.receive(octets)
        return host.h2.unfinished_since

    assert receive(100.0, headers(1)) == 0
    assert receive(101.0, push_ping(bytes(8))[:5]) == 101.0
    assert receive(102.0, push_ping(bytes(8))[5:9]) == 101.0
    assert receive(103.0, push_ping(bytes(8))[9:]) == 0
    assert receive(104.0, data(1, b"abc")[:10]) == 0  # payload is passed on as it comes
    assert receive(105.0, data(1, b"abc")[10:] + data(1, b"x")[:4]) == 105.0
    assert receive(106.0, data(1, b"x")[4:] + data(1, b"x")[:4]) == 106.0
    assert receive(107.0, data(1, b"x")[4:]) == 0
    assert receive(108.0, push_frame(Frame.HEADERS, 0, 3, push_fields(CONNECT)[:3])) == 108.0
    for number in range(5):
        part = push_frame(Frame.CONTINUATION, 0, 3, push_fields(CONNECT)[3 + number : 4 + number])
        assert receive(109.0 + number, part[:4]) == 108.0
        assert receive(109.5 + number, part[4:]) == 108.0
    assert receive(120.0, push_frame(Frame.CONTINUATION, END_HEADERS, 3, push_fields(CONNECT)[8:])) == 0
