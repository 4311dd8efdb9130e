"""What is tried again, how often and for how long, and what is not."""

from __future__ import annotations

import pytest

from tests.waypoint.exchange.test_exchange import begin as start
from tests.waypoint.rig import Client, Rig
from tests.waypoint.test_plans import GRPC, begin, heads, retry
from ztunnel.l7.reply import CONNECT_FAILED, REMOTE_RESET, TERMINATED
from ztunnel.l7.request import Request
from ztunnel.l7.routing.plan import Plan
from ztunnel.model.route_policy import RetryOn
from ztunnel.waypoint.exchange.exchange import Exchange
from ztunnel.waypoint.exchange.kept import MOST_BYTES


@pytest.mark.parametrize(
    ("method", "reused", "unsent", "sent", "again"),
    [
        (b"GET", False, True, b"", True),
        (b"POST", False, True, b"", True),
        (b"POST", False, True, b"x", False),
        (b"GET", True, False, b"", True),
        (b"POST", True, False, b"", False),
        (b"GET", False, False, b"", False),
    ],
)
def test_only_what_had_no_effect_is_tried_again(method, reused, unsent, sent, again) -> None:
    rig = Rig()
    rig.reused = reused
    exchange, client = start(rig, method, end=not sent)
    if sent:
        exchange.body(memoryview(sent))
    exchange.failed(TERMINATED, unsent=unsent)
    assert (len(rig.servers) == 2) is again
    if not again:
        assert client.said[0] == ("head", 503, False)
        assert (exchange.flag, exchange.details) == (TERMINATED.flag, TERMINATED.details)


@pytest.mark.parametrize(
    ("end", "grpc", "answered", "stalls"),
    [
        (False, False, False, True),
        (True, False, False, False),
        (False, True, False, False),
        (False, False, True, False),
    ],
)
def test_it_stalls_where_the_client_has_more_to_send(end, grpc, answered, stalls) -> None:
    rig, client = Rig(), Client()
    fields = [(b"content-type", b"application/grpc")] if grpc else []
    exchange = Exchange(rig.way, client, Request(b"POST", b"a", b"/", fields))
    exchange.start(end)
    if answered:
        rig.server.respond()
    assert exchange.stalls is stalls
    for side in (client, rig.server):
        side.held = 1  # it does not read
        assert exchange.stalls
        side.held = 0


def test_it_is_tried_three_times() -> None:
    rig = Rig()
    exchange, client = start(rig)
    for _ in range(3):
        assert not exchange.over
        exchange.failed(CONNECT_FAILED, "no route", unsent=True)
    assert len(rig.servers) == 3
    assert client.said[0] == ("head", 503, False)
    assert b"transport failure reason: no route" in client.said[1][1]
    assert exchange.failure == "no route"
    assert rig.ended_ == [exchange]


def test_each_try_has_its_time_and_the_last_one_is_504() -> None:
    rig, plan = Rig(), Plan("r", retry(RetryOn.SERVER_ERROR))
    plan.try_timeout_seconds = 1
    exchange, client = begin(rig, plan)
    rig.clock.sleep(4)
    assert len(rig.servers) == 3
    assert all(server.cancelled for server in rig.servers)
    assert heads(client) == [504]
    assert (exchange.flag, exchange.details) == ("URX,UT", "upstream_per_try_timeout")
    assert exchange.attempts.count == 3


def test_without_retries_the_time_of_a_try_is_the_time() -> None:
    rig, plan = Rig(), Plan("r")
    plan.try_timeout_seconds = 1
    exchange, client = begin(rig, plan)
    rig.clock.sleep(1)
    assert heads(client) == [504]
    assert exchange.flag == "UT"


def test_a_connection_that_comes_too_late_for_its_try_serves_the_next() -> None:
    rig, plan = Rig(), Plan("r", retry(RetryOn.RESET))
    plan.try_timeout_seconds = 1
    rig.waits = True
    exchange, client = begin(rig, plan)
    rig.clock.sleep(1.5)
    assert len(rig.waiting) == 2  # the first is still being made
    rig.stand(exchange)
    late = rig.stand(exchange)
    assert late.cancelled
    rig.servers[0].respond(end=True)
    assert heads(client) == [200]


def test_a_connection_that_fails_late_fails_nothing_while_another_is_made() -> None:
    rig, plan = Rig(), Plan("r", retry(RetryOn.RESET))
    plan.try_timeout_seconds = 1
    rig.waits = True
    exchange, client = begin(rig, plan)
    rig.clock.sleep(1.5)
    exchange.unreachable(CONNECT_FAILED, "late")
    assert not exchange.over
    rig.stand(exchange).respond(end=True)
    assert heads(client) == [200]


