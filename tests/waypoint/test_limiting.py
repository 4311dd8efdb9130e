"""Rate limits at a waypoint: who is refused, and what is told of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.hbone.conftest import contexts, lab
from tests.hbone.peers import Lab
from tests.waypoint.mesh import CALLER, ME, SERVERS, SERVICE, WP, Mesh
from ztunnel.model.http_policy import Attribute, Term, TextKind, TextMatch
from ztunnel.model.rate_limit import Limit, LimitKey, LocalRule, RateLimitPolicy
from ztunnel.model.route import Routes, RouteSource, Rule
from ztunnel.model.route_action import DirectResponse
from ztunnel.model.route_match import Match
from ztunnel.model.route_match import TextKind as RouteTextKind
from ztunnel.model.route_match import TextMatch as RouteText
from ztunnel.model.route_policy import MILLION, Abort, Cors, Fault
from ztunnel.model.service import Service
from ztunnel.state.delta import apply
from ztunnel.waypoint.limiting import nobody

__all__ = ["contexts", "lab"]

RULE = LocalRule("few", Limit(2, 3600.0))
POLICY = RateLimitPolicy("p", "shop", rules=(RULE,))
LIMITED = replace(SERVICE, rate_limits=("shop/p",))
SOURCE = RouteSource("HTTPRoute", "shop", "r")
ANSWERED = Routes(
    SERVICE.key,
    (
        Rule("a", SOURCE, DirectResponse(200, b"hello")),
    ),
)  # fmt: skip


class Bench:
    """A waypoint with limits, whose routes answer every request."""

    def __init__(self, lab: Lab, *items, service: Service = LIMITED, routes: Routes = ANSWERED) -> None:
        self.mesh = Mesh(lab, ME, CALLER, *SERVERS, service, routes, *items)
        self.lab = lab
        self.refused: list[tuple[str, str]] = []
        self.mesh.parts.limiter.refused = lambda policy, scope: self.refused.append((policy, scope))
        self.client, self.heard = self.mesh.open("10.1.0.1:80")

    def ask(self, fields: str = "", method: str = "GET") -> str:
        """The response to one more request."""
        before, lines = len(self.heard.got), len(self.mesh.lines)
        self.client.write(f"{method} /x HTTP/1.1\r\nHost: web\r\n{fields}\r\n".encode())
        self.lab.go(until=lambda: len(self.mesh.lines) > lines and b"\r\n\r\n" in self.heard.got[before:])
        return self.heard.got[before:].decode()

    def asks(self, count: int, fields: str = "") -> list[str]:
        """The statuses of so many."""
        return [self.ask(fields).split(" ", 2)[1] for _ in range(count)]


def test_who_asks_too_often_is_told_and_the_log_says_by_what(lab: Lab) -> None:
    bench = Bench(lab, POLICY)
    assert bench.asks(2) == ["200", "200"]
    told = bench.ask()
    assert told.startswith("HTTP/1.1 429 Too Many Requests\r\n")
    assert "\r\nx-envoy-ratelimited: true\r\n" in told
    assert told.endswith("\r\n\r\nlocal_rate_limited")
    assert (
        bench.mesh.lines[-1]
        .split('HTTP/1.1" ')[1]
        .startswith('429 RL local_rate_limited - "rate limit shop/p few"')
    )
    assert bench.refused == [("shop/p", "local")]
    nobody("shop/p", "local")


def test_a_client_of_grpc_is_told_in_its_words(lab: Lab) -> None:
    bench = Bench(lab, replace(POLICY, exhausted=True))
    fields = "content-type: application/grpc\r\n"
    assert bench.asks(3, fields) == ["200"] * 3
    assert "\r\ngrpc-status: 8\r\n" in bench.ask(fields)
    assert "\r\ngrpc-status: 14\r\n" in _exhausted(Bench(lab, POLICY), fields)


def _exhausted(bench: Bench, fields: str) -> str:
    bench.asks(2, fields)
    return bench.ask(fields)


def test_a_response_tells_the_limit_whoever_has_given_it(lab: Lab) -> None:
    bench = Bench(lab, replace(POLICY, tells=True))
    found = [bench.ask() for _ in range(3)]
    for one, left in zip(found, (1, 0, 0), strict=True):
        assert "\r\nx-ratelimit-limit: 2\r\n" in one
        assert f"\r\nx-ratelimit-remaining: {left}\r\n" in one
        assert "\r\nx-ratelimit-reset: 1800\r\n" in one


def test_that_of_a_server_tells_it_as_well(lab: Lab) -> None:
    mesh = Mesh(lab, ME, CALLER, *SERVERS, LIMITED, replace(POLICY, tells=True))
    client, heard = mesh.open("10.1.0.1:80")
    client.write(b"GET /x HTTP/1.1\r\nHost: web\r\n\r\n")
    server, asked = mesh.serve()
    lab.go(until=lambda: b"\r\n\r\n" in asked.got)
    server.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    lab.go(until=lambda: heard.got.endswith(b"ok"))
    assert b"\r\nx-ratelimit-remaining: 1\r\n" in heard.got


def test_each_caller_has_its_own_where_they_are_told_apart(lab: Lab) -> None:
    user = LimitKey(Attribute.HEADER, ("x-user",))
    bench = Bench(lab, replace(POLICY, rules=(replace(RULE, keys=(user,)),)))
    assert bench.asks(3, "x-user: a\r\n") == ["200", "200", "429"]
    assert bench.asks(3, "x-user: b\r\n") == ["200", "200", "429"]
    assert bench.asks(3) == ["200"] * 3


@pytest.mark.parametrize(("namespace", "statuses"), [("shop", ["200", "200", "429"]), ("other", ["200"] * 3)])
def test_who_calls_is_who_has_proved_it(lab: Lab, namespace: str, statuses: list[str]) -> None:
    term = Term(Attribute.NAMESPACE, (TextMatch(TextKind.EXACT, namespace),))
    bench = Bench(lab, replace(POLICY, rules=(replace(RULE, terms=(term,)),)))
    assert bench.asks(3) == statuses


def test_limits_of_the_waypoint_itself_count_for_all_that_it_stands_for(lab: Lab) -> None:
    own = Service("wp", "shop", WP.hostname, rate_limits=("shop/p",))
    assert Bench(lab, POLICY, own, service=SERVICE).asks(3) == ["200", "200", "429"]


def test_limits_of_a_route_are_of_its_rules_alone(lab: Lab) -> None:
    policy = replace(POLICY, routes=("HTTPRoute shop/r",))
    assert Bench(lab, policy, service=SERVICE).asks(3) == ["200", "200", "429"]
    other = replace(POLICY, routes=("HTTPRoute shop/other",))
    assert Bench(lab, other, service=SERVICE).asks(3) == ["200"] * 3


def test_a_policy_that_has_not_come_limits_nothing(lab: Lab) -> None:
    bench = Bench(lab, replace(POLICY, name="q"))
    assert bench.asks(3) == ["200"] * 3
    world, _ = apply(bench.mesh.hold.world, [POLICY], ())
    bench.mesh.hold.world = world
    assert bench.asks(3) == ["200", "200", "429"]


def test_preflights_and_faults_count_nowhere(lab: Lab) -> None:
    cors = Cors((RouteText(RouteTextKind.EXACT, "https://page"),), methods=("GET",))
    rule = replace(ANSWERED.rules[0], fault=Fault(abort=Abort(MILLION, 418)), cors=cors)
    bench = Bench(lab, POLICY, routes=Routes(SERVICE.key, (rule,)))
    assert bench.asks(3) == ["418"] * 3
    preflight = "Origin: https://page\r\nAccess-Control-Request-Method: GET\r\n"
    assert [bench.ask(preflight, "OPTIONS").split(" ", 2)[1] for _ in range(3)] == ["200"] * 3
    keys = bench.mesh.parts.limiter.limits.keys
    assert keys == 0


def test_what_no_route_is_for_counts_as_well(lab: Lab) -> None:
    elsewhere = Match(path=RouteText(RouteTextKind.EXACT, "/other"))
    routes = Routes(SERVICE.key, (replace(ANSWERED.rules[0], matches=(elsewhere,)),))
    assert Bench(lab, POLICY, routes=routes).asks(3) == ["404", "404", "429"]


def test_a_page_of_another_origin_may_read_that_it_asks_too_often(lab: Lab) -> None:
    rule = replace(ANSWERED.rules[0], cors=Cors((RouteText(RouteTextKind.EXACT, "https://page"),)))
    bench = Bench(lab, POLICY, routes=Routes(SERVICE.key, (rule,)))
    bench.asks(2)
    assert "\r\naccess-control-allow-origin: https://page\r\n" in bench.ask("Origin: https://page\r\n")
