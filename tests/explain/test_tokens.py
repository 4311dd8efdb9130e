"""Who a request speaks for at a waypoint, and what policies make of that."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.explain.test_waypoint import CLIENT, GATE, GATE_1, WEB, WEB_1, WEB_2, world_of
from tests.l7.issuers import ISSUER, claims, jwk, jwks, key_of, token
from tests.l7.policy.test_authorization import policies
from ztunnel.explain.explanation import explain_call
from ztunnel.explain.names import find_call
from ztunnel.explain.path import Path
from ztunnel.explain.waypoint import HttpCall
from ztunnel.l7.jwt.jwks import parse_keys
from ztunnel.model.jwt import ClaimHeader, JwtPolicy, JwtRule

NOW = 1_700_000_000.0
KEYS = parse_keys(jwks(jwk("EdDSA")).encode()).text
RULE = JwtRule(ISSUER, keys=KEYS, claim_headers=(ClaimHeader("x-user", "sub"),))
POLICY = JwtPolicy("t", "shop", (RULE,))
NEEDS_ONE = "{action: DENY, rules: [{from: [{source: {notRequestPrincipals: ['*']}}]}]}"


def bearing(text: bytes) -> HttpCall:
    return HttpCall(headers=(("Authorization", f"Bearer {text.decode()}"),), now=NOW)


def signed(**more: object) -> bytes:
    return token(claims(**({"exp": int(NOW) + 60} | more)), "EdDSA")


def path(http: HttpCall, *items: object, own: bool = False) -> Path:
    found = policies(NEEDS_ONE)
    web = replace(WEB, guards=tuple(found), jwt_policies=() if own else ("shop/t",))
    gate = replace(GATE, jwt_policies=("shop/t",)) if own else GATE
    world = world_of(CLIENT, gate, GATE_1, WEB_1, WEB_2, web, *found.values(), *items)
    return explain_call(world, find_call(world, "shop/client", "10.96.0.1:80"), http=http).paths[0]


@pytest.mark.parametrize("own", [False, True])
def test_a_good_token_is_who_the_request_speaks_for(own: bool) -> None:
    found = path(bearing(signed()), POLICY, own=own)
    assert found.allowed
    assert f"by its token it speaks for {ISSUER}/alice (shop/t)" in found.reason
    assert not path(HttpCall(now=NOW), POLICY, own=own).allowed


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (signed(exp=1), "answered 401 by shop/t: Jwt is expired"),
        (
            token(claims(), "EdDSA", key=key_of("EdDSA", "x")),
            "answered 401 by shop/t: Jwt verification fails",
        ),
        (signed(iss="x"), "answered 401 by shop/t: Jwt issuer is not configured"),
    ],
)
def test_a_bad_one_is_refused_before_any_policy(text: bytes, why: str) -> None:
    found = path(bearing(text), POLICY)
    assert not found.allowed
    assert found.reason.startswith("GET /: ")
    assert why in found.reason
    assert found.tried == ()


def test_keys_that_are_fetched_are_said_not_to_be_known() -> None:
    fetched = replace(POLICY, rules=(replace(RULE, keys="", keys_url="https://keys"),))
    assert f"the keys of {ISSUER} are fetched, and not known here" in path(bearing(signed()), fetched).reason


def test_what_is_not_known_decides() -> None:
    assert "the waypoint decides by shop/t, which only waypoints" in path(HttpCall(now=NOW)).reason


def test_two_calls_at_other_times_are_the_same_question() -> None:
    assert HttpCall(now=1.0) == HttpCall()
