"""Connections of HTTP/2: how many requests one takes, limits, and those who wait."""

from __future__ import annotations

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest

from tests.waypoint.pooled import Pooled, Stream
from ztunnel.errors import Unreachable
from ztunnel.http2.frame import push_ping
from ztunnel.l7.balancing.circuit import Limit
from ztunnel.model.traffic import ClientTls, Pings, Pool, TlsMode, Traffic
from ztunnel.waypoint.upstream.pool2 import Http2Pools


class Peer:
    """A server of HTTP/2 at the other end of a connection."""

    def __init__(self, rig: Pooled, stream: Stream, most: int = 100) -> None:
        self.rig, self.stream = rig, stream
        config = h2.config.H2Configuration(client_side=False, header_encoding=None)
        self.h2 = h2.connection.H2Connection(config)
        self.h2.local_settings[h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS] = most
        self.h2.local_settings.acknowledge()
        self.h2.initiate_connection()
        self.asked: list[int] = []
        self.heads: list[list[tuple[bytes, bytes]]] = []
        self.pump()

    def pump(self) -> None:
        for _ in range(5):
            said = self.stream.said()
            if said:
                for event in self.h2.receive_data(said):
                    if isinstance(event, h2.events.RequestReceived):
                        self.asked.append(event.stream_id)
                        self.heads.append(event.headers)
            if out := self.h2.data_to_send():
                self.stream.send(out)
            self.rig.clock.rounds()

    def answer(self, status: bytes = b"200") -> None:
        """The first that is asked."""
        self.h2.send_headers(self.asked.pop(0), [(b":status", status)], end_stream=True)
        self.pump()


def pooled(pool=None) -> Pooled:
    return Pooled(Http2Pools, pool)


def test_requests_share_a_connection():
    rig = pooled()
    asked = [rig.ask() for _ in range(5)]
    assert len(rig.calls) == 1
    assert rig.used(Limit.PENDING) == 5
    peer = Peer(rig, rig.calls[0].stand())
    assert len(peer.asked) == 5
    assert rig.used(Limit.REQUESTS) == 5
    for _ in range(5):
        peer.answer()
    assert [exchange.status for exchange in asked] == [200] * 5
    assert rig.idle


def test_until_a_server_says_how_many_it_takes_it_has_one():
    """It would refuse the others, and so would the next connection (REFUSED_STREAM)."""
    rig = pooled()
    asked = [rig.ask() for _ in range(4)]
    stream = rig.calls[0].stand()
    rig.clock.rounds()
    assert len(rig.calls) == 1
    peer = Peer(rig, stream, most=2)
    assert len(peer.asked) == 2
    other = Peer(rig, rig.calls[1].stand(), most=2)
    assert len(other.asked) == 2
    for each in (peer, peer, other, other):
        each.answer()
    assert [exchange.status for exchange in asked] == [200] * 4
    assert len(rig.calls) == 2
    assert rig.idle


def test_who_waits_for_a_server_that_goes_before_it_has_spoken_asks_another():
    rig = pooled()
    asked = [rig.ask() for _ in range(3)]
    stream = rig.calls[0].stand()
    rig.clock.rounds()
    stream.receiver.lost(Unreachable("reset"))
    rig.clock.rounds()
    assert [exchange.status for exchange in asked] == [503, 0, 0]
    peer = Peer(rig, rig.calls[1].stand())
    peer.answer()
    peer.answer()
    assert [exchange.status for exchange in asked] == [503, 200, 200]
    assert rig.idle


def test_more_than_may_be_under_way_are_answered_503():
    rig = pooled(Pool(requests=2))
    asked = [rig.ask() for _ in range(3)]
    peer = Peer(rig, rig.calls[0].stand())
    assert (asked[2].status, asked[2].flag) == (503, "UO")
    peer.answer()
    last = rig.ask()
    peer.pump()
    peer.answer()
    peer.answer()
    assert last.status == 200
    assert rig.idle


def test_more_than_may_wait_are_answered_503():
    rig = pooled(Pool(pending_requests=1))
    first, second = rig.ask(), rig.ask()
    assert (second.status, second.flag) == (503, "UO")
    Peer(rig, rig.calls[0].stand()).answer()
    assert first.status == 200


@pytest.mark.parametrize("pool", [Pool(streams_per_connection=2), Pool(requests_per_connection=2)])
def test_what_one_connection_does_not_take_another_does(pool):
    rig = pooled(pool)
    asked = [rig.ask() for _ in range(4)]
    peers = [Peer(rig, rig.calls[0].stand())]
    assert len(peers[0].asked) == 2
    assert len(rig.calls) == 2
    peers.append(Peer(rig, rig.calls[1].stand()))
    for peer in peers:
        peer.answer()
        peer.answer()
    assert [exchange.status for exchange in asked] == [200] * 4
    assert len(rig.calls) == 2
    assert [peer.stream.over for peer in peers] == [bool(pool.requests_per_connection)] * 2
    assert rig.idle


def test_beyond_max_connections_requests_wait_for_room():
    rig = pooled(Pool(connections=1, streams_per_connection=1))
    asked = [rig.ask() for _ in range(3)]
    peer = Peer(rig, rig.calls[0].stand())
    for exchange in asked:
        assert len(peer.asked) == 1
        peer.answer()
        assert exchange.status == 200
    assert len(rig.calls) == 1
    assert rig.idle


