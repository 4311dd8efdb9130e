"""Exchanges do what their plans say: they wait, are answered, tried again, timed out, copied."""

from __future__ import annotations

import pytest

from tests.waypoint.rig import Rig
from tests.waypoint.test_exchange import Client
from ztunnel.l7.reply import CONNECT_FAILED, FAULT, NO_ROUTE, REMOTE_RESET, TERMINATED
from ztunnel.l7.request import Request
from ztunnel.l7.routing.plan import Plan
from ztunnel.model.route_action import Destination, Edits, HeaderEdits
from ztunnel.model.route_policy import Retry, RetryOn
from ztunnel.model.service import ServiceName
from ztunnel.waypoint.exchange import Exchange
from ztunnel.waypoint.kept import MOST_BYTES

GRPC = (b"content-type", b"application/grpc")
COPY = Destination(ServiceName("shop", "copy"))


def retry(*on: RetryOn, attempts: int = 2, codes: tuple[int, ...] = ()) -> Retry:
    return Retry(attempts, frozenset(on), codes)


def begin(
    rig: Rig, plan: Plan, method: bytes = b"GET", end: bool = True, fields=(), path: bytes = b"/"
) -> tuple[Exchange, Client]:
    client = Client()
    rig.plan = plan
    exchange = Exchange(rig.way, client, Request(method, b"a:80", path, list(fields)))
    exchange.start(end)
    return exchange, client


def heads(client: Client) -> list[int]:
    return [said[1] for said in client.said if said[0] == "head"]


# Faults and replies.


def test_a_delay_comes_before_the_server_and_is_in_the_log() -> None:
    rig, plan = Rig(), Plan("r")
    plan.delay_seconds = 7
    exchange, client = begin(rig, plan, b"POST", end=False)
    exchange.body(memoryview(b"abc"))
    rig.clock.sleep(6.9)
    assert not rig.servers
    assert client.took == 0
    rig.clock.sleep(0.2)
    assert bytes(rig.server.body) == b"abc"
    exchange.end(())
    rig.server.respond(end=True)
    assert (exchange.status, exchange.flag) == (200, "DI")


def test_an_abort_after_a_delay_has_both_flags_and_no_server() -> None:
    rig, plan = Rig(), Plan("r", reply=FAULT)
    plan.delay_seconds = 1
    exchange, client = begin(rig, plan)
    rig.clock.sleep(1)
    assert heads(client) == [503]
    assert client.said[1] == ("body", b"fault filter abort")
    assert (exchange.flag, exchange.details) == ("DI,FI", "fault_filter_abort")
    assert not rig.servers


def test_a_client_that_goes_during_a_delay_is_not_called_back() -> None:
    rig, plan = Rig(), Plan("r")
    plan.delay_seconds = 1
    exchange, _ = begin(rig, plan)
    exchange.gone()
    rig.clock.sleep(2)
    assert not rig.servers
    assert len(rig.clock.timers) == 0
    assert exchange.flag == "DI,DC"


def test_no_route_is_404_and_12_to_grpc() -> None:
    rig = Rig()
    exchange, client = begin(rig, Plan("", reply=NO_ROUTE))
    assert heads(client) == [404]
    assert (exchange.flag, exchange.details) == ("NR", "route_not_found")
    exchange, client = begin(rig, Plan("", reply=NO_ROUTE), b"POST", fields=[GRPC])
    assert heads(client) == [200]
    assert exchange.grpc_status == "12"


def test_what_is_sent_is_what_the_plan_has_and_responses_are_edited() -> None:
    from ztunnel.l7.routing.edits import FieldEdits
    from ztunnel.l7.routing.plan import NO_FACTS

    rig, plan = Rig(), Plan("r")
    plan.request = Request(b"GET", b"b", b"/new", [(b"x", b"y")])
    plan.edit_by(FieldEdits(Edits(response=HeaderEdits(set=(("server", "ours"),))).response), NO_FACTS)
    exchange, _ = begin(rig, plan)
    assert rig.server.request is plan.request
    assert exchange.admitted.path == b"/"
    rig.server.respond((b"server", b"nginx"), end=True)
    assert dict(exchange.response)[b"server"] == b"ours"


# Time.


def test_a_response_that_takes_too_long_is_504() -> None:
    rig, plan = Rig(), Plan("r")
    plan.timeout_seconds = 2
    exchange, client = begin(rig, plan)
    rig.clock.sleep(1.9)
    assert not exchange.over
    rig.clock.sleep(0.2)
    assert client.said == [("head", 504, False), ("body", b"upstream request timeout"), ("end", ())]
    assert (exchange.flag, exchange.details) == ("UT", "upstream_response_timeout")
    assert rig.server.cancelled
    assert len(rig.clock.timers) == 0


