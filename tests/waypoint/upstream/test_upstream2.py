"""A server's connection of HTTP/2, with the `h2` library as the server: an independent peer."""

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

from tests.waypoint.rig import Client, Clock, Rig, Wire
from ztunnel.l7.request import Request
from ztunnel.waypoint.exchange.exchange import Exchange
from ztunnel.waypoint.upstream.upstream2 import Http2Client


class Peer:
    """A server on a wire, and whose connection it is."""

    def __init__(self, **settings: int) -> None:
        self.clock = Clock()
        self.wire = Wire()
        self.rooms = 0
        self.gone = 0
        self.rig = Rig()
        self.rig.waits = True
        self.connection = Http2Client(self, self.clock, self.wire, "key", "10.0.0.9:80")
        self.wire.receiver = self.connection
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding=None)
        )
        self.h2.initiate_connection()
        if settings:
            codes = h2.settings.SettingCodes
            self.h2.update_settings({getattr(codes, name): value for name, value in settings.items()})
        self.events: list[h2.events.Event] = []
        self.flush()

    def waits_for(self, connection) -> bool:
        return True

    def room(self, connection: Http2Client) -> None:
        self.rooms += 1

    def left(self, connection: Http2Client) -> None:
        self.gone += 1

    def flush(self) -> None:
        for _ in range(100):
            said = self.wire.said()
            self.events += self.h2.receive_data(said)
            octets = self.h2.data_to_send()
            if octets:
                self.wire.send(octets)
            self.clock.rounds()
            if not said and not octets:
                return

    def ask(self, method: bytes = b"GET", end: bool = True) -> tuple[Exchange, Client]:
        client = Client()
        exchange = Exchange(self.rig.way, client, Request(method, b"a", b"/x", [(b"b", b"c")]))
        exchange.start(end)
        self.connection.carry(exchange)
        return exchange, client

    def of(self, kind: type) -> list:
        return [each for each in self.events if isinstance(each, kind)]


def test_exchanges_share_it() -> None:
    peer = Peer()
    _, first = peer.ask()
    second_exchange, second = peer.ask(b"POST", end=False)
    second_exchange.body(memoryview(b"abc"))
    second_exchange.end(((b"t", b"v"),))
    peer.flush()
    asked = [dict(each.headers) for each in peer.of(h2.events.RequestReceived)]
    assert [each[b":method"] for each in asked] == [b"GET", b"POST"]
    assert asked[0] == {
        b":method": b"GET",
        b":scheme": b"http",
        b":authority": b"a",
        b":path": b"/x",
        b"b": b"c",
    }
    assert peer.of(h2.events.TrailersReceived)[0].headers == [(b"t", b"v")]
    peer.h2.send_headers(3, [(b":status", b"200")])
    peer.h2.send_data(3, b"three", end_stream=True)
    peer.h2.send_headers(1, [(b":status", b"103"), (b"link", b"x")])
    peer.h2.send_headers(1, [(b":status", b"200")])
    peer.h2.send_data(1, b"one")
    peer.h2.send_headers(1, [(b"grpc-status", b"0")], end_stream=True)
    peer.flush()
    assert second.said == [("head", 200, False), ("body", b"three"), ("end", ())]
    assert first.said == [
        ("interim", 103), ("head", 200, False), ("body", b"one"), ("end", ((b"grpc-status", b"0"),))
    ]  # fmt: skip
    assert peer.connection.idle_since is not None
    assert peer.wire.took == peer.wire.given


@given(st.data())
def test_any_split_of_the_answers_is_the_same(data: st.DataObject) -> None:
    peer = Peer()
    _, client = peer.ask()
    peer.flush()
    peer.h2.send_headers(1, [(b":status", b"200")])
    peer.h2.send_data(1, b"abc" * 10)
    peer.h2.send_headers(1, [(b"t", b"v")], end_stream=True)
    octets = peer.h2.data_to_send()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(octets)), max_size=8)))
    for start, stop in itertools.pairwise([0, *cuts, len(octets)]):
        peer.wire.send(octets[start:stop])
    assert client.said[0] == ("head", 200, False)
    assert b"".join(each[1] for each in client.said if each[0] == "body") == b"abc" * 10
    assert client.said[-1] == ("end", ((b"t", b"v"),))


