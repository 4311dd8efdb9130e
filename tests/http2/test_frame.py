"""Frames on the wire, against hyperframe."""

from __future__ import annotations

import hyperframe.frame as other
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.http2.frame import (
    END_HEADERS,
    END_STREAM,
    SETTINGS_ACK,
    Code,
    Frame,
    Setting,
    code_name,
    push_frame,
    push_goaway,
    push_headers,
    push_ping,
    push_reset,
    push_settings,
    push_window_update,
)


def parsed(octets: bytes) -> other.Frame:
    frame, length = other.Frame.parse_frame_header(memoryview(octets[:9]))
    assert length == len(octets) - 9
    frame.parse_body(memoryview(octets[9:]))
    return frame


def test_data_is_what_hyperframe_reads() -> None:
    frame = parsed(push_frame(Frame.DATA, END_STREAM, 7, b"hello"))
    assert isinstance(frame, other.DataFrame)
    assert (frame.stream_id, frame.data, set(frame.flags)) == (7, b"hello", {"END_STREAM"})


def test_control_frames_are_what_hyperframe_reads() -> None:
    update = parsed(push_window_update(3, 77))
    assert isinstance(update, other.WindowUpdateFrame)
    assert (update.stream_id, update.window_increment) == (3, 77)
    reset = parsed(push_reset(3, Code.CANCEL))
    assert isinstance(reset, other.RstStreamFrame)
    assert reset.error_code == 8
    ping = parsed(push_ping(b"12345678", ack=True))
    assert isinstance(ping, other.PingFrame)
    assert (ping.opaque_data, set(ping.flags)) == (b"12345678", {"ACK"})
    goaway = parsed(push_goaway(9, Code.ENHANCE_YOUR_CALM, b"calm"))
    assert isinstance(goaway, other.GoAwayFrame)
    assert (goaway.last_stream_id, goaway.error_code, goaway.additional_data) == (9, 11, b"calm")
    settings = parsed(push_settings({Setting.MAX_FRAME_SIZE: 1 << 20, Setting.ENABLE_PUSH: 0}))
    assert isinstance(settings, other.SettingsFrame)
    assert settings.settings == {5: 1 << 20, 2: 0}
    assert set(parsed(SETTINGS_ACK).flags) == {"ACK"}


@given(st.binary(max_size=500), st.booleans(), st.integers(1, 100))
def test_a_header_block_is_cut_to_the_peers_frame_size(block: bytes, end: bool, limit: int) -> None:
    octets = push_headers(5, block, end, limit)
    together, kinds, flags = b"", [], []
    while octets:
        frame, length = other.Frame.parse_frame_header(memoryview(octets[:9]))
        assert length <= limit
        together += octets[9 : 9 + length]
        kinds.append(type(frame))
        flags.append(octets[4])
        octets = octets[9 + length :]
    assert together == block
    assert kinds == [other.HeadersFrame] + [other.ContinuationFrame] * (len(kinds) - 1)
    assert [bool(flag & END_HEADERS) for flag in flags] == [False] * (len(flags) - 1) + [True]
    assert bool(flags[0] & END_STREAM) == end


@pytest.mark.parametrize(
    ("code", "name"), [(0, "NO_ERROR"), (11, "ENHANCE_YOUR_CALM"), (77, "error code 77")]
)
def test_codes_have_names(code: int, name: str) -> None:
    assert code_name(code) == name
