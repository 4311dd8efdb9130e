"""Who requests speak for: signatures are checked once and in turn, and what goes on ends with its token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count

import pytest

from tests.hbone.conftest import contexts, lab
from tests.hbone.peers import Lab
from tests.l7.issuers import ISSUER, NOW, claims, jwk, jwks, key_of, token
from tests.waypoint.mesh import CALLER, ME, SERVERS, SERVICE, Mesh, change
from tests.waypoint.rig import Client, Rig
from ztunnel.l7.jwt.authentication import Authentication, Rule
from ztunnel.l7.jwt.token import SKEW_SECONDS
from ztunnel.l7.request import Request
from ztunnel.model.http_policy import Attribute, HttpAction, HttpPolicy, Term, TextKind, TextMatch
from ztunnel.model.jwt import ClaimHeader, JwtPolicy, JwtRule
from ztunnel.waypoint.exchange.exchange import Exchange
from ztunnel.waypoint.rules.authenticate import (
    MISSED_SECONDS,
    WAITING,
    WAITING_OF_ONE,
    Authenticator,
    Source,
)

__all__ = ["contexts", "lab"]

KEYS = jwks(jwk("EdDSA"))
RULE = JwtRule(ISSUER, keys=KEYS, claim_headers=(ClaimHeader("x-user", "sub"),))
NUMBERS = count()


def good(**more: object) -> bytes:
    return token(claims(**more), "EdDSA")


def bad() -> bytes:
    """Another one each time."""
    return token(claims(jti=str(next(NUMBERS))), "EdDSA", key=key_of("EdDSA", "stranger"))


class Bench:
    """An authenticator in an engine that is turned by hand; each look at the clock takes `cost` seconds."""

    def __init__(self, cost: float = 0.0) -> None:
        self.rig = Rig()
        self.rig.clock.clock = self.clock  # type: ignore[attr-defined]
        self.cost = cost
        self.wall = NOW
        self.it = Authenticator(self.rig.clock, lambda: self.wall)  # type: ignore[arg-type]
        self.rules = Authentication([Rule(RULE)])
        self.passed: list[Exchange] = []
        self.why: list[str] = []
        self.it.refused = self.why.append

    def clock(self) -> float:
        self.rig.clock.now += self.cost
        return self.rig.clock.now

    def ask(self, text: bytes = b"", caller: str = "a", address: str = "1") -> Exchange:
        fields = [(b"authorization", b"Bearer " + text)] if text else []
        exchange = Exchange(self.rig.way, Client(), Request(b"GET", b"web", b"/", fields))
        self.it.admit(exchange, lambda: self.rules, Source(caller, address), self.passed.append)
        return exchange

    def round(self) -> None:
        due, self.rig.clock.later = self.rig.clock.later, []
        for callback in due:
            callback()


def test_without_a_token_nothing_waits() -> None:
    bench = Bench()
    exchange = bench.ask()
    assert (bench.passed, bench.it.waiting) == ([exchange], 0)


def test_a_token_is_checked_in_the_next_round_and_known_from_then_on() -> None:
    bench = Bench()
    first = bench.ask(good())
    assert (bench.passed, bench.it.waiting) == ([], 1)
    bench.round()
    assert bench.passed == [first]
    assert first.request.fields == [(b"x-user", b"alice")]
    assert first.request.claims["sub"] == "alice"
    second = bench.ask(good())
    assert bench.passed == [first, second]
    assert bench.it.proofs.proved == 1


def test_many_requests_with_one_new_token_cost_one_check() -> None:
    bench = Bench(cost=1.0)
    text = good()
    asked = [bench.ask(text) for _ in range(20)]
    bench.round()
    bench.round()
    assert bench.passed == asked
    assert (bench.it.proofs.proved, bench.it.waiting) == (1, 0)


def test_a_bad_token_is_answered_and_told() -> None:
    bench = Bench()
    exchange = bench.ask(bad())
    bench.round()
    assert (exchange.status, exchange.details) == (401, "jwt_authn_access_denied{Jwt_verification_fails}")
    assert (bench.passed, bench.why) == ([], ["Jwt verification fails"])
    assert bench.ask(b"x").status == 401
    assert bench.it.waiting == 0


def test_a_round_checks_no_more_than_its_time_and_at_least_one() -> None:
    for cost, rounds in ((0.0, 1), (0.0006, 3), (10.0, 6)):
        bench = Bench(cost)
        asked = [bench.ask(bad()) for _ in range(6)]
        taken = 0
        while bench.it.waiting:
            bench.round()
            taken += 1
        assert taken == rounds
        assert all(exchange.over for exchange in asked)


def test_whoever_sends_bad_tokens_without_end_waits_for_himself() -> None:
    bench = Bench(cost=10.0)
    for _ in range(100):
        bench.ask(bad(), "attacker")
    bench.round()
    exchange = bench.ask(good(), "b")
    bench.round()
    bench.round()
    assert bench.passed == [exchange]
    assert bench.it.waiting == 98


def test_addresses_of_one_caller_have_their_turns() -> None:
    """A gateway calls in the name of many, but is one identity."""
    bench = Bench(cost=10.0)
    for _ in range(50):
        bench.ask(bad(), "gateway", "1")
    exchange = bench.ask(good(), "gateway", "2")
    bench.round()
    bench.round()
    assert bench.passed == [exchange]


def test_what_may_wait_is_bounded() -> None:
    bench = Bench()
    for _ in range(WAITING_OF_ONE):
        bench.ask(bad(), "attacker")
    turned_away = bench.ask(bad(), "attacker")
    assert (turned_away.status, turned_away.flag, bench.it.turned_away) == (503, "UO", 1)
    assert not bench.ask(bad(), "b").over
    bench.round()
    assert bench.it.waiting == 0
    assert not bench.ask(bad(), "attacker").over


def test_what_may_wait_of_all_is_bounded() -> None:
    bench, text = Bench(), bad()
    asked = [bench.ask(text, str(n)) for n in range(WAITING + 1)]
    assert (asked[-2].status, asked[-1].status, bench.it.waiting) == (0, 503, WAITING)


def test_nobody_checks_for_who_has_gone() -> None:
    bench = Bench()
    exchange = bench.ask(bad())
    exchange.gone()
    bench.round()
    assert (bench.it.proofs.refuted, bench.it.waiting, bench.passed) == (0, 0, [])


def test_several_new_tokens_of_one_request_have_a_turn_each() -> None:
    bench = Bench(cost=1.0)
    exchange = Exchange(
        bench.rig.way,
        Client(),
        Request(
            b"GET", b"web", b"/?access_token=" + good(jti="2"), [(b"authorization", b"Bearer " + good())]
        ),
    )
    bench.it.admit(exchange, lambda: bench.rules, Source("a", "1"), bench.passed.append)
    bench.round()
    assert bench.passed == []
    bench.round()
    assert bench.passed == [exchange]


def test_rules_of_the_moment_count_when_its_turn_comes() -> None:
    bench = Bench()
    exchange = bench.ask(good())
    bench.rules = Authentication([])
    bench.round()
    assert (bench.passed, bench.it.proofs.proved) == ([exchange], 0)


def test_a_bug_of_one_is_none_of_the_others() -> None:
    bench = Bench()

    def bug(_exchange: Exchange) -> None:
        raise RuntimeError("a bug")

    exchange = Exchange(bench.rig.way, Client(), Request(b"GET", b"web", b"/", []))
    exchange.request.fields.append((b"authorization", b"Bearer " + good()))
    bench.it.admit(exchange, lambda: bench.rules, Source("a", "1"), bug)
    other = bench.ask(good(jti="2"))
    with pytest.raises(RuntimeError):
        bench.round()
    bench.round()
    assert bench.passed == [other]


def test_what_goes_on_is_judged_by_what_the_client_has_sent() -> None:
    bench = Bench()
    exchange = bench.ask(good())
    bench.round()
    again: list[Exchange] = []
    bench.it.judge_again(exchange, lambda: bench.rules, Source("a", "1"), again.append)
    assert again == [exchange]
    bench.rules = Authentication([Rule(replace(RULE, keys=jwks(jwk("EdDSA"), jwk("EdDSA", "k2"))))])
    bench.it.judge_again(exchange, lambda: bench.rules, Source("a", "1"), again.append)
    assert again == [exchange]
    bench.round()
    assert again == [exchange, exchange]
    bench.rules = Authentication([Rule(replace(RULE, keys=jwks(jwk("EdDSA", "k2"))))])
    bench.it.judge_again(exchange, lambda: bench.rules, Source("a", "1"), again.append)
    bench.round()
    assert (len(again), exchange.status) == (2, 401)
    assert exchange.failure == "Jwks doesn't have key to match kid or alg from Jwt"


def test_what_began_without_rules_goes_on() -> None:
    bench = Bench()
    bench.rules = Authentication([])
    exchange = bench.ask(bad())
    again: list[Exchange] = []
    bench.rules = Authentication([Rule(RULE)])
    bench.it.judge_again(exchange, lambda: bench.rules, Source("a", "1"), again.append)
    assert again == [exchange]


def test_a_token_ends_what_goes_on_by_it() -> None:
    bench = Bench()
    exchange, forever = bench.ask(good(exp=NOW + 10)), bench.ask()
    bench.round()
    for each in (exchange, forever):
        bench.rig.stand(each)
        bench.it.expire(each)
    bench.rig.clock.now += 10 + SKEW_SECONDS - 1
    bench.it.expire(exchange)
    assert not exchange.over
    bench.rig.clock.now += 2
    for each in (exchange, exchange, forever):
        bench.it.expire(each)
    assert (exchange.status, exchange.details) == (401, "jwt_authn_access_denied{Jwt_is_expired}")
    assert (forever.over, bench.why) == (False, ["Jwt is expired"])


# In a waypoint.

GUARDED = replace(SERVICE, jwt_policies=("shop/p",))
POLICY = JwtPolicy("p", "shop", (RULE,))


def get(text: bytes = b"", more: bytes = b"") -> bytes:
    credentials = b"Authorization: Bearer " + text + b"\r\n" if text else b""
    return b"GET /x HTTP/1.1\r\nHost: web\r\n" + credentials + more + b"\r\n"


@pytest.fixture
def mesh(lab: Lab) -> Mesh:
    made = Mesh(lab, ME, CALLER, *SERVERS, GUARDED, POLICY)
    made.parts.authenticator = Authenticator(lab.engine, lambda: NOW)
    return made


def test_a_server_is_told_who_it_is_and_not_the_token(lab: Lab, mesh: Mesh) -> None:
    client, _heard = mesh.open("10.1.0.1:80")
    client.write(get(good(), b"x-user: root\r\n"))
    _, asked = mesh.serve()
    lab.go(until=lambda: b"\r\n\r\n" in asked.got)
    assert b"x-user: alice\r\n" in asked.got
    assert b"root" not in asked.got
    assert b"authorization" not in asked.got.lower()


@pytest.mark.parametrize(
    ("text", "status", "body"),
    [
        (good(exp=1), b"401", b"Jwt is expired"),
        (token(claims(), "EdDSA", key=key_of("EdDSA", "x")), b"401", b"Jwt verification fails"),
        (good(iss="x"), b"401", b"Jwt issuer is not configured"),
    ],
)
def test_a_request_with_a_bad_token_is_refused_and_told(
    lab: Lab, mesh: Mesh, text: bytes, status: bytes, body: bytes
) -> None:
    client, heard = mesh.open("10.1.0.1:80")
    client.write(get(text))
    lab.go(until=lambda: heard.got.endswith(body))
    assert heard.got.startswith(b"HTTP/1.1 " + status)
    assert b'www-authenticate: Bearer realm="http://web/x", error="invalid_token"\r\n' in heard.got
    details = "jwt_authn_access_denied{" + body.decode().replace(" ", "_") + "}"
    assert f'"GET /x HTTP/1.1" {status.decode()} - {details} ' in mesh.lines[0]
    assert not mesh.tunnels.asked


def test_a_request_that_waits_for_its_signature_keeps_its_body(lab: Lab, mesh: Mesh) -> None:
    client, _heard = mesh.open("10.1.0.1:80")
    head = get(good(), b"Content-Length: 5\r\n").replace(b"GET", b"POST", 1)
    client.write(head + b"hello")
    _, asked = mesh.serve()
    lab.go(until=lambda: asked.got.endswith(b"hello"))


def test_nobody_passes_while_the_policy_has_not_come(lab: Lab) -> None:
    mesh = Mesh(lab, ME, CALLER, *SERVERS, GUARDED)
    client, heard = mesh.open("10.1.0.1:80")
    client.write(get())
    lab.go(until=lambda: heard.got.endswith(b"RequestAuthentication is not known here yet"))
    change(mesh, POLICY)
    client.write(get())
    _, asked = mesh.serve()
    lab.go(until=lambda: asked.got)


def with_claim(path: tuple[str, ...], text: str) -> HttpPolicy:
    term = Term(Attribute.CLAIM, (TextMatch(TextKind.EXACT, text),), (), path)
    return HttpPolicy("a", "shop", HttpAction.ALLOW, ((((term,),),),))


@pytest.mark.parametrize(
    ("path", "text", "allowed"),
    [
        (("realm", "roles"), "admin", True),
        (("realm", "roles"), "root", False),
        (("scope",), "write", True),
        (("scope",), "read write", False),
        (("sub",), "alice", True),
    ],
)
def test_policies_judge_by_claims(lab: Lab, path: tuple[str, ...], text: str, allowed: bool) -> None:
    guarded = replace(GUARDED, guards=("shop/a",))
    mesh = Mesh(lab, ME, CALLER, *SERVERS, guarded, POLICY, with_claim(path, text))
    mesh.parts.authenticator = Authenticator(lab.engine, lambda: NOW)
    client, heard = mesh.open("10.1.0.1:80")
    client.write(get(good(realm={"roles": ["user", "admin"]}, scope="read write")))
    if allowed:
        _, asked = mesh.serve()
        lab.go(until=lambda: asked.got)
    else:
        lab.go(until=lambda: b"denied" in heard.got)
    other, refused = mesh.open("10.1.0.1:80")
    other.write(get())
    lab.go(until=lambda: b"403" in refused.got)


def websocket(lab: Lab, mesh: Mesh, text: bytes) -> Callable[[], bool]:
    """One that is open; whether it has ended."""
    client, heard = mesh.open("10.1.0.1:80")
    client.write(get(text, b"Connection: upgrade\r\nUpgrade: websocket\r\n"))
    server, asked = mesh.serve()
    lab.go(until=lambda: asked.got)
    server.write(b"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhi")
    lab.go(until=lambda: heard.got.endswith(b"hi"))
    return lambda: bool(heard.words and asked.words)


def test_a_websocket_ends_with_its_token(lab: Lab) -> None:
    mesh = Mesh(lab, ME, CALLER, *SERVERS, GUARDED, POLICY)
    mesh.parts.authenticator = Authenticator(lab.engine, lambda: NOW)
    ended = websocket(lab, mesh, good(exp=NOW + 5))
    lab.clock.move(5 + SKEW_SECONDS - 1)
    mesh.parts.expire()
    assert not ended()
    lab.clock.move(2)
    mesh.parts.expire()
    lab.go(until=ended)
    assert " 101 - jwt_authn_access_denied{Jwt_is_expired} " in mesh.lines[0]
    assert not mesh.parts.guarded


def test_a_websocket_ends_when_its_key_is_none_any_more(lab: Lab, mesh: Mesh) -> None:
    ended = websocket(lab, mesh, good())
    change(mesh, replace(POLICY, rules=(replace(RULE, keys=jwks(jwk("EdDSA"), jwk("EdDSA", "k2"))),)))
    lab.go(until=lambda: mesh.parts.authenticator.proofs.proved == 2)
    assert not ended()
    change(mesh, replace(POLICY, rules=(replace(RULE, keys=jwks(jwk("EdDSA", "k2"))),)))
    lab.go(until=ended)
    assert "jwt_authn_access_denied{Jwks_doesn't_have_key_to_match_kid_or_alg" in mesh.lines[0]


def test_a_key_that_is_not_there_is_told_once_a_minute() -> None:
    bench = Bench()
    bench.rules = Authentication([Rule(replace(RULE, issuer="other"), "shop/o"), Rule(RULE, "shop/p")])

    def refused(kid: str) -> str | None:
        text = token(claims(jti=str(next(NUMBERS))), "EdDSA", kid=kid)
        exchange = bench.ask(text)
        bench.round()
        return exchange.details

    assert refused("new") == "jwt_authn_access_denied{Jwks_doesn't_have_key_to_match_kid_or_alg_from_Jwt}"
    assert bench.it.take_missed() == ("shop/p",)
    assert bench.it.take_missed() == ()
    bench.rig.clock.now += MISSED_SECONDS - 1
    refused("newer")
    assert bench.it.take_missed() == ()
    bench.rig.clock.now += 1
    refused("newest")
    assert bench.it.take_missed() == ("shop/p",)
    bench.rig.clock.now += MISSED_SECONDS
    bench.ask(token(claims(exp=1), "EdDSA"))
    bench.ask(token(claims(iss="nobody"), "EdDSA", kid="new"))
    bench.round()
    assert bench.it.take_missed() == ()
    for expected in (("shop/p",), ()):  # by another key of that name
        bench.ask(bad())
        bench.round()
        assert bench.it.take_missed() == expected