def test_a_head_that_is_all_of_the_answer() -> None:
    peer = Peer()
    exchange, client = peer.ask()
    peer.flush()
    peer.h2.send_headers(1, [(b":status", b"204")], end_stream=True)
    peer.flush()
    assert client.said == [("head", 204, True)]
    assert exchange.over
    assert not peer.connection.h2.streams


@pytest.mark.parametrize(
    ("code", "again", "flag"),
    [(h2.errors.ErrorCodes.REFUSED_STREAM, True, "-"), (h2.errors.ErrorCodes.INTERNAL_ERROR, False, "UR")],
)
def test_a_stream_that_the_server_resets(code, again: bool, flag: str) -> None:
    peer = Peer()
    exchange, client = peer.ask(b"POST")
    peer.flush()
    peer.h2.reset_stream(1, code)
    peer.flush()
    assert bool(peer.rig.waiting[1:]) is again
    assert exchange.flag == flag
    assert bool(client.said) is not again


def test_a_connection_that_is_cut_takes_its_exchanges_along() -> None:
    for how in ("lost", "ended"):
        peer = Peer()
        exchange, client = peer.ask(b"POST")
        peer.flush()
        peer.connection.lost(None) if how == "lost" else peer.connection.ended()
        assert client.said[0] == ("head", 503, False)
        assert exchange.flag == "UC"
        assert peer.gone == 1
        assert not peer.connection.can_take()


def test_after_goaway_it_takes_no_more_and_what_was_not_looked_at_is_asked_again() -> None:
    peer = Peer()
    first, _ = peer.ask(b"POST")
    second, _ = peer.ask(b"POST")
    peer.flush()
    peer.h2.close_connection(last_stream_id=1)
    peer.wire.send(peer.h2.data_to_send())
    assert not peer.connection.can_take()
    assert not first.over
    assert not second.over
    assert len(peer.rig.waiting) == 3


@pytest.mark.parametrize("goaway", [True, False])
def test_a_body_that_the_server_has_not_looked_at_goes_to_another_one(goaway: bool) -> None:
    """envoyproxy/envoy#36450: calls of gRPC always have one."""
    peer = Peer()
    exchange, client = peer.ask(b"POST", end=False)
    exchange.body(memoryview(b"hel"))
    exchange.body(memoryview(b"lo"))
    exchange.end(())
    peer.flush()
    if goaway:
        peer.h2.close_connection(last_stream_id=0)
    else:
        peer.h2.reset_stream(1, h2.errors.ErrorCodes.REFUSED_STREAM)
    peer.wire.send(peer.h2.data_to_send())
    assert len(peer.rig.waiting) == 2
    again = peer.rig.stand(exchange)
    assert (bytes(again.body), again.whole, client.said) == (b"hello", True, [])


def test_a_body_that_is_too_long_to_be_kept_is_not_sent_in_part() -> None:
    peer = Peer()
    exchange, client = peer.ask(b"POST", end=False)
    for _ in range(5):
        exchange.body(memoryview(bytes(14_000)))
    exchange.end(())
    peer.flush()
    peer.h2.reset_stream(1, h2.errors.ErrorCodes.REFUSED_STREAM)
    peer.wire.send(peer.h2.data_to_send())
    assert len(peer.rig.waiting) == 1
    assert client.said[0] == ("head", 503, False)


def test_it_takes_as_many_as_the_server_says() -> None:
    peer = Peer(MAX_CONCURRENT_STREAMS=1)
    assert peer.connection.can_take()
    exchange, _ = peer.ask()
    assert not peer.connection.can_take()
    peer.flush()
    rooms = peer.rooms
    peer.h2.send_headers(1, [(b":status", b"200")], end_stream=True)
    peer.flush()
    assert exchange.over
    assert peer.rooms > rooms
    assert peer.connection.can_take()


