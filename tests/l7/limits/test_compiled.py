"""Policies of rate limits, compiled: buckets that outlive a change, and what a service is asked."""

from __future__ import annotations

from dataclasses import replace

from tests.l7.limits.test_matching import asks, calls, text
from ztunnel.l7.limits.compiled import CompiledPolicy
from ztunnel.model.http_policy import Attribute
from ztunnel.model.rate_limit import (
    Descriptor,
    Entry,
    GlobalLimit,
    Limit,
    LimitKey,
    LocalRule,
    RateLimitPolicy,
)

USER = LimitKey(Attribute.HEADER, ("x-user",))
ONE = LocalRule("one", Limit(1, 60.0))
TWO = LocalRule("two", Limit(2, 60.0), (text(Attribute.PATH, "/a"),), (USER,))
POLICY = RateLimitPolicy("p", "shop", rules=(ONE, TWO))


def key(policy: CompiledPolicy, number: int, scope: str = "s", **fields: str) -> str | None:
    return policy.rules[number].key(asks(**fields), calls(), scope)


def test_each_scope_and_each_value_has_a_bucket_unless_it_is_shared() -> None:
    made = CompiledPolicy(POLICY)
    assert made.rules[1].name == "shop/p two"
    keys = [key(made, 1, scope, x_user=user) for scope in "ab" for user in ("x", "y")]
    assert len({*keys}) == 4
    shared = CompiledPolicy(replace(POLICY, rules=(replace(TWO, shared=True),)))
    keys = [key(shared, 0, scope, x_user=user) for scope in "ab" for user in ("x", "y")]
    assert len({*keys}) == 2


def test_a_rule_is_not_for_what_has_no_value_or_does_not_match() -> None:
    made = CompiledPolicy(POLICY)
    assert key(made, 1) is None
    assert key(made, 1, path="/b", x_user="x") is None
    assert made.rules[1].find(asks(path="/b"), calls(), "s", "o", 0.0) is None


def test_what_has_not_changed_goes_on_counting() -> None:
    before = CompiledPolicy(POLICY)
    changed = replace(POLICY, rules=(replace(ONE, limit=Limit(5, 60.0)), TWO, TWO), tells=True)
    now = CompiledPolicy(changed, before)
    assert now.rules[1].buckets is before.rules[1].buckets
    assert now.rules[1].policy is changed
    others = [now.rules[0].buckets, now.rules[2].buckets]
    assert all(each is not one.buckets for each in others for one in before.rules)


def test_what_a_service_is_asked() -> None:
    entries = (
        Entry("generic_key", "web"),
        Entry("user", "", USER),
        Entry("remote_address", "", LimitKey(Attribute.SOURCE_IP)),
    )
    path = Descriptor((Entry("PATH", "", LimitKey(Attribute.PATH)),), (text(Attribute.METHOD, "POST"),))
    service = GlobalLimit("rls.shop", 8081, "d", (Descriptor(entries), path))
    made = CompiledPolicy(RateLimitPolicy("p", "shop", service=service))
    found = made.descriptors(asks(x_user="x"), calls())
    assert found == [[("generic_key", "web"), ("user", "x"), ("remote_address", "10.0.0.2")]]
    assert made.descriptors(asks(x_user=""), calls()) == []
    assert made.descriptors(asks(method="POST"), calls()) == [[("PATH", "/a")]]
    assert CompiledPolicy(POLICY).descriptors(asks(), calls()) == []
