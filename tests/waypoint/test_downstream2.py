"""A client's connection of HTTP/2, with the `h2` library as the client: an independent peer."""

from __future__ import annotations

import itertools
from functools import partial

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.http2.recording import pull_frames
from tests.waypoint.broken import BROKEN
from tests.waypoint.rig import Rig, Wire, echoes
from ztunnel.http2.frame import END_STREAM, MAX_STREAM_ID, Code, Frame, push_end, push_reset
from ztunnel.l7.reply import NO_ROUTE
from ztunnel.l7.routing.plan import Plan
from ztunnel.waypoint.downstream2 import LINGER_SECONDS, Http2Server

GET = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/x")]
POST = [(b":method", b"POST"), *GET[1:]]


class Client:
    """A client on a wire."""

    def __init__(self, rig: Rig, validate: bool = True, huffman: bool = True) -> None:
        self.rig = rig
        self.wire = Wire()
        self.server = Http2Server(rig.way, self.wire)
        self.wire.receiver = self.server
        config = h2.config.H2Configuration(
            client_side=True, header_encoding=None, validate_outbound_headers=validate,
            normalize_outbound_headers=validate,
        )  # fmt: skip
        self.h2 = h2.connection.H2Connection(config)
        if not huffman:  # of large texts it takes the library seconds
            self.h2.encoder.encode = partial(self.h2.encoder.encode, huffman=False)
        self.h2.initiate_connection()
        self.events: list[h2.events.Event] = []

    def flush(self) -> list[h2.events.Event]:
        """Send what there is, and read what comes of it."""
        found: list[h2.events.Event] = []
        for _ in range(100):
            octets = self.h2.data_to_send()
            if octets:
                self.wire.send(octets)
            self.rig.clock.rounds()
            said = self.wire.said()
            if not octets and not said:
                break
            found += self.h2.receive_data(said)
        self.events += found
        return found

    def of(self, kind: type) -> list:
        return [each for each in self.events if isinstance(each, kind)]

    def body(self, stream: int) -> bytes:
        return b"".join(each.data for each in self.of(h2.events.DataReceived) if each.stream_id == stream)


def test_streams_are_exchanges_side_by_side() -> None:
    rig = Rig(echoes)
    client = Client(rig)
    client.h2.send_headers(1, GET, end_stream=True)
    client.h2.send_headers(3, POST)
    client.h2.send_data(3, b"abc")
    client.h2.send_headers(3, [(b"t", b"v")], end_stream=True)
    client.flush()
    assert client.body(1) == b"GET /x "
    assert client.body(3) == b"POST /x abc"
    assert len(client.of(h2.events.StreamEnded)) == 2
    assert rig.servers[1].trailers == ((b"t", b"v"),)
    assert client.wire.took == client.wire.given
    assert not client.server.h2.streams


def test_trailers_and_interim_responses_reach_the_client() -> None:
    rig = Rig()
    client = Client(rig)
    client.h2.send_headers(1, [*GET, (b"expect", b"100-continue"), (b"te", b"trailers")], end_stream=True)
    client.flush()
    assert rig.server.request is not None
    assert rig.server.request.get(b"te") == b"trailers"
    assert rig.server.exchange is not None
    rig.server.exchange.informed(((b":status", b"103"), (b"link", b"</a>")))
    rig.server.respond((b"content-type", b"application/grpc"))
    rig.server.say(b"abc")
    rig.server.end(((b"grpc-status", b"0"),))
    client.flush()
    interim = [dict(each.headers)[b":status"] for each in client.of(h2.events.InformationalResponseReceived)]
    assert interim == [b"100", b"103"]
    (trailers,) = client.of(h2.events.TrailersReceived)
    assert trailers.headers == [(b"grpc-status", b"0")]