def test_what_the_server_does_not_read_waits_and_stops_the_client() -> None:
    peer = Peer()
    exchange, client = peer.ask(b"POST", end=False)
    sent = 0
    while client.took == sent and sent < 1 << 20:
        exchange.body(memoryview(b"x" * 8192))
        sent += 8192
    assert sent < 256 * 1024
    exchange.end(())
    got = 0
    for _ in range(100):
        peer.flush()
        for event in peer.of(h2.events.DataReceived):
            got += len(event.data)
            peer.h2.acknowledge_received_data(event.flow_controlled_length, 1)
        peer.events = [each for each in peer.events if not isinstance(each, h2.events.DataReceived)]
        if peer.of(h2.events.StreamEnded):
            break
    assert got == sent == client.took


def test_what_the_client_does_not_read_stops_the_server_and_the_others_go_on() -> None:
    peer = Peer()
    _, slow = peer.ask()
    _, quick = peer.ask()
    peer.flush()
    slow.held = 1 << 30
    peer.h2.send_headers(1, [(b":status", b"200")])
    sent = 0
    while (room := peer.h2.local_flow_control_window(1)) > 0 and sent < 4 << 20:
        peer.h2.send_data(1, b"x" * min(room, peer.h2.max_outbound_frame_size))
        sent += min(room, peer.h2.max_outbound_frame_size)
        peer.flush()
    assert sent <= 256 * 1024
    peer.h2.send_headers(3, [(b":status", b"200")])
    peer.h2.send_data(3, b"quick", end_stream=True)
    peer.flush()
    assert ("body", b"quick") in quick.said


def test_what_is_given_up_is_reset_and_idle_ones_are_closed() -> None:
    peer = Peer()
    exchange, _ = peer.ask()
    peer.flush()
    exchange.gone()
    peer.flush()
    (reset,) = peer.of(h2.events.StreamReset)
    assert reset.error_code == h2.errors.ErrorCodes.CANCEL
    assert peer.connection.idle_since is not None
    peer.connection.close()
    assert peer.wire.finished
    assert peer.gone == 1


def test_a_response_that_is_too_large_costs_its_exchange_and_the_others_go_on() -> None:
    peer = Peer()
    peer.h2.encoder.encode = partial(peer.h2.encoder.encode, huffman=False)
    exchange, client = peer.ask()
    _, other = peer.ask()
    peer.flush()
    peer.h2.send_headers(1, [(b":status", b"200"), (b"x", b"y" * 61 * 1024)])
    peer.h2.send_headers(3, [(b":status", b"200"), (b"x", b"z")], end_stream=True)
    peer.flush()
    assert client.said[0] == ("head", 502, False)
    assert (exchange.flag, exchange.failure) == ("UPE", "the server broke the rules of HTTP/2")
    assert other.said == [("head", 200, True)]
    assert not peer.connection.over


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "the server speaks HTTP/1.1, and its port says HTTP/2"),
        (b"\x15\x03\x03\x00\x02\x02\x28" + bytes(9), "a frame above our limit"),
    ],
)
def test_a_server_that_does_not_speak_http2_is_told_from_one_that_is_gone(octets: bytes, reason: str) -> None:
    peer = Peer()
    peer.connection = Http2Client(peer, peer.clock, peer.wire, "key", "10.0.0.9:80")
    peer.wire.receiver = peer.connection
    exchange, client = peer.ask()
    peer.wire.send(octets)
    assert client.said[0] == ("head", 502, False)
    assert (exchange.flag, exchange.failure) == ("UPE", reason)
    assert peer.gone == 1
    assert peer.wire.took == peer.wire.given


@given(st.binary(min_size=1, max_size=300))
def test_garbage_fails_its_exchanges_only(garbage: bytes) -> None:
    peer = Peer()
    exchange, client = peer.ask(b"POST")
    peer.wire.send(garbage)
    peer.clock.rounds()
    peer.connection.lost(None)
    assert exchange.over
    assert client.said
