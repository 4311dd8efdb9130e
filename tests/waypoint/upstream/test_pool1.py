"""Connections of HTTP/1.1: spare ones, limits, and those who wait."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.waypoint.pooled import FAIL, OK, Pooled
from ztunnel.l7.balancing.circuit import Limit
from ztunnel.l7.routing.plan import Plan
from ztunnel.model.route_policy import Retry, RetryOn
from ztunnel.model.traffic import Outlier, Pool, RetryBudget
from ztunnel.waypoint.upstream.pool1 import Http1Pools


def pooled(pool=None, outlier=None) -> Pooled:
    return Pooled(Http1Pools, pool, outlier)


def test_a_spare_connection_is_used_again():
    rig = pooled()
    first = rig.ask()
    stream = rig.calls[0].stand()
    stream.send(OK)
    assert first.status == 200
    second = rig.ask()
    stream.send(OK)
    assert second.status == 200
    assert len(rig.calls) == 1
    assert rig.idle
    assert rig.used(Limit.CONNECTIONS) == 1


def test_each_request_without_a_spare_connection_has_a_new_one():
    rig = pooled()
    asked = [rig.ask() for _ in range(3)]
    assert len(rig.calls) == 3
    assert rig.used(Limit.PENDING) == 3
    for stream in [call.stand() for call in rig.calls]:
        stream.send(OK)
    assert [exchange.status for exchange in asked] == [200] * 3
    assert rig.idle


def test_beyond_max_connections_requests_wait_for_the_next_that_is_spare():
    rig = pooled(Pool(connections=1))
    asked = [rig.ask() for _ in range(3)]
    assert len(rig.calls) == 1
    stream = rig.calls[0].stand()
    for number, exchange in enumerate(asked):
        assert exchange.status == 0, number
        stream.send(OK)
        assert exchange.status == 200
    assert rig.cluster.circuit.overflows[Limit.CONNECTIONS] == 2
    assert rig.idle


def test_an_endpoint_without_a_connection_may_have_one_whatever_the_limit():
    rig = pooled(Pool(connections=1))
    rig.ask(to=0)
    other = rig.ask(to=1)
    assert len(rig.calls) == 2
    rig.calls[1].stand().send(OK)
    assert other.status == 200


def test_more_than_may_wait_are_answered_503_at_once():
    rig = pooled(Pool(connections=1, pending_requests=1))
    rig.ask()
    stream = rig.calls[0].stand()
    waiting = rig.ask()
    over = rig.ask()
    assert (over.status, over.flag) == (503, "UO")
    assert over.details == "upstream_reset_before_response_started{overflow}"
    assert (b"x-envoy-overloaded", b"true") in over.response
    assert rig.cluster.circuit.overflows[Limit.PENDING] == 1
    stream.send(OK)
    stream.send(OK)
    assert waiting.status == 200
    assert rig.idle


def test_more_than_may_be_under_way_are_answered_503_and_the_connection_stays():
    rig = pooled(Pool(requests=1))
    rig.ask()
    second = rig.ask()
    first_stream, second_stream = rig.calls[0].stand(), rig.calls[1].stand()
    assert (second.status, second.flag) == (503, "UO")
    assert not second_stream.over
    first_stream.send(OK)
    third = rig.ask()
    assert len(rig.calls) == 2
    second_stream.send(OK) if second_stream.written else first_stream.send(OK)
    assert third.status == 200
    assert rig.idle


def test_a_connection_carries_as_many_requests_as_it_may():
    rig = pooled(Pool(requests_per_connection=2))
    stream = None
    for number in range(4):
        exchange = rig.ask()
        if number % 2 == 0:
            stream = rig.calls[-1].stand()
        stream.send(OK)
        assert exchange.status == 200
        assert stream.over == (number % 2 == 1)
    assert len(rig.calls) == 2
    assert rig.used(Limit.CONNECTIONS) == 0


def test_where_none_can_be_made_all_that_wait_are_told():
    rig = pooled(Pool(connections=1))
    asked = [rig.ask() for _ in range(3)]
    rig.calls[0].fail()
    while len(rig.calls) > 1 or rig.clock.later:  # tried again, on connections that fail as well
        rig.clock.rounds()
        rig.calls.pop().fail()
    assert all("UF" in exchange.flag.split(",") for exchange in asked)
    assert rig.idle
    assert rig.used(Limit.CONNECTIONS) == 0


def test_a_connection_that_breaks_is_replaced_for_those_who_wait():
    rig = pooled(Pool(connections=1))
    first, second = rig.ask(), rig.ask()
    stream = rig.calls[0].stand()
    stream.receiver.lost(None)
    assert first.flag == "UC"
    assert len(rig.calls) == 2
    rig.calls[1].stand().send(OK)
    assert second.status == 200
    assert rig.idle


def test_who_has_gone_does_not_wait():
    rig = pooled(Pool(connections=1, pending_requests=2))
    rig.ask()
    stream = rig.calls[0].stand()
    for _ in range(10):
        rig.ask().gone()
    last = rig.ask()
    assert last.status == 0
    stream.send(OK)
    stream.send(OK)
    assert last.status == 200
    assert rig.idle


@pytest.mark.parametrize(("pool", "seconds"), [
    (None, 60), (Pool(http_idle_seconds=5), 5), (Pool(idle_seconds=7), 7),
    (Pool(idle_seconds=7, http_idle_seconds=9), 9), (Pool(connection_seconds=20), 20),
])  # fmt: skip
def test_what_is_spare_for_long_is_closed(pool, seconds):
    rig = pooled(pool)
    rig.ask()
    stream = rig.calls[0].stand()
    stream.send(OK)
    rig.pools.look(rig.clock.now + seconds - 0.5, 60.0)
    assert not stream.over
    rig.pools.look(rig.clock.now + seconds + 0.5, 60.0)
    assert stream.over
    assert rig.used(Limit.CONNECTIONS) == 0
    rig.ask()
    assert len(rig.calls) == 2


@pytest.mark.parametrize(("pool", "seconds"), [
    (Pool(1, http_idle_seconds=5), 5), (Pool(1, idle_seconds=7), 7), (Pool(1, connection_seconds=20), 20),
])  # fmt: skip
def test_what_is_idle_for_longer_than_it_may_be_carries_no_other_request(pool, seconds):
    """A server that closes it a second later (Node.js: after five) would lose that one. Another connection is
    made even where there may be one only."""
    rig = pooled(pool)
    rig.ask()
    first = rig.calls[0].stand()
    first.send(OK)
    rig.clock.now += seconds - 0.1
    rig.ask()
    assert len(rig.calls) == 1
    first.send(OK)
    rig.clock.now += seconds + 0.1
    last = rig.ask()
    assert first.over
    rig.calls[1].stand().send(OK)
    assert last.status == 200
    assert rig.used(Limit.CONNECTIONS) == 1


@pytest.mark.parametrize(("kept", "seconds"), [(5, 4.0), (65, 64.0), (2, 1.0), (1, 0.5), (0, 0.0)])
def test_a_server_that_names_a_time_is_asked_no_more_shortly_before(kept, seconds):
    """One that crosses its end would be lost (envoyproxy/envoy#28105)."""
    rig = pooled()
    said = OK.replace(b"\r\n\r\n", b"\r\nkeep-alive: timeout=%d\r\n\r\n" % kept)
    rig.ask()
    first = rig.calls[0].stand()
    first.send(said)
    if seconds:
        rig.clock.now += seconds - 0.1
        rig.ask()
        assert len(rig.calls) == 1
        first.send(said)
    rig.clock.now += seconds + 0.1
    rig.ask()
    assert first.over
    second = rig.calls[1].stand()
    second.send(said)
    rig.pools.look(rig.clock.now + seconds + 0.1, 60.0)
    assert second.over
    rig.ask()
    last = rig.calls[2].stand()
    last.send(OK)  # which says nothing, and so anything may be
    rig.pools.look(rig.clock.now + 59.0, 60.0)
    assert not last.over


def test_what_is_spare_is_shed_and_what_is_in_use_is_not():
    rig = pooled(Pool(http_idle_seconds=3600))
    rig.ask()
    second = rig.ask()
    spare, used = rig.calls[0].stand(), rig.calls[1].stand()
    spare.send(OK)
    rig.pools.shed()
    assert (spare.over, used.over) == (True, False)
    used.send(OK)
    assert second.status == 200
    rig.pools.shed()
    assert used.over
    assert rig.used(Limit.CONNECTIONS) == 0


def test_a_connection_that_is_too_old_is_not_used_again():
    rig = pooled(Pool(connection_seconds=20))
    rig.ask()
    stream = rig.calls[0].stand()
    rig.clock.now += 21
    stream.send(OK)
    assert stream.over


def test_a_connection_on_a_session_that_is_drained_is_let_go_of_before_that_ends():
    """istio/istio#43239: a proxy that drains would wait for it, and cut a request off at last."""
    rig = pooled()
    rig.ask()
    first = rig.calls[0].stand()
    first.leaving = True
    first.send(OK)
    assert first.over
    rig.ask()
    second = rig.calls[1].stand()
    second.send(OK)
    second.leaving = True
    rig.pools.look(rig.clock.now, 60.0)
    assert second.over
    assert rig.used(Limit.CONNECTIONS) == 0


def test_failures_are_counted_of_responses_and_of_what_breaks_off():
    rig = pooled(outlier=Outlier(2, most_percent=100))
    (host, *_) = rig.cluster.hosts.values()
    rig.ask()
    stream = rig.calls[0].stand()
    stream.send(FAIL)
    assert host.server_errors == 1
    rig.ask()
    stream.receiver.lost(None)
    assert not host.available


AGAIN = Retry(3, frozenset((RetryOn.SERVER_ERROR,)), base_seconds=0.01)


@pytest.mark.parametrize(("pool", "budget"), [(Pool(retries=1), None), (None, RetryBudget(0.0, 1))])
def test_no_more_retries_at_once_than_there_may_be(pool, budget):
    rig = pooled(pool)
    rig.cluster.configure(replace(rig.cluster.traffic, budget=budget), rig.clock.now)
    rig.plan = Plan("r", AGAIN)
    asked = [rig.ask() for _ in range(2)]
    streams = [call.stand() for call in rig.calls]
    for stream in streams:
        stream.said()
        stream.send(FAIL)
    assert [exchange.status for exchange in asked] == [0, 503]
    assert "UO" in asked[1].flag
    assert rig.used(Limit.RETRIES) == 1
    rig.clock.sleep(1)
    for stream in streams:
        if stream.said():
            stream.send(OK)
    assert asked[0].status == 200
    assert rig.used(Limit.RETRIES) == 0
    assert rig.idle