def test_where_none_can_be_made_all_that_wait_are_told():
    rig = pooled()
    asked = [rig.ask() for _ in range(3)]
    for _ in range(9):
        while rig.calls:
            rig.calls.pop().fail()
        rig.clock.rounds()
    assert all("UF" in exchange.flag.split(",") for exchange in asked)
    assert rig.idle
    assert rig.used(Limit.CONNECTIONS) == 0


def test_a_connection_that_goes_is_given_back():
    rig = pooled()
    first = rig.ask()
    stream = rig.calls[0].stand()
    Peer(rig, stream)
    stream.receiver.lost(None)
    rig.clock.rounds()
    assert "UC" in first.flag.split(",")
    assert rig.used(Limit.CONNECTIONS) == 0
    rig.ask()
    assert len(rig.calls) == 2


@pytest.mark.parametrize(("pool", "seconds"), [
    (None, 60), (Pool(http_idle_seconds=5), 5), (Pool(connection_seconds=20), 20),
])  # fmt: skip
def test_what_is_idle_for_long_is_closed(pool, seconds):
    rig = pooled(pool)
    rig.ask()
    peer = Peer(rig, rig.calls[0].stand())
    peer.answer()
    rig.pools.look(rig.clock.now + seconds - 0.5, 60.0)
    assert not peer.stream.over
    rig.pools.look(rig.clock.now + seconds + 0.5, 60.0)
    assert peer.stream.over
    assert rig.used(Limit.CONNECTIONS) == 0


@pytest.mark.parametrize(("pool", "seconds"), [
    (Pool(1, http_idle_seconds=5), 5), (Pool(1, idle_seconds=7), 7), (Pool(1, connection_seconds=20), 20),
])  # fmt: skip
def test_what_is_idle_for_longer_than_it_may_be_carries_no_other_request(pool, seconds):
    """A server that closes it a second later (Node.js: after five) would lose that one. Another connection is
    made even where there may be one only."""
    rig = pooled(pool)
    rig.ask()
    first = Peer(rig, rig.calls[0].stand())
    first.answer()
    rig.clock.now += seconds - 0.1
    rig.ask()
    assert len(rig.calls) == 1
    first.pump()
    first.answer()
    rig.clock.now += seconds + 0.1
    last = rig.ask()
    assert first.stream.over
    Peer(rig, rig.calls[1].stand()).answer()
    assert last.status == 200
    assert rig.used(Limit.CONNECTIONS) == 1


def test_what_is_idle_is_shed_and_what_is_in_use_is_not():
    rig = pooled(Pool(http_idle_seconds=3600))
    rig.ask()
    peer = Peer(rig, rig.calls[0].stand())
    rig.pools.shed()
    assert not peer.stream.over
    peer.answer()
    rig.pools.shed()
    assert peer.stream.over
    assert rig.used(Limit.CONNECTIONS) == 0


def test_a_connection_on_a_session_that_is_drained_takes_no_more_and_is_closed_when_it_has_none():
    """istio/istio#43239."""
    rig = pooled()
    first = rig.ask()
    peer = Peer(rig, rig.calls[0].stand())
    peer.stream.leaving = True
    rig.pools.look(rig.clock.now, 60.0)
    assert not peer.stream.over
    second = rig.ask()
    other = Peer(rig, rig.calls[1].stand())
    peer.answer()
    other.answer()
    assert (first.status, second.status) == (200, 200)
    rig.pools.look(rig.clock.now, 60.0)
    assert peer.stream.over
    assert not other.stream.over
    assert rig.used(Limit.CONNECTIONS) == 1


def test_a_connection_that_is_too_old_takes_no_more():
    rig = pooled(Pool(connection_seconds=20))
    rig.ask()
    Peer(rig, rig.calls[0].stand())
    rig.clock.now += 21
    rig.ask()
    assert len(rig.calls) == 2


def test_a_server_that_does_not_answer_pings_is_left():
    rig = pooled(Pool(pings=Pings(10.0, 2.0)))
    asked = rig.ask()
    peer = Peer(rig, rig.calls[0].stand())
    for _ in range(3):
        rig.clock.sleep(10.0)
        peer.pump()  # it answers
    assert not peer.stream.over
    peer.stream.send(push_ping(b"whatever", ack=True))  # which nobody has asked for
    rig.clock.sleep(10.0)
    assert peer.stream.said()
    rig.clock.sleep(1.9)
    assert not peer.stream.over
    rig.clock.sleep(0.2)
    assert peer.stream.over
    assert "UC" in asked.flag.split(",")
    assert rig.used(Limit.CONNECTIONS) == 0
    assert not rig.clock.timers


def test_a_connection_that_is_closed_asks_no_more():
    rig = pooled(Pool(pings=Pings(10.0, 2.0)))
    rig.ask()
    peer = Peer(rig, rig.calls[0].stand())
    peer.answer()
    rig.pools.shed()
    peer.stream.said()
    rig.clock.sleep(30.0)
    assert not peer.stream.said()


@pytest.mark.parametrize(("tls", "scheme"), [(None, b"http"), (ClientTls(TlsMode.SIMPLE), b"https")])
def test_a_server_of_tls_is_asked_by_its_scheme(tls, scheme):
    rig = pooled()
    rig.cluster.configure(Traffic(tls=tls), rig.clock.now)
    rig.ask()
    peer = Peer(rig, rig.calls[0].stand())
    assert dict(peer.heads[0])[b":scheme"] == scheme
