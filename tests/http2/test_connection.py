"""An HTTP/2 connection as a whole: opening, answering, refusing, and what peers do to break it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.http2.recording import (
    CONNECT,
    CONNECT_BLOCK,
    HELLO,
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
from ztunnel.http2.fields import Fields, push_fields
from ztunnel.http2.frame import (
    DEFAULT_FRAME_BYTES,
    END_HEADERS,
    END_STREAM,
    MAX_STREAM_ID,
    PREFACE,
    SETTINGS_ACK,
    Code,
    Frame,
    Setting,
    push_frame,
    push_goaway,
    push_headers,
    push_ping,
    push_reset,
    push_settings,
    push_window_update,
)
from ztunnel.http2.limits import Limits, Role
from ztunnel.http2.settings import pull_settings
from ztunnel.http2.standing import CHURN, HEADERS_WORK, UNSTARTED_POINTS, WORK_PER_ROUND, Standing


def test_the_first_words_are_ztunnels_but_for_smaller_windows() -> None:
    host = RecordingHost(Role.CLIENT)
    host.h2.start()
    assert host.pushed.startswith(PREFACE)
    settings, window = host.frames()
    assert pull_settings(settings.payload) == {4: 134_217, 5: 1 << 20, 6: 16 << 10, 2: 0}
    assert (window.stream_id, window.number) == (0, (16 << 20) - 65_535)
    host = RecordingHost(Role.SERVER)
    host.h2.start()
    assert pull_settings(host.frames()[0].payload) == {4: 67_108, 5: 1 << 20, 6: 16 << 10, 3: 200}


def test_a_tunnel_is_asked_for_and_answered() -> None:
    pair = Pair()
    stream = pair.open()
    assert pair.server.events[-2:] == [("request", CONNECT), ("opened", 1)]
    pair.server.h2.answer(pair.server.stream(1), OK_BLOCK)
    pair.exchange()
    assert pair.client.events[-1] == ("answer", 1, OK, False)
    assert stream.answered
    pair.send(pair.client, stream, b"hello")
    assert pair.server.events[-1] == ("data", 1, b"hello")


def test_a_refusal_ends_the_stream_at_once() -> None:
    pair = Pair()
    stream = pair.open()
    refusal = ((b":status", b"401"),)
    pair.server.h2.answer(pair.server.stream(1), push_fields(refusal), end=True)
    pair.exchange()
    assert pair.client.events[-1] == ("answer", 1, refusal, True)
    assert stream.remote_closed


def test_an_informational_answer_is_passed_over() -> None:
    host = client()
    host.h2.open(RecordedStream(host), CONNECT_BLOCK)
    host.receive(headers(1, ((b":status", b"103"),)) + headers(1, OK))
    assert host.events == [("answer", 1, OK, False)]


def test_trailers_end_a_stream() -> None:
    host = client()
    host.h2.open(RecordedStream(host), CONNECT_BLOCK)
    host.receive(headers(1, OK) + headers(1, ((b"x", b"y"),), end=True))
    assert host.events[-1] == ("end", 1)


def test_headers_in_the_middle_that_end_nothing_are_a_stream_error() -> None:
    host = server()
    host.receive(headers(1) + headers(1))
    assert host.events[-1] == ("reset", 1, Code.PROTOCOL_ERROR)


def test_a_request_that_ends_at_once_is_told_so() -> None:
    host = server()
    host.receive(headers(1, end=True))
    assert host.events == [("request", CONNECT), ("end", 1), ("opened", 1)]


def test_a_header_block_in_parts_is_one_request() -> None:
    host = server()
    block = push_fields(CONNECT)
    host.receive(push_frame(Frame.HEADERS, END_STREAM, 1, block[:3]))
    host.receive(push_frame(Frame.CONTINUATION, 0, 1, block[3:5]))
    host.receive(push_frame(Frame.CONTINUATION, END_HEADERS, 1, block[5:]))
    assert host.events[0] == ("request", CONNECT)


@pytest.mark.parametrize(
    "interruption",
    [data(1, b"x"), push_ping(bytes(8)), headers(3), push_frame(Frame.CONTINUATION, END_HEADERS, 3)],
)
def test_a_header_block_must_not_be_interrupted(interruption: bytes) -> None:
    host = server()
    host.receive(push_frame(Frame.HEADERS, 0, 1, push_fields(CONNECT)))
    with pytest.raises(PeerError) as error:
        host.receive(interruption)
    assert error.value.reply == Code.PROTOCOL_ERROR


def test_a_request_above_the_limit_costs_the_connection_or_its_stream_as_the_limits_say() -> None:
    block = push_fields([*CONNECT, (b"x", b"y" * 20_000)])
    large = push_headers(1, block, False, DEFAULT_FRAME_BYTES)
    with pytest.raises(PeerError) as error:
        server().receive(large)
    assert error.value.reply == Code.ENHANCE_YOUR_CALM
    host = server(limits=Limits(skipped_header_bytes=8 * 1024))
    host.receive(large + headers(3))
    assert host.events == [("request", CONNECT), ("opened", 1), ("request", CONNECT), ("opened", 3)]
    assert [stream.oversized for stream in host.h2.streams.values()] == [True, False]
    with pytest.raises(PeerError) as error:
        host.receive(push_headers(5, block + block, False, DEFAULT_FRAME_BYTES))
    assert error.value.reply == Code.ENHANCE_YOUR_CALM


@pytest.mark.parametrize("stream_id", [0, 2])
def test_a_peer_opens_odd_streams_only(stream_id: int) -> None:
    with pytest.raises(PeerError):
        server().receive(headers(stream_id))


def test_a_server_opens_no_streams() -> None:
    with pytest.raises(PeerError):
        client().receive(headers(2, OK))
    with pytest.raises(PeerError):
        client().receive(push_frame(Frame.PUSH_PROMISE, END_HEADERS, 1, bytes(4)))


def test_the_stream_above_the_limit_is_refused_and_the_others_live_on() -> None:
    host = server(Limits(accept_streams=2))
    host.receive(headers(1) + headers(3) + headers(5))
    assert host.frames() == [FrameSeen(Frame.RST_STREAM, 0, 5, (7).to_bytes(4, "big"))]
    host.receive(data(1, b"x"))
    assert host.events[-1] == ("data", 1, b"x")
    host.receive(push_reset(1, Code.CANCEL) + headers(7))
    assert host.events[-1] == ("opened", 7)


def test_a_stream_is_refused_when_there_is_no_room() -> None:
    host = server()
    host.room = False
    host.receive(headers(1))
    assert [frame.number for frame in host.frames()] == [Code.REFUSED_STREAM]


def test_our_streams_keep_to_the_peers_limit_and_to_ours() -> None:
    host = client()
    for _ in range(100):
        assert host.h2.can_open
        host.h2.open(RecordedStream(host), CONNECT_BLOCK)
    assert not host.h2.can_open
    host.receive(push_reset(1, Code.CANCEL))
    assert host.h2.can_open
    host.receive(push_settings({Setting.MAX_CONCURRENT_STREAMS: 99}))
    assert not host.h2.can_open
    host.receive(push_settings({Setting.MAX_CONCURRENT_STREAMS: 1000}))
    assert host.h2.can_open


def test_no_stream_is_opened_where_it_could_send_nothing() -> None:
    host = client()
    host.h2.send_window = 0
    assert not host.h2.can_open


def test_no_stream_is_opened_beside_slow_readers_that_hold_nearly_all_of_the_window() -> None:
    host = client()
    window = host.h2._window
    size = window.left_bytes
    window.left_bytes = size // 8 + 1
    assert host.h2.can_open
    window.left_bytes = size // 8
    assert not host.h2.can_open


def test_pings_are_answered_and_answers_told() -> None:
    host = server()
    host.receive(push_ping(b"abcdefgh") + push_ping(b"12345678", ack=True))
    assert host.frames() == [FrameSeen(Frame.PING, 1, 0, b"abcdefgh")]
    assert host.events == [("pong", b"12345678")]


def test_settings_are_acknowledged_and_acknowledgements_are_not() -> None:
    host = server()
    host.receive(push_settings({Setting.MAX_FRAME_SIZE: 1 << 20}) + SETTINGS_ACK)
    assert host.frames() == [FrameSeen(Frame.SETTINGS, 1, 0, b"")]
    assert host.h2.frame_bytes == 1 << 20


def test_goaway_hands_back_what_the_peer_has_not_looked_at_and_lets_the_rest_end() -> None:
    host = client()
    for _ in range(3):
        host.h2.open(RecordedStream(host), CONNECT_BLOCK)
    host.receive(headers(1, OK) + push_goaway(3, Code.NO_ERROR))
    assert host.events == [
        ("answer", 1, OK, False),
        ("reset", 5, Code.REFUSED_STREAM),
        ("goaway", Code.NO_ERROR),
    ]
    assert not host.h2.can_open
    host.receive(headers(3, OK) + data(1, b"still"))
    assert host.events[-1] == ("data", 1, b"still")


def test_a_goaway_that_allows_all_hands_back_nothing() -> None:
    host = client()
    host.h2.open(RecordedStream(host), CONNECT_BLOCK)
    host.receive(push_goaway(MAX_STREAM_ID, Code.NO_ERROR))
    assert host.events == [("goaway", Code.NO_ERROR)]


def test_refusing_names_the_last_stream_that_was_looked_at() -> None:
    host = server()
    host.receive(headers(1) + headers(3))
    assert host.h2.refuse_streams() == 3
    host.receive(headers(5))
    assert [(frame.stream_id, frame.number) for frame in host.frames()] == [(5, Code.REFUSED_STREAM)]


def test_headers_of_a_stream_that_we_gave_up_are_still_decoded() -> None:
    host = client()
    stream = RecordedStream(host)
    host.h2.open(stream, CONNECT_BLOCK)
    host.h2.reset(stream, Code.CANCEL)
    host.receive(headers(1, OK))
    assert host.events == []
    assert host.h2.budget.spent == 0


MALFORMED = (*CONNECT, (b"connection", b"close"))


def test_a_malformed_request_is_reset_and_nobody_hears_of_it() -> None:
    host = server()
    host.receive(headers(1, MALFORMED) + data(1, b"x") + headers(1, ((b"x", b"y"),), end=True) + headers(3))
    assert host.events == [("request", CONNECT), ("opened", 3)]
    assert host.frames() == [FrameSeen(Frame.RST_STREAM, 0, 1, (1).to_bytes(4, "big"))]
    assert host.h2.budget.spent == 1


def test_what_is_malformed_is_so_however_often_it_comes_and_whatever_it_was_before() -> None:
    host = server()
    trailers = ((b"x", b"y"),)
    for stream_id in range(1, 9, 2):
        host.receive(headers(stream_id) + headers(stream_id, trailers, end=True))
    assert [event for event in host.events if event[0] == "end"] == [
        ("end", 1),
        ("end", 3),
        ("end", 5),
        ("end", 7),
    ]
    heard = len(host.events)
    for stream_id in range(9, 25, 4):
        host.receive(headers(stream_id, trailers) + headers(stream_id + 2, MALFORMED))
    assert len(host.events) == heard
    assert [frame.stream_id for frame in host.frames()] == list(range(9, 25, 2))
    host = client()
    for stream_id in range(1, 9, 2):
        host.h2.open(RecordedStream(host), CONNECT_BLOCK)
        host.receive(headers(stream_id, OK) + headers(stream_id, trailers, end=True))
    for stream_id in range(9, 17, 2):
        host.h2.open(RecordedStream(host), CONNECT_BLOCK)
        host.receive(headers(stream_id, trailers))
        assert host.events[-1] == ("reset", stream_id, Code.PROTOCOL_ERROR)


@pytest.mark.parametrize("answer", [(*OK, (b"upgrade", b"x")), ((b"x", b"y"),), ()])
def test_a_malformed_answer_loses_its_stream_only(answer: Fields) -> None:
    host = client()
    for _ in range(2):
        host.h2.open(RecordedStream(host), CONNECT_BLOCK)
    host.receive(headers(1, answer) + headers(3, OK))
    assert host.events == [("reset", 1, Code.PROTOCOL_ERROR), ("answer", 3, OK, False)]


def test_malformed_trailers_lose_their_stream_only() -> None:
    host = server()
    host.receive(headers(1) + headers(3) + headers(1, OK, end=True) + data(3, b"x"))
    assert host.events[-2:] == [("reset", 1, Code.PROTOCOL_ERROR), ("data", 3, b"x")]


@pytest.mark.parametrize("frame", [headers(1), data(1, b"x")], ids=["HEADERS", "DATA"])
def test_what_comes_on_a_stream_that_the_peer_has_closed_ends_the_connection(frame: bytes) -> None:
    def ended(host: RecordingHost) -> None:
        host.receive(headers(1, end=True))
        host.h2.answer(host.stream(1), OK_BLOCK, end=True)

    def reset(host: RecordingHost) -> None:
        host.receive(headers(1) + push_reset(1, Code.CANCEL))

    for close in (ended, reset):
        host = server()
        close(host)
        with pytest.raises(PeerError) as error:
            host.receive(frame)
        assert error.value.reply == Code.STREAM_CLOSED


@pytest.mark.parametrize("frame", [headers(3), data(3, b"x")], ids=["HEADERS", "DATA"])
def test_an_id_that_was_passed_over_ends_the_connection(frame: bytes) -> None:
    host = server()
    host.receive(headers(1) + headers(5))
    with pytest.raises(PeerError) as error:
        host.receive(frame)
    assert error.value.reply == Code.PROTOCOL_ERROR


def test_what_was_under_way_for_a_stream_that_we_refused_harms_nobody() -> None:
    host = server(Limits(accept_streams=1))
    host.receive(headers(1))
    for stream_id in range(3, 603, 2):
        host.now += 0.1
        host.receive(headers(stream_id))
    host.now += 60
    for stream_id in (3, 601):
        host.receive(data(stream_id, b"early") + headers(stream_id, ((b"x", b"y"),), end=True))
    host.receive(data(1, b"x"))
    assert host.events[-1] == ("data", 1, b"x")


def test_what_was_under_way_when_the_peer_went_away_is_no_fault() -> None:
    host = client()
    for _ in range(2):
        host.h2.open(RecordedStream(host), CONNECT_BLOCK)
    host.receive(push_goaway(1, Code.NO_ERROR) + headers(3, OK) + data(3, b"x") + headers(1, OK))
    assert host.events[-1] == ("answer", 1, OK, False)


def test_headers_without_end_for_a_stream_that_we_reset_cost_points() -> None:
    host = server()
    host.receive(headers(1))
    host.h2.reset(host.stream(1), Code.CANCEL)
    with pytest.raises(PeerError) as error:
        flood(host, lambda number: headers(1))
    assert error.value.reply == Code.ENHANCE_YOUR_CALM


def test_a_priority_of_a_wrong_length_loses_its_stream() -> None:
    host = server()
    host.receive(headers(1) + headers(3) + push_frame(Frame.PRIORITY, 0, 1, bytes(4)) + data(3, b"x"))
    assert host.events[-2:] == [("reset", 1, Code.FRAME_SIZE_ERROR), ("data", 3, b"x")]


WRONG_FRAMES = {
    "PRIORITY of the connection": push_frame(Frame.PRIORITY, 0, 0, bytes(5)),
    "PRIORITY of a stream on itself": push_frame(Frame.PRIORITY, 0, 7, b"\0\0\0\x07\x10"),
    "PRIORITY of 4 bytes on no stream": push_frame(Frame.PRIORITY, 0, 7, bytes(4)),
    "PRIORITY of 6 bytes": push_frame(Frame.PRIORITY, 0, 1, bytes(6)),
    "a reset of a stream that was never opened": push_reset(9, Code.CANCEL),
    "PING of 7 bytes": push_frame(Frame.PING, 0, 0, bytes(7)),
    "PING on a stream": push_frame(Frame.PING, 0, 1, bytes(8)),
    "SETTINGS of 5 bytes": push_frame(Frame.SETTINGS, 0, 0, bytes(5)),
    "SETTINGS on a stream": push_frame(Frame.SETTINGS, 0, 1),
    "SETTINGS that acknowledge with values": push_frame(Frame.SETTINGS, 1, 0, bytes(6)),
    "GOAWAY of 7 bytes": push_frame(Frame.GOAWAY, 0, 0, bytes(7)),
    "GOAWAY on a stream": push_frame(Frame.GOAWAY, 0, 1, bytes(8)),
    "RST_STREAM of 3 bytes": push_frame(Frame.RST_STREAM, 0, 1, bytes(3)),
    "WINDOW_UPDATE of 3 bytes": push_frame(Frame.WINDOW_UPDATE, 0, 0, bytes(3)),
    "a CONTINUATION of nothing": push_frame(Frame.CONTINUATION, END_HEADERS, 1),
    "fields that are not HPACK": push_frame(Frame.HEADERS, END_HEADERS, 3, b"\xff\xff\xff\xff\xff\xff"),
}


@pytest.mark.parametrize("octets", WRONG_FRAMES.values(), ids=WRONG_FRAMES.keys())
def test_a_wrong_frame_ends_the_connection(octets: bytes) -> None:
    host = server()
    host.receive(headers(1))
    with pytest.raises(PeerError) as error:
        host.receive(octets)
    assert error.value.reply in set(Code)


FLOODS: dict[str, Callable[[int], bytes]] = {
    "PING": lambda number: push_ping(bytes(8)),
    "SETTINGS": lambda number: push_settings({Setting.INITIAL_WINDOW_SIZE: 70_000 + number % 2}),
    "PRIORITY": lambda number: push_frame(Frame.PRIORITY, 0, 1, bytes(5)),
    "empty DATA": lambda number: data(1, b""),
    "WINDOW_UPDATE of a stream": lambda number: push_window_update(1, 1),
    "WINDOW_UPDATE of the connection": lambda number: push_window_update(0, 1),
    "unknown frames": lambda number: push_frame(Frame.DATA, 0, 0)[:3] + b"\x55" + bytes(5),
    "GOAWAY": lambda number: push_goaway(1, 0),
    "padding alone": lambda number: data(1, b"", padding=200),
    "streams above the limit": lambda number: headers(2 * number + 3),
    "windows that overflow": lambda number: (
        headers(2 * number + 3) + push_window_update(2 * number + 3, 2**31 - 1)
    ),
    "headers of streams that are over": lambda number: (
        headers(2 * number + 3, end=True) + headers(2 * number + 3, end=True)
    ),
    "CONTINUATION": lambda number: push_frame(Frame.CONTINUATION if number else Frame.HEADERS, 0, 3),
}


def flood(host: RecordingHost, frames: Callable[[int], bytes]) -> None:
    for number in range(2000):
        host.receive(frames(number))


@pytest.mark.parametrize("frames", FLOODS.values(), ids=FLOODS.keys())
def test_a_flood_is_answered_by_calm_within_two_thousand_frames(frames: Callable[[int], bytes]) -> None:
    host = server()
    host.receive(headers(1))
    with pytest.raises(PeerError) as error:
        flood(host, frames)
    assert error.value.reply == Code.ENHANCE_YOUR_CALM
    assert host.h2.budget.spent <= 500
    assert len(host.pushed) <= 64 * 1024


def test_rapid_resets_cost_points_of_their_own_and_never_the_session() -> None:
    host = server()
    before = host.h2.standing.churn.level(host.now)
    for number in range(300):
        host.receive(headers(2 * number + 1))
        host.stream(2 * number + 1).started = number < 100
        host.receive(push_reset(2 * number + 1, Code.CANCEL))
    assert host.h2.budget.spent == 0
    spent = before - host.h2.standing.churn.level(host.now)
    assert spent == pytest.approx(100 + 200 * UNSTARTED_POINTS)


def test_streams_that_are_refused_for_want_of_room_are_no_glitches() -> None:
    host = server()
    host.room = False
    for number in range(2000):
        host.receive(headers(2 * number + 1))
    assert host.h2.budget.spent == 0
    assert host.h2.standing.churn.level(host.now) < 1000


def test_all_sessions_of_a_peer_pay_out_of_one_pocket() -> None:
    standing = Standing(100.0)
    for _ in range(2):
        host = RecordingHost(Role.SERVER, standing=standing)
        host.receive(HELLO)
        with pytest.raises(PeerError):
            flood(host, FLOODS["PING"])
    third = RecordingHost(Role.SERVER, standing=standing)
    third.receive(HELLO + headers(1) + data(1, b"x"))
    assert third.events[-1] == ("data", 1, b"x")
    with pytest.raises(PeerError) as error:
        third.receive(push_ping(bytes(8)))
    assert error.value.reply == Code.ENHANCE_YOUR_CALM


def test_what_is_left_for_later_rounds_is_read_then_and_in_order() -> None:
    host = server()
    host.receive(headers(1))
    host.h2.standing.enter(-5)
    text = bytes(range(256)) * 8
    view = memoryview(b"".join(data(1, bytes((octet,))) for octet in text))
    half = len(view) // 2
    assert host.h2.receive(view[:half], host.now)
    assert host.h2.receive(view[half:], host.now)
    assert host.events[-1] == ("data", 1, text[:WORK_PER_ROUND])
    rounds = 0
    while True:
        host.h2.standing.enter(rounds)
        rounds += 1
        if not host.h2.receive(memoryview(b""), host.now):
            break
    assert rounds == len(text) // WORK_PER_ROUND - 1
    assert host.events[-1] == ("data", 1, text)


def test_what_is_left_for_later_rounds_is_not_copied_in_each_and_a_reused_buffer_changes_nothing() -> None:
    host = server()
    host.receive(headers(1))
    text = bytes(range(256)) * 8
    buffer = bytearray(b"".join(data(1, bytes((octet,))) for octet in text))
    host.h2.standing.enter(-5)
    assert host.h2.receive(memoryview(buffer), host.now)
    buffer[:] = bytes(len(buffer))  # the engine reads the next peer's bytes into it
    holders = set()
    for number in range(len(text) // WORK_PER_ROUND - 2):
        host.h2.standing.enter(number)
        assert host.h2.receive(memoryview(b""), host.now)
        holders.add(id(memoryview(host.h2._partial).obj))
    assert len(holders) == 1
    host.h2.standing.enter(-6)
    host.h2.receive(memoryview(b""), host.now)
    assert host.events[-1] == ("data", 1, text)


def test_a_connect_weighs_more_than_a_message() -> None:
    host = server()
    host.h2.standing.enter(-5)
    octets = b"".join(headers(stream_id) for stream_id in range(1, 200, 2))
    assert host.h2.receive(memoryview(octets), host.now)
    assert sum(event[0] == "opened" for event in host.events) <= WORK_PER_ROUND // HEADERS_WORK


def test_what_a_request_weighs_is_a_limit_of_the_connection() -> None:
    host = server(Limits(request_work=8))
    host.h2.standing.enter(-5)
    octets = b"".join(headers(stream_id) for stream_id in range(1, 200, 2))
    assert host.h2.receive(memoryview(octets), host.now)
    opened = sum(event[0] == "opened" for event in host.events)
    assert WORK_PER_ROUND // HEADERS_WORK < opened <= WORK_PER_ROUND // 8


def test_streams_that_live_and_end_are_no_flood() -> None:
    host = server()
    for stream_id in range(1, 20_001, 2):
        host.receive(headers(stream_id) + data(stream_id, b"hello", end=True))
        stream = host.stream(stream_id)
        host.h2.answer(stream, OK_BLOCK)
        host.h2.finish(stream)
    assert host.h2.budget.spent == 0
    assert host.h2.streams == {}
    assert len(pull_frames(bytes(host.pushed))) >= 20_000


def test_resets_of_streams_that_lived_are_no_flood() -> None:
    host = server()
    for stream_id in range(1, 4001, 2):
        host.receive(headers(stream_id))
        host.now += 1.5
        host.receive(push_reset(stream_id, Code.CANCEL))
    assert host.h2.budget.spent == 0


def test_messages_of_one_byte_are_no_flood() -> None:
    host = server(Limits(stream_window_bytes=1 << 20))
    host.receive(headers(1))
    for _ in range(5000):
        host.receive(data(1, b"x"))
    assert host.h2.budget.spent == 0


def test_the_glitches_of_a_client_are_not_the_servers_resets() -> None:
    host = client()
    for number in range(1000):
        host.h2.open(RecordedStream(host), CONNECT_BLOCK)
        host.receive(push_reset(2 * number + 1, Code.CANCEL))
    assert host.h2.budget.spent == 0


def test_a_stream_may_be_reset_again_and_costs_as_one_for_which_nothing_was_done() -> None:
    host = server()
    host.receive(headers(1) + push_reset(1, Code.CANCEL))
    churn, before = host.h2.standing.churn, host.h2.standing.churn.level(host.now)
    for _ in range(100):  # hyper's h2 resets once more for each frame that was under way
        host.receive(push_reset(1, Code.STREAM_CLOSED))
    assert host.h2.budget.spent == 0
    assert before - churn.level(host.now) == pytest.approx(100 * UNSTARTED_POINTS)


def test_who_resets_what_is_over_without_end_runs_into_debt_or_loses_a_session_that_may_be_lost() -> None:
    patient, strict = server(), server(Limits(churn_ends=True))
    for host in (patient, strict):
        host.receive(headers(1))
    frames = push_reset(1, Code.CANCEL) * int(CHURN.capacity / UNSTARTED_POINTS + 10)
    patient.receive(frames)
    assert patient.h2.standing.churn.level(patient.now) < 0
    with pytest.raises(PeerError) as error:
        strict.receive(frames)
    assert error.value.reply == Code.ENHANCE_YOUR_CALM


@pytest.mark.parametrize(
    ("more", "points"),
    [((), 0.0), (((b"x", b"y"),) * 100, 0.6), (((b"x", b"y" * 2000),), 0.2)],
    ids=["usual", "many fields", "large fields"],
)
def test_a_header_block_that_costs_much_is_paid_for(more: Fields, points: float) -> None:
    host = server()
    before = host.h2.standing.churn.level(host.now)
    host.receive(headers(1, (*CONNECT, *more)))
    assert before - host.h2.standing.churn.level(host.now) == pytest.approx(points)