@given(st.data())
def test_any_split_of_the_input_gives_the_same_answers(data: st.DataObject) -> None:
    rig = Rig(echoes)
    client = Client(rig)
    client.h2.send_headers(1, POST)
    client.h2.send_data(1, b"abc" * 20, end_stream=True)
    client.h2.send_headers(3, GET, end_stream=True)
    octets = client.h2.data_to_send()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(octets)), max_size=8)))
    for start, stop in itertools.pairwise([0, *cuts, len(octets)]):
        client.wire.send(octets[start:stop])
        rig.clock.rounds()
    client.flush()
    assert client.body(1) == b"POST /x " + b"abc" * 20
    assert client.body(3) == b"GET /x "


@given(st.binary(max_size=300), st.booleans())
def test_garbage_ends_the_connection_and_takes_nobody_along(garbage: bytes, after: bool) -> None:
    rig = Rig(echoes)
    client = Client(rig)
    if after:
        client.h2.send_headers(1, POST)
        client.flush()
    client.wire.send(garbage)
    rig.clock.rounds()
    client.server.lost(None)
    assert not rig.live
    assert all(each.over for each in rig.ended_)
    assert client.wire.took == client.wire.given


ANOTHER_ELSEWHERE = [
    ([(b":method", b"GET / HTTP/1.1"), *GET[1:]], 400),
    ([*GET[:3], (b":path", b"/a b")], 400),
    ([*GET[:3], (b":path", b"/a#b")], 400),
    ([*GET[:3], (b":path", b"/%00")], 400),
    ([*GET[:2], (b":authority", b"u@a"), GET[3]], 400),
    ([GET[0], (b":scheme", b"HTTP"), *GET[2:]], 400),
    ([*GET, (b"host", b"b")], 400),
    ([(b":method", b"CONNECT"), (b":authority", b"a:80")], 404),
    ([*GET, (b"content-length", b"+1")], 400),
]
MALFORMED = [
    [*GET, (b"transfer-encoding", b"chunked")],
    [*GET, (b"connection", b"close")],
    [*GET, (b"X-Upper", b"a")],
    [*GET, (b"x", b"a\r\nb: c")],
    [*GET, (b":path", b"/b")],
    [*GET, (b":protocol", b"websocket")],
    GET[:3],
]


@pytest.mark.parametrize(("headers", "status"), ANOTHER_ELSEWHERE)
def test_what_would_be_another_request_elsewhere_goes_nowhere(headers, status: int) -> None:
    rig = Rig(echoes)
    client = Client(rig, validate=False)
    client.h2.send_headers(1, headers)
    client.flush()
    (answer,) = client.of(h2.events.ResponseReceived)
    assert dict(answer.headers)[b":status"] == b"%d" % status
    assert not rig.servers


@pytest.mark.parametrize("headers", MALFORMED)
def test_what_is_malformed_is_reset_and_heard_by_nobody(headers) -> None:
    rig = Rig(echoes)
    client = Client(rig, validate=False)
    client.h2.send_headers(1, headers)
    client.flush()
    (reset,) = client.of(h2.events.StreamReset)
    assert reset.error_code == h2.errors.ErrorCodes.PROTOCOL_ERROR
    assert not rig.servers
    assert not rig.ended_
    assert rig.refusals == ["http2.invalid_header_field"]


@pytest.mark.parametrize(
    ("more", "end"),
    [
        ([(b"cookie", b"a" * 61 * 1024)], True),
        ([(b"cookie", b"a" * 61 * 1024)], False),
        ([(b"x", b"a" * 4000)] * 20, True),
        ([(b"x%d" % number, b"a") for number in range(200)], True),
        ([(b"x", b"a")] * 900, True),
    ],
    ids=["one", "one with a body", "many large", "many", "the same again"],
)
def test_a_head_that_is_too_large_is_answered_431_and_the_others_go_on(more, end: bool) -> None:
    rig = Rig(echoes)
    client = Client(rig, huffman=False)
    client.h2.send_headers(1, POST)
    client.h2.send_headers(3, [*POST, (b"a", b"b"), *more], end_stream=end)
    client.h2.send_headers(5, [*GET, (b"a", b"b"), (b"c", b"d")], end_stream=True)
    client.flush()
    client.h2.send_data(1, b"abc", end_stream=True)
    client.h2.send_headers(7, [*GET, (b"c", b"d")], end_stream=True)
    client.flush()
    status = {
        each.stream_id: dict(each.headers)[b":status"] for each in client.of(h2.events.ResponseReceived)
    }
    assert status == {1: b"200", 3: b"431", 5: b"200", 7: b"200"}
    client.server.look(rig.clock.now + 1)
    client.flush()
    assert bool(client.of(h2.events.StreamReset)) is not end
    assert [each.request.get(b"c") for each in rig.servers] == [b"", b"d", b"d"]
    (refused,) = [each for each in rig.ended_ if each.status == 431]
    assert (refused.flag, refused.details) == ("DPE", "http2.too_many_headers")
    assert (refused.request.method, refused.request.path) == (b"POST", b"/x")
    assert not rig.live - {client.server}