@pytest.mark.parametrize("status", [500, 503])
def test_a_response_that_is_a_failure_is_tried_again_and_nobody_hears_of_it(status: int) -> None:
    rig = Rig()
    exchange, client = begin(rig, Plan("r", retry(RetryOn.SERVER_ERROR)))
    rig.server.respond(status=b"%d" % status)
    assert rig.servers[0].cancelled
    rig.clock.sleep(0.1)
    rig.server.respond(end=True)
    assert heads(client) == [200]
    assert exchange.attempts.count == 2
    assert exchange.flag == "-"
    assert rig.budget.retries == 0


def test_the_last_failure_is_passed_on_as_it_is() -> None:
    rig = Rig()
    exchange, client = begin(rig, Plan("r", retry(RetryOn.STATUS_CODES, codes=(418,))))
    for _ in range(3):
        rig.server.respond(status=b"418", end=True)
        rig.clock.sleep(1)
    assert len(rig.servers) == 3
    assert heads(client) == [418]
    assert (exchange.flag, exchange.details) == ("URX", "via_upstream")


def test_a_body_is_sent_again_from_its_beginning() -> None:
    rig = Rig()
    exchange, client = begin(rig, Plan("r", retry(RetryOn.RESET)), b"POST", end=False)
    exchange.body(memoryview(b"abc"))
    exchange.failed(REMOTE_RESET)
    exchange.body(memoryview(b"def"))
    assert client.took == 3
    rig.clock.sleep(1)
    exchange.end(((b"t", b"v"),))
    assert (bytes(rig.server.body), rig.server.trailers) == (b"abcdef", ((b"t", b"v"),))
    assert client.took == 6
    rig.server.respond(end=True)
    assert heads(client) == [200]


def test_a_body_that_is_too_long_is_sent_once() -> None:
    rig = Rig()
    exchange, client = begin(rig, Plan("r", retry(RetryOn.SERVER_ERROR)), b"POST", end=False)
    exchange.body(memoryview(bytes(MOST_BYTES)))
    exchange.body(memoryview(b"x"))
    exchange.end(())
    rig.server.respond(status=b"503", end=True)
    assert heads(client) == [503]
    assert exchange.flag == "-"
    assert len(rig.servers) == 1


def test_time_for_all_tries_ends_the_waiting_for_another() -> None:
    rig, plan = Rig(), Plan("r", retry(RetryOn.RESET))
    plan.timeout_seconds = 0.001
    exchange, client = begin(rig, plan)
    exchange.failed(TERMINATED)
    rig.clock.sleep(1)
    assert heads(client) == [504]
    assert len(rig.servers) == 1
    assert len(rig.clock.timers) == 0


def test_a_client_that_goes_is_not_tried_for_again() -> None:
    rig = Rig()
    exchange, _ = begin(rig, Plan("r", retry(RetryOn.RESET)))
    exchange.failed(TERMINATED)
    exchange.gone()
    rig.clock.sleep(1)
    assert len(rig.servers) == 1
    assert rig.budget.retries == 0


def test_retries_of_all_requests_have_one_limit() -> None:
    rig = Rig()
    rig.budget._most = 1
    begun = [begin(rig, Plan("r", retry(RetryOn.RESET))) for _ in range(2)]
    for exchange, _ in begun:
        exchange.failed(TERMINATED)
    assert [exchange.flag for exchange, _ in begun] == ["-", "UO,UC"]
    assert rig.budget.refused == 1


def test_a_grpc_status_in_the_head_is_a_failure_too() -> None:
    rig = Rig()
    plan = Plan("r", retry(RetryOn.GRPC_UNAVAILABLE))
    exchange, client = begin(rig, plan, b"POST", fields=[GRPC])
    rig.server.respond((b"grpc-status", b"14"), end=True)
    rig.clock.sleep(1)
    rig.server.respond()
    rig.server.end(((b"grpc-status", b"0"),))
    assert heads(client) == [200]
    assert exchange.grpc_status == "0"


def test_the_policy_of_no_retries_holds_for_old_connections_as_well() -> None:
    rig = Rig()
    rig.reused = True
    exchange, client = begin(rig, Plan("r"))
    exchange.failed(TERMINATED)
    assert heads(client) == [503]
    assert exchange.flag == "UC"
