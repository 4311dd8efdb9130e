"""Rate limits at a waypoint: who is refused, and what is told of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.hbone.conftest import contexts, lab
from tests.hbone.peers import Lab
from tests.waypoint.mesh import CALLER, ME, SERVERS, SERVICE, WP, Mesh
from ztunnel.errors import Unreachable
from ztunnel.model.http_policy import Attribute, Term, TextKind, TextMatch
from ztunnel.model.rate_limit import (
    Descriptor,
    Entry,
    GlobalLimit,
    Limit,
    LimitKey,
    LocalRule,
    RateLimitPolicy,
)
from ztunnel.model.route import Routes, RouteSource, Rule
from ztunnel.model.route_action import DirectResponse
from ztunnel.model.route_match import Match
from ztunnel.model.route_match import TextKind as RouteTextKind
from ztunnel.model.route_match import TextMatch as RouteText
from ztunnel.model.route_policy import MILLION, Abort, Cors, Fault
from ztunnel.model.service import Service, ServiceName
from ztunnel.state.delta import apply
from ztunnel.waypoint.calls import Called, Then
from ztunnel.waypoint.rules.limiting import MOST_OF_ONE, nobody
from ztunnel.xds.pb import limit_service_pb2 as pb

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


def test_what_was_counted_is_forgotten_with_its_policy(lab: Lab) -> None:
    bench = Bench(lab, POLICY)
    for _ in range(2):
        assert bench.asks(3) == ["200", "200", "429"]
        world, _ = apply(bench.mesh.hold.world, (), (), (), {RateLimitPolicy: ["shop/p"]})
        bench.mesh.hold.world = world
        assert bench.asks(1) == ["200"]
        assert bench.mesh.parts.limiter.limits.keys == 0
        bench.mesh.hold.world = apply(bench.mesh.hold.world, [POLICY], ())[0]


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


# What a service counts for all.

RLS = ServiceName("shop", "rls.shop.svc.cluster.local")
PATHS = Descriptor((Entry("PATH", "", LimitKey(Attribute.PATH)),))
ASKED = RateLimitPolicy("g", "shop", service=GlobalLimit(RLS.hostname, 8081, "d", (PATHS,), 5.0))
OVER = pb.RateLimitResponse(overall_code=pb.RateLimitResponse.OVER_LIMIT)
UNDER = pb.RateLimitResponse(overall_code=pb.RateLimitResponse.OK)


class Calls:
    """Calls that are answered by what is told, or later."""

    def __init__(self, *answers: pb.RateLimitResponse | str) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[Called, pb.RateLimitRequest]] = []
        self.later: list[Then] = []

    def call(self, called: Called, message: bytes, then: Then) -> None:
        self.asked.append((called, pb.RateLimitRequest.FromString(message)))
        if not self.answers:
            self.later.append(then)
            return
        answer = self.answers.pop(0)
        if isinstance(answer, str):
            then(None, answer)
        else:
            then(answer.SerializeToString(), "")


class Global(Bench):
    """A waypoint whose service is played."""

    def __init__(self, lab: Lab, calls: Calls, *items, names: tuple[str, ...] = ("shop/g",), **more) -> None:
        super().__init__(lab, *items, service=replace(SERVICE, rate_limits=names), **more)
        self.calls = self.mesh.parts.limiter.calls = calls  # type: ignore[assignment]
        self.outcomes: list[tuple[str, str]] = []
        self.mesh.parts.limiter.asked = lambda policy, outcome: self.outcomes.append((policy, outcome))


def test_a_service_is_asked_and_decides(lab: Lab) -> None:
    bench = Global(lab, Calls(UNDER, OVER), ASKED)
    assert bench.asks(1) == ["200"]
    told = bench.ask()
    assert told.startswith("HTTP/1.1 429 Too Many Requests\r\n")
    assert "\r\nx-envoy-ratelimited: true\r\n" in told
    assert told.endswith("\r\n\r\n")
    said = bench.mesh.lines[-1].split('HTTP/1.1" ')[1]
    assert said.startswith('429 RL request_rate_limited - "rate limit shop/g"')
    called, request = bench.calls.asked[0]
    assert (called.host, called.port, called.namespace, called.seconds) == (RLS.hostname, 8081, "shop", 5.0)
    assert called.method == b"/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
    assert [(one.key, one.value) for one in request.descriptors[0].entries] == [("PATH", "/x")]
    assert (request.domain, request.hits_addend) == ("d", 1)
    assert bench.outcomes == [("shop/g", "ok"), ("shop/g", "over_limit")]
    assert bench.refused == [("shop/g", "global")]


@pytest.mark.parametrize("answer", ["timed out", pb.RateLimitResponse(raw_body=b"x")])
def test_without_an_answer_a_request_passes_unless_it_must_not(lab: Lab, answer) -> None:
    calls = Calls(answer, answer)
    if not isinstance(answer, str):
        calls.call = lambda called, message, then: then(b"\x08", "")  # type: ignore[method-assign]
    bench = Global(lab, calls, ASKED)
    assert bench.asks(1) == ["200"]
    assert ASKED.service is not None
    deny = replace(ASKED, service=replace(ASKED.service, deny=True))
    other = Global(lab, calls, deny)
    told = other.ask()
    assert told.startswith("HTTP/1.1 500 Internal Server Error\r\n")
    assert told.endswith("\r\n\r\n")
    why = answer if isinstance(answer, str) else "an answer that is none"
    said = other.mesh.lines[-1].split('HTTP/1.1" ')[1]
    assert said.startswith(f'500 RLSE rate_limiter_error - "rate limit shop/g: {why}"')
    assert bench.outcomes == other.outcomes == [("shop/g", "error")]


def test_fields_of_the_service_go_where_they_are_for(lab: Lab) -> None:
    headers = {"response_headers_to_add": [pb.HeaderValue(key="x-left", value="3")]}
    told = pb.RateLimitResponse.DescriptorStatus(limit_remaining=3)
    told.current_limit.requests_per_unit = 4
    answer = pb.RateLimitResponse(
        statuses=[told], request_headers_to_add=[pb.HeaderValue(key="x-tier", value="gold")], **headers
    )
    mesh = Mesh(
        lab, ME, CALLER, *SERVERS, replace(SERVICE, rate_limits=("shop/g",)), replace(ASKED, tells=True)
    )
    mesh.parts.limiter.calls = Calls(answer, answer)  # type: ignore[assignment]
    client, heard = mesh.open("10.1.0.1:80")
    client.write(b"GET /x HTTP/1.1\r\nHost: web\r\n\r\n")
    server, asked = mesh.serve()
    lab.go(until=lambda: b"\r\n\r\n" in asked.got)
    assert b"\r\nx-tier: gold\r\n" in asked.got
    server.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    lab.go(until=lambda: heard.got.endswith(b"ok"))
    assert b"\r\nx-left: 3\r\n" in heard.got
    assert b"\r\nx-ratelimit-limit: 4\r\n" in heard.got
    client.write(b"GET /x HTTP/1.1\r\nHost: web\r\n\r\n")
    lab.go(until=lambda: asked.got.count(b"\r\n\r\n") == 2)
    assert asked.got.count(b"x-tier: gold") == 2


def test_all_services_are_asked_in_turn_and_local_limits_first(lab: Lab) -> None:
    second = replace(ASKED, name="h")
    local = replace(ASKED, name="l", rules=(replace(RULE, limit=Limit(1, 3600.0)),), service=None)
    calls = Calls(UNDER, OVER)
    bench = Global(lab, calls, ASKED, second, local, names=("shop/g", "shop/h", "shop/l"))
    assert bench.asks(2) == ["429", "429"]
    assert bench.refused == [("shop/h", "global"), ("shop/l", "local")]
    assert len(calls.asked) == 2


def test_a_request_waits_for_the_answer_with_its_body(lab: Lab) -> None:
    mesh = Mesh(lab, ME, CALLER, *SERVERS, replace(SERVICE, rate_limits=("shop/g",)), ASKED)
    calls = Calls()
    mesh.parts.limiter.calls = calls  # type: ignore[assignment]
    client, _ = mesh.open("10.1.0.1:80")
    client.write(b"POST /x HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\n\r\nhello")
    lab.go(until=lambda: calls.later)
    assert mesh.tunnels.asked == []
    calls.later[0](UNDER.SerializeToString(), "")
    _, asked = mesh.serve()
    lab.go(until=lambda: asked.got.endswith(b"hello"))


def test_an_answer_for_somebody_who_has_gone_is_nobodys(lab: Lab) -> None:
    bench = Global(lab, Calls(), ASKED)
    bench.client.write(b"GET /x HTTP/1.1\r\nHost: web\r\n\r\n")
    lab.go(until=lambda: bench.calls.later)
    bench.client.abort(Unreachable("gone"))
    lab.go(until=lambda: bench.mesh.lines)
    bench.calls.later[0](OVER.SerializeToString(), "")
    assert bench.refused == bench.outcomes == []
    assert len(bench.mesh.lines) == 1


def test_one_caller_keeps_no_others_from_asking(lab: Lab) -> None:
    bench = Global(lab, Calls(), ASKED)
    limiter = bench.mesh.parts.limiter
    owner = CALLER.identity, CALLER.addresses[0]
    limiter.asking.taken[owner] = MOST_OF_ONE
    assert bench.asks(1) == ["200"]
    assert bench.outcomes == [("shop/g", "error")]
    limiter.asking.taken[owner] = MOST_OF_ONE - 1
    limiter.asking.taken["another"] = MOST_OF_ONE
    bench.client.write(b"GET /x HTTP/1.1\r\nHost: web\r\n\r\n")
    lab.go(until=lambda: bench.calls.later)
    assert limiter.asking.taken[owner] == MOST_OF_ONE
    bench.calls.later[0](UNDER.SerializeToString(), "")
    assert limiter.asking.taken[owner] == MOST_OF_ONE - 1


def test_who_asks_nothing_any_more_is_forgotten(lab: Lab) -> None:
    bench = Global(lab, Calls(UNDER, OVER), ASKED)
    assert bench.asks(2) == ["200", "429"]
    assert bench.mesh.parts.limiter.asking.taken == {}


def test_a_request_without_a_value_is_not_asked_about(lab: Lab) -> None:
    user = Descriptor((Entry("user", "", LimitKey(Attribute.HEADER, ("x-user",))),))
    assert ASKED.service is not None
    bench = Global(lab, Calls(OVER), replace(ASKED, service=replace(ASKED.service, descriptors=(user,))))
    assert bench.asks(3) == ["200"] * 3
    assert bench.asks(1, "x-user: a\r\n") == ["429"]