def test_the_time_begins_when_the_request_is_whole_and_counts_for_the_body_too() -> None:
    rig, plan = Rig(), Plan("r")
    plan.timeout_seconds = 2
    exchange, client = begin(rig, plan, b"POST", end=False)
    rig.clock.sleep(60)
    assert not exchange.over
    exchange.end(())
    rig.server.respond()
    rig.server.say(b"abc")
    rig.clock.sleep(2)
    assert client.said[-1] == ("reset",)
    assert exchange.flag == "UT"
    assert rig.server.cancelled


def test_a_response_in_time_ends_the_time() -> None:
    rig, plan = Rig(), Plan("r")
    plan.timeout_seconds, plan.try_timeout_seconds = 2, 1
    exchange, client = begin(rig, plan)
    rig.server.respond()
    rig.clock.sleep(1.5)  # the time of one try is over with its head
    rig.server.end()
    rig.clock.sleep(5)
    assert heads(client) == [200]
    assert exchange.flag == "-"


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


def test_a_websocket_has_no_time_and_no_copies() -> None:
    rig, plan = Rig(), Plan("r")
    plan.timeout_seconds, plan.mirrors = 1, [COPY]
    rig.plan = plan
    client, request = Client(), Request(b"GET", b"a", b"/", [])
    request.upgrade = b"websocket"
    exchange = Exchange(rig.way, client, request)
    exchange.start(False)
    rig.server.respond(status=b"101")
    exchange.body(memoryview(b"hello"))
    exchange.end(())
    rig.clock.sleep(60)
    assert not exchange.over
    assert len(rig.servers) == 1


# Retries.


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


# Copies.


def mirrored(rig: Rig, **more: object) -> tuple[Exchange, Client]:
    plan = Plan("r")
    plan.mirrors = [COPY]
    return begin(rig, plan, **more)  # type: ignore[arg-type]


def test_a_copy_is_sent_and_its_response_is_nobodys() -> None:
    rig = Rig()
    exchange, client = mirrored(rig, method=b"POST", end=False)
    copy, server = rig.servers
    exchange.body(memoryview(b"abc"))
    exchange.end(())
    assert bytes(copy.body) == bytes(server.body) == b"abc"
    assert copy.whole
    assert copy.request is not None
    assert copy.request.authority == b"a-shadow:80"
    assert server.request is not None
    assert server.request.authority == b"a:80"
    copy.respond(status=b"500")
    copy.say(b"nobody hears it")
    copy.end()
    assert client.said == []
    server.respond(end=True)
    assert heads(client) == [200]
    assert rig.ended_ == [exchange]
    assert rig.shadows.live == 0


def test_a_copy_goes_on_after_its_request_and_has_a_time_of_its_own() -> None:
    rig = Rig()
    _, client = mirrored(rig)
    copy, server = rig.servers
    server.respond(end=True)
    assert heads(client) == [200]
    assert not copy.cancelled
    assert rig.shadows.live == 1
    rig.clock.sleep(15)
    assert copy.cancelled
    assert rig.shadows.live == 0


def test_a_copy_whose_server_does_not_read_is_given_up_and_costs_the_request_nothing() -> None:
    rig = Rig()
    exchange, client = mirrored(rig, method=b"POST", end=False)
    copy, server = rig.servers
    copy.held = 1 << 20
    for _ in range(5):
        exchange.body(memoryview(bytes(1 << 16)))
    assert copy.cancelled
    assert client.took == len(server.body) == 5 << 16
    exchange.end(())
    server.respond(end=True)
    assert heads(client) == [200]


def test_a_copy_of_half_a_request_is_given_up() -> None:
    rig = Rig()
    exchange, _ = mirrored(rig, method=b"POST", end=False)
    copy, _ = rig.servers
    exchange.gone()
    assert copy.cancelled
    assert rig.shadows.live == 0


def test_there_are_only_so_many_copies() -> None:
    rig = Rig()
    rig.shadows.live = 1024
    mirrored(rig)
    assert len(rig.servers) == 1
    assert rig.shadows.dropped == 1


def test_a_copy_nobody_serves_is_no_failure() -> None:
    rig = Rig()
    rig.reachable = False
    exchange, client = mirrored(rig)
    assert heads(client) == [503]
    assert rig.ended_ == [exchange]
    assert rig.shadows.live == 0
