"""A question is sent, answered and forgotten; `test_admit` has it beside the request that waits."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from tests.waypoint.authorizers import ASKS, GRPC, HTTP
from tests.waypoint.rig import Clock, Server
from ztunnel.l7.extauthz.outcome import Answer, Denial, Failed, Permit
from ztunnel.l7.extauthz.question import Party, Question
from ztunnel.l7.reply import CONNECT_FAILED, NO_HEALTHY_UPSTREAM, Reply
from ztunnel.l7.request import Request
from ztunnel.model.address import OriginalDestination, parse_endpoint
from ztunnel.model.provider import ExtAuthz
from ztunnel.model.route_action import Destination
from ztunnel.model.service import AppProtocol
from ztunnel.rpc.message import HEADER
from ztunnel.state.lookup import Authorizer
from ztunnel.waypoint.client import Client
from ztunnel.waypoint.exchange.exchange import Exchange
from ztunnel.waypoint.rules.aim import Terms
from ztunnel.waypoint.rules.checking import MOST_ANSWER, Asked, Check, Checks

WEB = parse_endpoint("10.1.0.1:80")
CALLED = OriginalDestination(WEB.ip, WEB.port)
QUESTION = Question(Party(parse_endpoint("10.0.0.1:1")), Party(WEB), Request(b"GET", b"web", b"/", []))


class Bench:
    """`reachable`: servers stand at once; otherwise nobody does, `losses` of them are lost first."""

    def __init__(self, provider: ExtAuthz = HTTP, service=ASKS) -> None:
        self.clock = Clock()
        self.servers: list[Server] = []
        self.versions: list[int] = []
        self.reachable = True
        self.losses = 0
        self.told: list[Answer | Reply] = []
        self.checks = Checks(Client(self.clock, self._connect, Random(1)), lambda: 7)
        self.asked = Terms(CALLED, WEB.ip)
        asked = Asked(
            Authorizer("asks", provider, service), self.asked, Destination(ASKS.key, 8000), QUESTION
        )
        self.check = Check(self.checks, asked, self.told.append)

    def _connect(self, exchange: Exchange, terms: Terms, version: int) -> None:
        assert terms is self.asked
        assert exchange.plan.destination is not None
        assert exchange.plan.destination.service == ASKS.key
        self.versions.append(version)
        if self.losses:
            self.losses -= 1
            exchange.unreachable(CONNECT_FAILED, "not yet", unsent=True)
        elif not self.reachable:
            exchange.unreachable(NO_HEALTHY_UPSTREAM, "nobody")
        else:
            server = Server(exchange=exchange)
            self.servers.append(server)
            exchange.connected(server)


def test_it_is_asked_and_told_once() -> None:
    bench = Bench()
    bench.check.ask()
    (server,) = bench.servers
    assert server.whole
    assert (len(bench.checks.live), bench.told) == (1, [])
    server.respond(end=True)
    assert bench.told == [Permit()]
    assert not bench.checks.live
    bench.check.cancel()
    assert bench.told == [Permit()]


def test_a_denial_has_its_body() -> None:
    bench = Bench()
    bench.check.ask()
    server = bench.servers[0]
    server.respond(status=b"401")
    server.say(b"n")
    server.say(b"o")
    server.end()
    (denial,) = bench.told
    assert isinstance(denial, Denial)
    assert (denial.status, denial.body) == (401, b"no")


def test_an_answer_that_is_cut_off_is_none() -> None:
    bench = Bench()
    bench.check.ask()
    server = bench.servers[0]
    server.respond(status=b"200")
    server.exchange.failed(CONNECT_FAILED, "cut")  # type: ignore[union-attr]
    (failed,) = bench.told
    assert isinstance(failed, Failed)
    assert failed.reason == "asks: cut"


def test_an_answer_without_end_is_cut_off() -> None:
    bench = Bench()
    bench.check.ask()
    server = bench.servers[0]
    server.respond(status=b"403")
    while not bench.told:
        server.say(bytes(10_000))
    assert bench.told == [Failed(f"asks: an answer of more than {MOST_ANSWER} bytes")]
    assert server.cancelled


def test_what_nobody_has_seen_is_asked_again_once() -> None:
    bench = Bench()
    bench.losses = 1
    bench.check.ask()
    bench.clock.sleep(1)
    assert len(bench.servers) == 1
    bench = Bench()
    bench.losses = 2
    bench.check.ask()
    bench.clock.sleep(1)
    assert bench.told == [Failed("asks: not yet")]


def test_where_nobody_serves_it_there_is_no_answer() -> None:
    bench = Bench()
    bench.reachable = False
    bench.check.ask()
    assert bench.told == [Failed("asks: nobody")]


def test_time_runs_out() -> None:
    bench = Bench()
    bench.check.ask()
    bench.clock.sleep(4.9)
    assert not bench.told
    bench.clock.sleep(0.2)
    assert bench.told == [Failed("asks: upstream_response_timeout")]
    assert bench.servers[0].cancelled


def test_one_that_is_cancelled_is_told_nothing_and_lets_go() -> None:
    bench = Bench()
    bench.check.ask()
    bench.check.cancel()
    assert (bench.told, len(bench.checks.live), bench.servers[0].cancelled) == ([], 0, True)


@pytest.mark.parametrize(
    ("provider", "protocol", "version"),
    [(HTTP, None, 1), (HTTP, AppProtocol.HTTP2, 2), (HTTP, AppProtocol.HTTP, 1), (GRPC, AppProtocol.HTTP, 2)],
)
def test_an_authorizer_is_asked_in_the_version_that_its_port_speaks(provider, protocol, version) -> None:
    protocols = ((provider.service.port, protocol),) if protocol else ()
    bench = Bench(provider, replace(ASKS, protocols=protocols))
    bench.check.ask()
    assert bench.versions == [version]


def test_a_question_of_grpc_is_one_message() -> None:
    bench = Bench(GRPC)
    bench.check.ask()
    server = bench.servers[0]
    flag, length = HEADER.unpack_from(server.body)
    assert (flag, length) == (0, len(server.body) - HEADER.size)
    server.respond()
    server.say(HEADER.pack(0, 0))
    server.end(((b"grpc-status", b"0"),))
    assert bench.told == [Permit()]
