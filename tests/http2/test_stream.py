"""A stream as it begins."""

from __future__ import annotations

from ztunnel.http2.stream import Stream


def test_a_new_stream_is_open_both_ways_and_may_send_nothing() -> None:
    stream = Stream()
    assert not (stream.answered)
    assert not (stream.local_closed)
    assert not (stream.remote_closed)
    assert not (stream.closed)
    assert stream.send_window == stream.window.left_bytes == 0


def test_what_nobody_gave_a_meaning_means_nothing() -> None:
    stream = Stream()
    stream.on_answer((), end=True)
    stream.on_data(memoryview(b"x"))
    stream.on_end()
    stream.on_reset(8)
    stream.on_window()
    assert not stream.closed
