"""Requests that a waypoint makes itself; `test_calls` and `test_checking` have what they are made for."""

from __future__ import annotations

from random import Random

import pytest

from tests.waypoint.mesh import SERVICE
from tests.waypoint.rig import Clock, Server
from ztunnel.l7.reply import CONNECT_FAILED, TERMINATED
from ztunnel.l7.request import Request
from ztunnel.l7.routing.plan import Plan
from ztunnel.model.address import OriginalDestination, parse_endpoint
from ztunnel.model.route_action import Destination
from ztunnel.model.route_policy import Retry, RetryOn
from ztunnel.waypoint.client import Client, ClientCall, Places, grpc_message, grpc_request
from ztunnel.waypoint.exchange.exchange import Exchange
from ztunnel.waypoint.rules.aim import Terms

AT = parse_endpoint("[fd00::1]:80")
TWICE = Retry(2, frozenset((RetryOn.CONNECT_FAILURE, RetryOn.RESET)))
MOST = 1000


class Bench:
    """One call. `losses` of its servers cannot be reached."""

    def __init__(self, retry: Retry | None = None, seconds: float = 1.0) -> None:
        self.clock = Clock()
        self.servers: list[Server] = []
        self.versions: list[tuple[int, int]] = []
        self.losses = 0
        self.over: list[ClientCall] = []
        plan = Plan("own", retry)
        plan.destination = Destination(SERVICE.key, 80)
        plan.timeout_seconds = seconds
        terms = Terms(OriginalDestination(AT.ip, AT.port), AT.ip)
        self.call = ClientCall(
            Client(self.clock, self._connect, Random(1)), plan, terms, MOST, self.over.append
        )

    def _connect(self, exchange: Exchange, terms: Terms, version: int) -> None:
        self.versions.append((version, terms.version))
        if self.losses:
            self.losses -= 1
            exchange.unreachable(CONNECT_FAILED, "refused", unsent=True)
            return
        server = Server(exchange=exchange)
        self.servers.append(server)
        exchange.connected(server)

    def start(self, body: bytes = b"", version: int = 1) -> Server:
        self.call.start(Request(b"POST", b"there", b"/x", []), body, version)
        return self.servers[-1]

    @property
    def failure(self) -> str:
        assert self.over == [self.call]
        return self.call.failure


@pytest.mark.parametrize("version", [1, 2])
def test_it_is_asked_in_the_version_that_is_wanted(version: int) -> None:
    bench = Bench()
    server = bench.start(b"body", version)
    assert bench.versions == [(version, version)]
    assert (server.whole, bytes(server.body)) == (True, b"body")
    server.respond((b"a", b"b"), status=b"404")
    server.say(b"12")
    server.say(b"34")
    assert not bench.over
    server.end(((b"t", b"u"),))
    assert bench.failure == ""
    call = bench.call
    assert (call.fields[0], bytes(call.body), call.trailers) == (
        (b":status", b"404"),
        b"1234",
        ((b"t", b"u"),),
    )


def test_one_without_a_body_is_whole_at_once() -> None:
    bench = Bench()
    server = bench.start()
    assert server.whole
    server.respond(end=True)
    assert bench.failure == ""


def test_an_interim_answer_is_none() -> None:
    bench = Bench()
    server = bench.start()
    assert server.exchange is not None
    server.exchange.informed(((b":status", b"103"),))
    assert not bench.over
    server.respond(end=True)
    assert bench.failure == ""


def test_an_answer_may_be_as_long_as_it_may() -> None:
    bench = Bench()
    server = bench.start()
    server.respond()
    server.say(bytes(MOST))
    assert not bench.over
    server.say(b"1")
    assert bench.failure == f"an answer of more than {MOST} bytes"
    assert server.cancelled
    assert not bench.call.body


def test_it_takes_no_longer_than_it_may() -> None:
    bench = Bench()
    server = bench.start()
    server.respond()
    bench.clock.sleep(1.1)
    assert bench.failure == "upstream_response_timeout"
    assert server.cancelled


def test_what_is_cut_off_is_no_answer() -> None:
    bench = Bench()
    server = bench.start()
    server.respond()
    assert server.exchange is not None
    server.exchange.failed(TERMINATED, "cut")
    assert bench.failure == "cut"


@pytest.mark.parametrize(("losses", "failure"), [(1, ""), (2, ""), (3, "refused")])
def test_it_is_tried_again_as_its_plan_says(losses: int, failure: str) -> None:
    bench = Bench(TWICE)
    bench.losses = losses
    bench.call.start(Request(b"POST", b"there", b"/x", []), b"body")
    bench.clock.sleep(0.5)
    if not failure:
        bench.servers[0].respond(end=True)
    assert bench.failure == failure
    assert len(bench.versions) == min(losses + 1, 3)


def test_what_is_cut_off_before_it_is_answered_is_asked_again_with_its_body() -> None:
    bench = Bench(TWICE)
    server = bench.start(b"body")
    assert server.exchange is not None
    server.exchange.failed(TERMINATED, "cut")
    bench.clock.sleep(0.5)
    server, again = bench.servers
    assert bytes(again.body) == b"body"
    again.respond(end=True)
    assert bench.failure == ""


def test_one_that_is_cancelled_is_over_once() -> None:
    bench = Bench()
    server = bench.start()
    bench.call.cancel()
    assert bench.failure
    assert server.cancelled
    bench.call.cancel()
    assert len(bench.over) == 1


def test_one_that_has_not_begun_can_be_cancelled() -> None:
    bench = Bench()
    bench.call.cancel()
    assert not bench.over


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.25, b"250m"), (0.0001, b"1m"), (1e9, b"99999999m"), (600.0, b"600000m")]
)
def test_a_call_of_grpc_says_how_long_it_may_take(seconds: float, said: bytes) -> None:
    request, body = grpc_request("there:80", b"/a.B/C", seconds, b"hello")
    assert dict(request.fields)[b"grpc-timeout"] == said
    assert body == b"\0\0\0\0\5hello"
    assert request.is_grpc


@pytest.mark.parametrize("at", range(1, 10))
def test_a_message_may_come_in_parts(at: int) -> None:
    bench, whole = Bench(), b"\0\0\0\0\5world"
    server = bench.start()
    server.respond((b"content-type", b"application/grpc"))
    server.say(whole[:at])
    server.say(whole[at:])
    server.end(((b"grpc-status", b"0"),))
    assert grpc_message(bench.call) == b"world"


def test_there_are_so_many_of_one_owner() -> None:
    places = Places(2)
    assert not places
    assert [places.take("a") for _ in range(3)] == [True, True, False]
    assert places.take(7)
    assert len(places) == 3
    places.give("a")
    assert places.take("a")
    places.give("a")
    places.give("a")
    assert places.taken == {7: 1}