@pytest.mark.parametrize(
    "more", [[(b"x", b"a" * 60_000)] * 5, [(b"x", b"a")] * 2000], ids=["bytes", "fields"]
)
def test_a_head_that_nobody_sends_ends_the_connection(more) -> None:
    rig = Rig(echoes)
    client = Client(rig, huffman=False)
    client.h2.send_headers(1, POST)
    client.h2.send_headers(3, [*GET, *more], end_stream=True)
    client.flush()
    assert client.wire.aborted is not None
    assert len(rig.servers) == 1
    assert rig.server.cancelled


def test_trailers_that_are_too_large_cost_their_stream() -> None:
    rig = Rig(echoes)
    client = Client(rig, huffman=False)
    client.h2.send_headers(1, POST)
    client.h2.send_headers(3, POST)
    client.h2.send_headers(1, [(b"x", b"a" * 61 * 1024)], end_stream=True)
    client.h2.send_data(3, b"abc", end_stream=True)
    client.flush()
    (reset,) = client.of(h2.events.StreamReset)
    assert (reset.stream_id, reset.error_code) == (1, h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
    assert client.body(3) == b"POST /x abc"
    assert [each.flag for each in rig.ended_] == ["DPE", "-"]
    assert rig.servers[0].cancelled
    assert not rig.servers[0].whole


@pytest.mark.parametrize(("length", "sent"), [(b"3", b"abcd"), (b"3", b"ab"), (b"3", b"")])
def test_a_body_that_is_not_as_long_as_it_says_is_none(length: bytes, sent: bytes) -> None:
    rig = Rig(echoes)
    client = Client(rig, validate=False)
    client.h2.send_headers(1, [*POST, (b"content-length", length)], end_stream=not sent)
    if sent:
        client.h2.send_data(1, sent, end_stream=True)
    client.flush()
    assert not [each for each in rig.servers if each.whole]
    assert [each.flag for each in rig.ended_] == ["DPE"]


def test_windows_of_the_client_stop_the_server() -> None:
    rig = Rig()
    client = Client(rig)
    client.h2.send_headers(1, GET, end_stream=True)
    client.flush()
    rig.server.respond()
    sent = 0
    while rig.server.took == sent and sent < 1 << 20:
        rig.server.say(b"x" * 8192)
        sent += 8192
    assert sent < 256 * 1024
    rig.server.end()
    got = 0
    for _ in range(200):
        for event in client.flush():
            if isinstance(event, h2.events.DataReceived):
                got += len(event.data)
                client.h2.acknowledge_received_data(event.flow_controlled_length, 1)
        if client.of(h2.events.StreamEnded):
            break
    assert got == sent
    assert rig.server.took == sent


def test_a_server_that_does_not_read_stops_the_client() -> None:
    rig = Rig()
    client = Client(rig)
    client.h2.send_headers(1, POST)
    client.flush()
    rig.server.held = 1 << 30
    sent = 0
    while (room := client.h2.local_flow_control_window(1)) > 0 and sent < 4 << 20:
        count = min(room, client.h2.max_outbound_frame_size)
        client.h2.send_data(1, b"x" * count)
        sent += count
        client.flush()
    assert sent <= 256 * 1024
    assert rig.server.exchange is not None
    rig.server.held = 0
    rig.server.exchange.up_writable()
    client.flush()
    assert client.h2.local_flow_control_window(1) > 0


def test_a_stream_that_the_client_resets_is_cancelled_upstream() -> None:
    rig = Rig()
    client = Client(rig)
    client.h2.send_headers(1, POST)
    client.flush()
    client.h2.reset_stream(1)
    client.flush()
    assert rig.server.cancelled
    assert [each.flag for each in rig.ended_] == ["DC"]


def test_a_response_that_breaks_off_is_reset() -> None:
    from ztunnel.l7.reply import TERMINATED

    rig = Rig()
    client = Client(rig)
    client.h2.send_headers(1, GET, end_stream=True)
    client.flush()
    rig.server.respond()
    assert rig.server.exchange is not None
    rig.server.exchange.failed(TERMINATED)
    client.flush()
    assert client.of(h2.events.StreamReset)


def test_an_answer_before_the_request_is_whole_tells_the_client_to_stop_when_it_has_read_it() -> None:
    rig = Rig()
    client = Client(rig)
    client.h2.send_headers(1, POST)
    client.h2.send_headers(3, POST)
    client.flush()
    rig.server.respond(status=b"413", end=True)
    rig.servers[0].respond(status=b"413", end=True)
    client.flush()
    assert len(client.of(h2.events.ResponseReceived)) == 2
    assert rig.server.cancelled
    # It may send what it was allowed before, and no more; others are not held up by that.
    while room := min(client.h2.local_flow_control_window(1), 16_384):
        client.h2.send_data(1, bytes(room))
    client.flush()
    assert client.h2.local_flow_control_window(1) == 0
    assert client.h2.outbound_flow_control_window >= 512 * 1024
    client.h2.end_stream(3)
    client.server.look(rig.clock.now + 0.4)
    client.flush()
    assert not client.of(h2.events.StreamReset)
    client.server.look(rig.clock.now + 0.6)
    client.flush()
    (reset,) = client.of(h2.events.StreamReset)
    assert (reset.stream_id, reset.error_code) == (1, h2.errors.ErrorCodes.NO_ERROR)
    assert not client.server.h2.streams
    assert not client.server.unwanted


def test_nobody_is_told_to_go_on_with_what_is_answered_already() -> None:
    rig = Rig()
    rig.plan = Plan("r", reply=NO_ROUTE)
    client = Client(rig)
    client.h2.send_headers(1, [*POST, (b"expect", b"100-continue")])
    client.flush()
    assert not client.of(h2.events.InformationalResponseReceived)
    assert client.of(h2.events.ResponseReceived)


def test_what_a_client_sends_before_it_has_heard_of_windows_fits_them() -> None:
    """Clients for which a window is below nothing fail (encode/httpcore#1082)."""
    rig = Rig()
    rig.waits = True
    client = Client(rig)
    client.h2.send_headers(1, POST)
    for size in (16_384, 16_384, 16_384, 16_383):
        client.h2.send_data(1, bytes(size))
    client.flush()
    assert client.h2.local_flow_control_window(1) == 0
    rig.stand(rig.waiting.pop())
    client.flush()
    assert client.h2.local_flow_control_window(1) >= 65_535


def test_a_client_that_ends_what_was_answered_is_told_at_once() -> None:
    """curl until 8 takes no notice of an answer's end that it had before, and waits (curl/curl#15316)."""
    rig = Rig()
    client = Client(rig)
    client.h2.send_headers(1, [*POST, (b"content-length", b"9")])
    client.h2.send_data(1, b"abc")
    client.flush()
    rig.server.respond(status=b"401", end=True)
    client.flush()
    assert client.of(h2.events.StreamEnded)
    client.wire.send(push_end(1))
    client.rig.clock.rounds()
    assert client.wire.said() == push_reset(1, Code.NO_ERROR)
    assert not client.server.unwanted
    assert rig.refusals == []


@pytest.mark.parametrize(("status", "goes_on"), [(b"200", False), (b"301", True), (b"401", True)])
def test_a_client_that_stops_as_an_error_begins_has_all_of_it(status: bytes, goes_on: bool) -> None:
    rig = Rig()
    client = Client(rig)
    client.h2.send_headers(1, [*POST, (b"content-length", b"9")])
    client.h2.send_data(1, b"abc")
    client.flush()
    rig.server.respond(status=status)
    rig.server.say(b"beginning")
    client.flush()
    client.wire.send(push_end(1))
    rig.server.say(b" and end")
    rig.server.end()
    client.flush()
    assert bool(client.of(h2.events.StreamReset)) == (not goes_on)
    assert bool(client.of(h2.events.StreamEnded)) == goes_on
    assert client.body(1) == (b"beginning and end" if goes_on else b"beginning")
    assert rig.server.cancelled
    assert not rig.server.whole
    assert not client.server.h2.streams


def test_an_error_that_does_not_end_ends_for_a_client_that_has_stopped() -> None:
    rig = Rig()
    client = Client(rig)
    client.h2.send_headers(1, [*POST, (b"content-length", b"9")])
    client.flush()
    rig.server.respond(status=b"401")
    client.wire.send(push_end(1))
    client.flush()
    client.server.look(rig.clock.now + 301.0)
    client.flush()
    assert client.of(h2.events.StreamReset)
    assert rig.server.cancelled


def test_the_hundred_and_first_stream_is_refused_and_the_others_go_on() -> None:
    rig = Rig()
    client = Client(rig, validate=False)
    client.flush()
    client.h2.update_settings({h2.settings.SettingCodes.ENABLE_PUSH: 0})
    for number in range(100):
        client.h2.send_headers(2 * number + 1, GET, end_stream=True)
        client.flush()
    client.h2.remote_settings[h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS] = 1000
    client.h2.remote_settings.acknowledge()
    client.h2.send_headers(201, GET, end_stream=True)
    client.flush()
    (reset,) = client.of(h2.events.StreamReset)
    assert (reset.stream_id, reset.error_code) == (201, h2.errors.ErrorCodes.REFUSED_STREAM)
    assert len(rig.servers) == 100
    rig.servers[0].respond(end=True)
    client.flush()
    assert len(client.of(h2.events.StreamEnded)) == 1


@pytest.mark.parametrize("octets", BROKEN.values(), ids=list(BROKEN))
@pytest.mark.parametrize("size", [1 << 20, 16_384, 100])
def test_a_connection_that_is_broken_ends_and_is_counted_once(octets: bytes, size: int) -> None:
    rig, wire = Rig(), Wire()
    wire.receiver = Http2Server(rig.way, wire)
    for start in range(0, len(octets), size):
        if not (wire.over or wire.finished):
            wire.send(octets[start : start + size])
            rig.clock.rounds()
    assert wire.over or wire.finished
    assert rig.refusals == ["http2.codec_error"]


def test_a_client_that_gives_up_every_second_request_is_served() -> None:
    rig = Rig(echoes)
    client = Client(rig)
    for number in range(1200):
        client.h2.send_headers(2 * number + 1, POST if number % 2 else GET, end_stream=number % 2 == 0)
        if number % 2:
            client.h2.reset_stream(2 * number + 1)
        if number % 20 == 0:
            client.flush()
    client.flush()
    assert len(client.of(h2.events.StreamEnded)) == 600
    assert rig.refusals == []


def test_a_flood_of_frames_that_carry_nothing_ends_the_connection() -> None:
    rig = Rig()
    client = Client(rig)
    client.h2.send_headers(1, POST)
    client.flush()
    for _ in range(2000):
        client.h2.ping(b"12345678")
        if client.wire.over:
            break
        client.wire.send(client.h2.data_to_send())
        rig.clock.rounds()
    assert client.wire.aborted is not None
    assert rig.server.cancelled


def test_silent_streams_get_408_and_idle_connections_are_closed() -> None:
    rig = Rig()
    client = Client(rig)
    client.h2.send_headers(1, POST)
    client.flush()
    patience = rig.way.patience.idle_seconds
    client.server.look(rig.clock.now + patience - 1)
    assert not rig.ended_
    client.server.look(rig.clock.now + patience + 1)
    client.flush()
    (answer,) = client.of(h2.events.ResponseReceived)
    assert dict(answer.headers)[b":status"] == b"408"
    client.server.look(rig.clock.now + 3 * patience)
    assert not client.wire.finished
    idle = rig.way.patience.client_idle_seconds + 2 * patience
    client.server.look(rig.clock.now + idle)
    assert client.wire.finished
    client.server.look(rig.clock.now + idle + LINGER_SECONDS + 1)
    assert client.wire.aborted is not None
    assert not rig.live


def test_a_call_of_grpc_may_be_silent_and_so_may_an_answer() -> None:
    """istio/istio#19043."""
    rig = Rig()
    client = Client(rig)
    client.h2.send_headers(1, [*POST, (b"content-type", b"application/grpc")])
    client.h2.send_headers(3, POST)
    client.flush()
    rig.servers[1].respond()
    client.flush()
    client.server.look(rig.clock.now + 24 * 3600)
    client.flush()
    assert not rig.ended_
    assert not client.wire.over


@pytest.mark.parametrize("cut", [5, 9, 20])
def test_a_head_or_a_frame_that_does_not_end_ends_the_connection(cut: int) -> None:
    rig = Rig(echoes)
    client = Client(rig)
    client.h2.send_headers(1, POST)
    client.flush()
    client.h2.send_headers(3, [*GET, (b"x", b"a" * 40_000)], end_stream=True)
    octets = client.h2.data_to_send()
    client.wire.send(octets[:cut])
    for number in range(4):
        client.server.look(rig.clock.now)
        assert not client.wire.over
        rig.clock.now += rig.way.patience.head_seconds / 4
        client.wire.send(octets[cut + number : cut + number + 1])
    client.server.look(rig.clock.now)
    assert not client.wire.over
    client.server.look(rig.clock.now + 0.1)
    assert client.wire.aborted is not None
    assert rig.refusals == ["request_header_timeout", "http2.codec_error"]
    assert rig.server.cancelled


def test_a_drain_loses_no_stream_under_way() -> None:
    rig = Rig()
    client = Client(rig)
    client.h2.send_headers(1, GET, end_stream=True)
    client.flush()
    client.server.drain()
    # One that was under way when the notice came is taken. (The library reads nothing behind a GOAWAY.)
    client.h2.send_headers(3, GET, end_stream=True)
    client.wire.send(client.h2.data_to_send())
    assert len(rig.servers) == 2
    rig.clock.now += 2
    client.server.look(rig.clock.now)
    for each in rig.servers:
        each.respond(end=True)
    frames = pull_frames(client.wire.said())
    last = [int.from_bytes(each.payload[:4], "big") for each in frames if each.kind is Frame.GOAWAY]
    assert last == [MAX_STREAM_ID, 3]
    answered = [each.stream_id for each in frames if each.kind is Frame.HEADERS and each.flags & END_STREAM]
    assert answered == [1, 3]
    client.server.look(rig.clock.now)
    assert client.wire.finished


def test_a_request_that_is_asked_again_is_another_one() -> None:
    rig = Rig(echoes)
    client = Client(rig)
    for stream in range(1, 11, 2):
        client.h2.send_headers(stream, [*GET, (b"x-user", b"a")], end_stream=True)
        client.flush()
        request = rig.server.request
        assert request is not None
        assert request.get(b"x-request-id") == b"an-id"
        assert [name for name, _ in request.fields].count(b"x-request-id") == 1
        assert (request.get(b"x-user"), request.path) == (b"a", b"/x")
        request.fields.clear()
        request.path = b"/another"
    assert client.body(9) == b"GET /x "


def test_a_request_that_is_refused_is_refused_again() -> None:
    rig = Rig(echoes)
    client = Client(rig, validate=False)
    for stream in (1, 3, 5, 7):
        client.h2.send_headers(stream, [*GET[:3], (b":path", b"/%00")], end_stream=True)
        client.flush()
    assert not rig.servers
    statuses = [dict(each.headers)[b":status"] for each in client.of(h2.events.ResponseReceived)]
    assert statuses == [b"400"] * 4
    assert len(rig.refusals) == 4
