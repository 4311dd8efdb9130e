"""Windows in both directions, and what becomes of streams."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.http2.recording import (
    CONNECT_BLOCK,
    OK,
    OK_BLOCK,
    FrameSeen,
    Pair,
    RecordedStream,
    RecordingHost,
    client,
    data,
    headers,
    pull_frames,
    server,
)
from ztunnel.errors import PeerError
from ztunnel.http2.frame import (
    DEFAULT_WINDOW,
    MAX_WINDOW,
    PREFACE,
    SETTINGS_ACK,
    Code,
    Frame,
    Setting,
    push_reset,
    push_settings,
    push_window_update,
)
from ztunnel.http2.limits import Limits, Role

SMALL = Limits(stream_window_bytes=1000, session_window_bytes=100_000, open_streams=50, accept_streams=50)


def test_until_our_settings_are_acknowledged_a_peer_may_send_what_the_protocol_says() -> None:
    host = RecordingHost(Role.SERVER, Limits(session_window_bytes=1 << 20, frame_bytes=1 << 16), takes=False)
    host.h2.start()
    host.receive(PREFACE + push_settings({}) + headers(1) + headers(3) + data(1, bytes(20_000)))
    share = host.h2._stream_window_bytes
    first, third = host.h2.streams[1], host.h2.streams[3]
    assert share < 20_000 < first.window.left_bytes + 20_000 == 65_535
    host.h2.take(first, 20_000)
    host.pushed.clear()
    host.receive(SETTINGS_ACK)
    # From now on the peer reckons with what it was told: it has overdrawn, and is told what was taken.
    (update,) = pull_frames(bytes(host.pushed))
    assert (update.kind, update.stream_id, update.payload) == (
        Frame.WINDOW_UPDATE,
        1,
        (20_000).to_bytes(4, "big"),
    )
    assert (first.window.left_bytes, third.window.left_bytes) == (share, share)
    host.receive(headers(5) + data(5, bytes(share)))
    assert ("data", 5, bytes(share)) in host.events
    spare = host.h2._spare_bytes
    for stream in (first, third):
        host.h2.reset(stream, Code.CANCEL)
    assert host.h2._spare_bytes == spare == (1 << 20) - 200 * share
    host.receive(data(5, b"x"))
    assert host.events[-1] == ("reset", 5, Code.FLOW_CONTROL_ERROR)


def test_bytes_that_were_taken_are_told_at_half_of_the_streams_window() -> None:
    host = server(SMALL)
    host.receive(headers(1))
    host.receive(data(1, bytes(499)))
    assert host.frames() == []
    host.receive(data(1, bytes(1)))
    assert host.frames() == [FrameSeen(Frame.WINDOW_UPDATE, 0, 1, (500).to_bytes(4, "big"))]


def test_bytes_that_nobody_took_are_not_told() -> None:
    host = server(SMALL, takes=False)
    host.receive(headers(1))
    host.receive(data(1, bytes(1000)))
    assert host.frames() == []
    host.h2.take(host.stream(1), 1000)
    assert [frame.number for frame in host.frames()] == [1000]


SHARED = Limits(stream_window_bytes=60_000, session_window_bytes=100_000, accept_streams=4)


def test_slow_readers_hold_their_shares_and_the_others_go_on() -> None:
    host = server(SHARED, takes=False)
    for stream_id in (1, 3, 5, 7):
        host.receive(headers(stream_id))
    for slow in (3, 5, 7):
        host.receive(data(slow, bytes(20_000)))
    for _ in range(50):
        count = host.stream(1).window.left_bytes
        host.receive(data(1, bytes(count)))
        host.h2.take(host.stream(1), count)
    assert host.stream(1).window.size_bytes == 40_000  # its own share, and what nobody else may have
    assert host.h2._window.left_bytes >= 40_000


def test_what_a_stream_has_grown_by_is_free_for_others_when_it_ends() -> None:
    host = server(SHARED)
    for stream_id in range(1, 41, 2):
        host.receive(headers(stream_id) + data(stream_id, bytes(20_000)))
        assert host.stream(stream_id).window.size_bytes == 40_000
        host.receive(push_reset(stream_id, Code.CANCEL))
    assert host.h2._spare_bytes == 20_000


def test_a_window_grows_to_the_limit_and_no_further() -> None:
    host = server(Limits(stream_window_bytes=50_000, session_window_bytes=1_000_000, accept_streams=100))
    host.receive(headers(1))
    for _ in range(30):
        host.receive(data(1, bytes(host.stream(1).window.left_bytes)))
    assert host.stream(1).window.size_bytes == 50_000
    told = sum(frame.number for frame in host.frames() if frame.stream_id == 1)
    assert told > 30 * 50_000 - 200_000


@given(st.lists(st.tuples(st.sampled_from([1, 3, 5, 7]), st.booleans()), max_size=80))
def test_the_connections_window_is_never_promised_twice(steps: list[tuple[int, bool]]) -> None:
    host = server(SHARED, takes=False)
    unread = dict.fromkeys((1, 3, 5, 7), 0)
    for stream_id in unread:
        host.receive(headers(stream_id))
    for stream_id, reads in steps:
        stream = host.stream(stream_id)
        if reads:
            count, unread[stream_id] = unread[stream_id], 0
            host.h2.take(stream, count)
        else:
            count = min(stream.window.left_bytes, host.h2._window.left_bytes)
            unread[stream_id] += count
            if count:
                host.receive(data(stream_id, bytes(count)))
        promised = sum(stream.window.left_bytes for stream in host.h2.streams.values())
        assert promised <= host.h2._window.left_bytes + host.h2._window.taken_bytes
        assert host.h2._window.left_bytes or not promised  # nobody waits who could be told


def test_a_client_hears_of_smaller_windows_when_it_has_many_streams() -> None:
    """What it has sent by then is not too much, nor what it sends until it has heard."""
    host = server(replace(SHARED, wide_streams=2), takes=False)
    host.receive(headers(1) + headers(3))
    assert [host.stream(stream_id).window.left_bytes for stream_id in (1, 3)] == [65_535] * 2
    assert not [frame for frame in host.frames() if frame.kind == Frame.SETTINGS and not frame.flags]
    host.receive(headers(5) + data(1, bytes(60_000)))
    (told,) = [frame for frame in host.frames() if frame.kind == Frame.SETTINGS and not frame.flags]
    assert told.payload == push_settings({Setting.INITIAL_WINDOW_SIZE: 20_000})[9:]
    assert host.stream(5).window.left_bytes == 65_535
    host.receive(headers(7) + SETTINGS_ACK)
    left = [host.stream(stream_id).window.left_bytes for stream_id in (1, 3, 5, 7)]
    assert left == [20_000 - 60_000, 20_000, 20_000, 20_000]
    for stream_id in (3, 5, 7):
        host.receive(push_reset(stream_id, Code.CANCEL))
    host.receive(headers(9))
    assert host.stream(9).window.left_bytes == 20_000
    assert not [frame for frame in host.frames() if frame.kind == Frame.SETTINGS and not frame.flags]


def test_more_than_the_streams_window_ends_the_stream() -> None:
    host = server(SMALL, takes=False)
    host.receive(headers(1))
    host.receive(data(1, bytes(1000)))
    host.receive(data(1, bytes(1)))
    assert host.events[-1] == ("reset", 1, Code.FLOW_CONTROL_ERROR)
    assert host.frames()[-1] == FrameSeen(Frame.RST_STREAM, 0, 1, (3).to_bytes(4, "big"))


def test_more_than_the_connections_window_ends_the_connection() -> None:
    host = server(
        Limits(stream_window_bytes=1000, session_window_bytes=70_000, accept_streams=1), takes=False
    )
    host.receive(headers(1))
    with pytest.raises(PeerError) as error:
        host.receive(data(1, bytes(70_001)))
    assert error.value.reply == Code.FLOW_CONTROL_ERROR


def test_padding_counts_for_the_windows_and_is_given_back() -> None:
    host = server(SMALL)
    host.receive(headers(1))
    for _ in range(5):
        host.receive(data(1, b"x", padding=200))
    told = sum(frame.number for frame in host.frames())
    assert told >= 500
    assert host.stream(1).window.left_bytes == 1000 - 5 * 202 + told
    assert host.stream(1).window.taken_bytes == 5 * 202 - told


def test_what_comes_for_a_stream_that_is_over_is_given_back_to_the_connection() -> None:
    host = server(Limits(stream_window_bytes=1000, session_window_bytes=66_000, accept_streams=1))
    host.receive(headers(1))
    host.h2.reset(host.stream(1), Code.CANCEL)
    host.frames()
    for _ in range(66):
        host.receive(data(1, bytes(1000)))
    updates = host.frames()
    assert {frame.stream_id for frame in updates} == {0}
    assert sum(frame.number for frame in updates) == 66_000
    assert not any(event[0] == "data" for event in host.events)


def test_what_was_under_way_when_we_reset_a_stream_is_no_glitch() -> None:
    host = server(SMALL)
    host.receive(headers(1))
    host.h2.reset(host.stream(1), Code.CANCEL)
    for _ in range(10):
        host.receive(data(1, bytes(100)))
    host.receive(push_window_update(1, 5))
    host.receive(push_reset(1, Code.CANCEL))
    assert host.h2.budget.spent == 0
    host.receive(data(1, bytes(100)))
    assert host.h2.budget.spent == 1


@pytest.mark.parametrize(
    "frame",
    [data(5, b"x"), push_reset(5, Code.CANCEL), push_window_update(5, 1), data(2, b"x"), data(0, b"x")],
)
def test_a_frame_for_a_stream_that_was_never_opened_ends_the_connection(frame: bytes) -> None:
    host = server()
    host.receive(headers(1))
    with pytest.raises(PeerError) as error:
        host.receive(frame)
    assert error.value.reply == Code.PROTOCOL_ERROR


def test_data_behind_the_end_is_a_stream_error() -> None:
    host = server()
    host.receive(headers(1) + data(1, b"", end=True))
    host.receive(data(1, b"more"))
    assert host.events[-2:] == [("end", 1), ("reset", 1, Code.STREAM_CLOSED)]


def test_both_ends_close_a_stream_in_either_order() -> None:
    pair = Pair()
    first = pair.open()
    pair.client.h2.finish(first)
    pair.exchange()
    peer = pair.server.stream(1)
    assert pair.server.events[-1] == ("end", 1)
    assert not peer.closed
    pair.server.h2.answer(peer, OK_BLOCK)
    pair.server.h2.finish(peer)
    pair.exchange()
    assert pair.client.events[-2:] == [("answer", 1, OK, False), ("end", 1)]
    assert first.closed
    assert peer.closed
    assert pair.client.h2.streams == pair.server.h2.streams == {}


def test_a_reset_ends_both_ways_at_once() -> None:
    pair = Pair()
    stream = pair.open()
    pair.client.h2.reset(stream, Code.CANCEL)
    pair.client.h2.reset(stream, Code.CANCEL)
    pair.exchange()
    assert pair.server.events[-1] == ("reset", 1, Code.CANCEL)
    assert pair.server.h2.streams == {}


def test_the_peers_windows_are_ours_to_send_in() -> None:
    host = client()
    assert host.h2.send_window == DEFAULT_WINDOW
    host.receive(push_settings({Setting.INITIAL_WINDOW_SIZE: 10}))
    stream = RecordedStream(host)
    host.h2.open(stream, CONNECT_BLOCK)
    assert stream.send_window == 10
    host.receive(push_window_update(1, 5) + push_window_update(0, 7))
    assert stream.send_window == 15
    assert host.h2.send_window == DEFAULT_WINDOW + 7


def test_a_window_that_opens_is_told_once() -> None:
    host = client()
    stream = RecordedStream(host)
    host.h2.open(stream, CONNECT_BLOCK)
    stream.send_window = host.h2.send_window = 0
    host.receive(push_window_update(1, 1) * 2 + push_window_update(0, 1) * 2)
    assert host.events == [("window", 1), ("window", 0)]


def test_a_smaller_initial_window_makes_open_ones_negative_and_they_open_only_above_zero() -> None:
    host = client()
    stream = RecordedStream(host)
    host.h2.open(stream, CONNECT_BLOCK)
    stream.send_window = 0
    host.receive(push_settings({Setting.INITIAL_WINDOW_SIZE: DEFAULT_WINDOW - 10}))
    assert stream.send_window == -10
    host.receive(push_window_update(1, 10))
    assert stream.send_window == 0
    assert ("window", 1) not in host.events
    host.receive(push_settings({Setting.INITIAL_WINDOW_SIZE: DEFAULT_WINDOW}))
    assert stream.send_window == 10
    assert host.events[-2:] == [("window", 1), ("settings",)]


def test_windows_above_the_maximum_are_refused() -> None:
    host = client()
    host.h2.open(RecordedStream(host), CONNECT_BLOCK)
    host.receive(push_window_update(1, MAX_WINDOW))
    assert host.events[-1] == ("reset", 1, Code.FLOW_CONTROL_ERROR)
    with pytest.raises(PeerError) as error:
        host.receive(push_window_update(0, MAX_WINDOW))
    assert error.value.reply == Code.FLOW_CONTROL_ERROR
    host = client()
    host.h2.open(RecordedStream(host), CONNECT_BLOCK)
    host.receive(push_window_update(1, MAX_WINDOW - DEFAULT_WINDOW))
    with pytest.raises(PeerError):
        host.receive(push_settings({Setting.INITIAL_WINDOW_SIZE: DEFAULT_WINDOW + 1}))


def test_a_window_update_of_nothing_is_an_error_of_its_scope() -> None:
    host = client()
    host.h2.open(RecordedStream(host), CONNECT_BLOCK)
    host.receive(push_window_update(1, 0))
    assert host.events[-1] == ("reset", 1, Code.PROTOCOL_ERROR)
    with pytest.raises(PeerError):
        host.receive(push_window_update(0, 0))


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 30_000)), max_size=40))
def test_two_of_us_never_break_each_others_windows(messages: list[tuple[bool, int]]) -> None:
    pair = Pair()
    near = pair.open()
    far = pair.server.stream(1)
    pair.server.h2.answer(far, OK_BLOCK)
    pair.exchange()
    sent = {True: 0, False: 0}
    for up, count in messages:
        host, stream = (pair.client, near) if up else (pair.server, far)
        count = min(count, stream.send_window, host.h2.send_window)
        if count > 0:
            pair.send(host, stream, bytes(count))
            sent[up] += count
    for up, host in ((True, pair.server), (False, pair.client)):
        assert sum(len(event[2]) for event in host.events if event[0] == "data") == sent[up]
        assert host.h2.budget.spent == 0
