"""The limits of sessions."""

from __future__ import annotations

from ztunnel.http2.limits import Limits


def test_the_numbers_on_the_wire_are_those_of_ztunnel_but_for_smaller_requests() -> None:
    limits = Limits()
    assert (limits.stream_window_bytes, limits.session_window_bytes, limits.frame_bytes) == (
        4 << 20,
        16 << 20,
        1 << 20,
    )
    assert (limits.open_streams, limits.accept_streams) == (100, 200)
    assert (limits.response_header_bytes, limits.request_header_bytes) == (16 << 10, 16 << 10)
