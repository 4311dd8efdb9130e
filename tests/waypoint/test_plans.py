"""Exchanges do what their plans say: they wait, are answered, tried again, timed out, copied."""

from __future__ import annotations

from tests.waypoint.rig import Client, Rig
from ztunnel.l7.reply import FAULT, NO_ROUTE
from ztunnel.l7.request import Request
from ztunnel.l7.routing.plan import Plan
from ztunnel.model.route_action import Destination, Edits, HeaderEdits
from ztunnel.model.route_policy import Retry, RetryOn
from ztunnel.model.service import ServiceName
from ztunnel.waypoint.exchange.exchange import Exchange

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
    part = memoryview(bytes(1 << 20))
    for _ in range(16):
        exchange.body(part)
    assert not copy.cancelled
    assert rig.shadows.held_bytes == 16 << 20
    exchange.body(part)
    assert copy.cancelled
    assert (rig.shadows.dropped, rig.shadows.held_bytes) == (1, 0)
    assert client.took == len(server.body) == 17 << 20
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


def test_a_copy_that_is_connected_late_is_sent_all_of_it() -> None:
    """A client may have sent megabytes by then (istio/istio#58870)."""
    rig = Rig()
    rig.waits = True
    exchange, client = mirrored(rig, method=b"POST", end=False)
    late, now = rig.waiting
    server = rig.stand(now)
    for _ in range(5):
        exchange.body(memoryview(bytes(1 << 20)))
    exchange.end(())
    server.respond(end=True)
    assert heads(client) == [200]
    copy = rig.stand(late)
    assert copy.whole
    assert len(copy.body) == 5 << 20
    assert rig.shadows.held_bytes == 0


def test_all_copies_together_hold_only_so_much() -> None:
    rig = Rig()
    exchanges = [mirrored(rig, method=b"POST", end=False)[0] for _ in range(6)]
    copies = rig.servers[::2]
    for copy in copies:
        copy.held = 1 << 20
    for exchange in exchanges:
        for _ in range(12):
            exchange.body(memoryview(bytes(1 << 20)))
    assert [copy.cancelled for copy in copies] == [False] * 5 + [True]
    assert rig.shadows.held_bytes == 60 << 20
    for exchange in exchanges:
        exchange.gone()
    assert (rig.shadows.held_bytes, rig.shadows.live) == (0, 0)


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
