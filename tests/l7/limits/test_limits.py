"""Whether a request may pass by the limits that are counted here, and what its response tells of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.l7.limits.test_compiled import ONE, POLICY, TWO, USER
from tests.l7.limits.test_matching import asks, calls
from ztunnel.l7.limits.buckets import MOST_KEYS
from ztunnel.l7.limits.limits import Outcome, RateLimits, decide
from ztunnel.l7.reply import render
from ztunnel.model.http_policy import Attribute, Term, TextKind, TextMatch
from ztunnel.model.rate_limit import Limit, LimitKey, LocalRule, RateLimitPolicy


class Bench:
    """Limits over one policy, that may change."""

    def __init__(self, *rules: LocalRule, **more: bool) -> None:
        self.limits = RateLimits()
        self.policies = {"shop/p": RateLimitPolicy("p", "shop", rules=rules, **more)}

    def ask(self, now: float = 0.0, scope: str = "s", **fields: str) -> Outcome:
        found = self.limits.of(self.policies, ["shop/p"], "")
        return decide(found, asks(**fields), calls(), scope, now)


def test_a_request_without_a_token_is_answered_429() -> None:
    bench = Bench(ONE)
    assert bench.ask() == Outcome(counted=1)
    found = bench.ask()
    assert found.reply is not None
    assert found.by is not None
    assert (found.reply.status, found.reply.flag, found.reply.details) == (429, "RL", "local_rate_limited")
    assert found.by.name == "shop/p one"
    fields, body = render(found.reply, grpc=False)
    assert (b"x-envoy-ratelimited", b"true") in fields
    assert body == b"local_rate_limited"
    assert bench.ask(now=60.0).reply is None
    assert bench.ask(scope="other").reply is None


@pytest.mark.parametrize(("exhausted", "code"), [(False, b"14"), (True, b"8")])
def test_a_client_of_grpc_is_told_as_envoy_tells_it(exhausted: bool, code: bytes) -> None:
    bench = Bench(ONE, exhausted=exhausted)
    bench.ask()
    reply = bench.ask().reply
    assert reply is not None
    fields, _ = render(reply, grpc=True)
    assert (b":status", b"200") in fields
    assert (b"grpc-status", code) in fields
    assert (b"x-envoy-ratelimited", b"true") in fields


def test_a_request_takes_a_token_of_every_rule_or_of_none() -> None:
    bench = Bench(LocalRule("few", Limit(1, 60.0)), LocalRule("many", Limit(3, 60.0)), tells=True)
    assert bench.ask().fields[1] == (b"x-ratelimit-remaining", b"0")
    assert [bench.ask().reply is None for _ in range(5)] == [False] * 5
    many = bench.limits.of(bench.policies, ["shop/p"], "")[0].rules[1]
    found = many.find(asks(), calls(), "s", "o", 0.0)
    assert found is not None
    assert int(found.tokens) == 2


def test_what_no_rule_is_for_passes() -> None:
    bench = Bench(TWO)
    for _ in range(5):
        assert bench.ask(path="/b") == Outcome()
    assert [bench.ask(x_user="x").reply is None for _ in range(3)] == [True, True, False]
    assert bench.ask(x_user="y").reply is None


def test_responses_tell_limits_where_that_is_wanted() -> None:
    tells = Bench(LocalRule("r", Limit(4, 60.0, 1)), tells=True)
    names = [name for name, _ in tells.ask().fields]
    assert names == [b"x-ratelimit-limit", b"x-ratelimit-remaining", b"x-ratelimit-reset"]
    found = [[value for _, value in tells.ask(now=0.5).fields] for _ in range(5)]
    assert found[0] == [b"5", b"3", b"15"]
    assert found[-1] == [b"5", b"0", b"15"]
    assert Bench(ONE).ask().fields == ()
    never = Bench(LocalRule("r", Limit(0, 1.0)), tells=True).ask()
    assert never.reply is not None
    assert dict(never.fields)[b"x-ratelimit-reset"] == b"%d" % (366 * 86400)


def test_a_change_of_another_policy_counts_nothing_anew() -> None:
    bench = Bench(ONE)
    bench.ask()
    bench.policies = {**bench.policies, "shop/q": replace(POLICY, name="q")}
    assert bench.ask().reply is not None
    bench.policies = {"shop/p": replace(bench.policies["shop/p"], tells=True)}
    assert bench.ask().reply is not None
    bench.policies = {}
    assert bench.ask() == Outcome()
    assert bench.limits.keys == 0


def test_policies_are_found_by_the_route_as_well() -> None:
    limits = RateLimits()
    policies = {
        "shop/r": RateLimitPolicy("r", "shop", routes=("HTTPRoute shop/web",), rules=(ONE,)),
        "shop/p": POLICY,
    }
    assert limits.names_routes(policies)
    assert not limits.names_routes({"shop/p": POLICY})

    def names(route: str) -> list[str]:
        return [each.policy.key for each in limits.of(policies, ["shop/p", "shop/lost"], route)]

    assert names("HTTPRoute shop/web") == ["shop/p", "shop/r"]
    assert names("HTTPRoute shop/other") == names("") == ["shop/p"]


def test_evictions_are_counted_over_changes() -> None:
    rule = LocalRule("r", Limit(1, 3600.0), keys=(USER,))
    bench = Bench(rule)
    for number in range(MOST_KEYS + 3):
        bench.ask(x_user=str(number))
    assert (bench.limits.keys, bench.limits.evicted) == (MOST_KEYS, 3)
    bench.policies = {"shop/p": replace(bench.policies["shop/p"], rules=(ONE,))}
    bench.ask()
    assert (bench.limits.keys, bench.limits.evicted) == (1, 3)
    bench.policies = {}
    bench.ask()
    assert (bench.limits.keys, bench.limits.evicted) == (0, 3)


# What has failed elsewhere.


def test_rules_for_the_same_requests_each_count() -> None:
    """envoyproxy/gateway#8632: two limits for each address were refused as one."""
    key = LimitKey(Attribute.SOURCE_IP)
    second = LocalRule("a second", Limit(2, 1.0), keys=(key,))
    bench = Bench(second, LocalRule("a minute", Limit(3, 60.0), keys=(key,)))
    found = [bench.ask(now=float(now)).by for now in (0, 0, 0, 1, 1, 1)]
    assert [one.rule.name if one is not None else "" for one in found] == [
        "", "", "a second", "", "a minute", "a minute",
    ]  # fmt: skip


def test_headers_of_one_rule_all_have_to_match() -> None:
    """envoyproxy/gateway#2564."""
    terms = tuple(
        Term(Attribute.HEADER, (TextMatch(TextKind.EXACT, value),), (), (name,))
        for name, value in (("x-user-id", "one"), ("x-user-org", "acme"))
    )
    bench = Bench(LocalRule("both", Limit(1, 60.0), terms))
    for _ in range(3):
        assert bench.ask(x_user_id="one").reply is None
        assert bench.ask(x_user_id="one", x_user_org="other").reply is None
    found = [bench.ask(x_user_id="one", x_user_org="acme").reply is None for _ in range(2)]
    assert found == [True, False]


def test_what_is_refused_costs_other_rules_nothing() -> None:
    """envoyproxy/envoy#24682: who was over its own limit used up everybody's."""
    flood = Term(Attribute.HEADER, (TextMatch(TextKind.EXACT, "flood"),), (), ("x-user",))
    bench = Bench(LocalRule("all", Limit(10, 60.0)), LocalRule("one", Limit(1, 60.0), (flood,)))
    for _ in range(50):
        bench.ask(x_user="flood")
    assert [bench.ask().reply is None for _ in range(10)] == [True] * 9 + [False]


def test_a_limit_that_is_changed_counts_from_then_on() -> None:
    """scality/cloudserver#6046: the old one stayed; nuetzliches/hookaido#239: any reload filled all."""
    bench = Bench(LocalRule("r", Limit(1, 60.0)), ONE)
    bench.ask()
    policy = bench.policies["shop/p"]
    bench.policies = {"shop/p": replace(policy, rules=(LocalRule("r", Limit(5, 60.0)), ONE))}
    out = bench.ask()
    assert out.by is not None
    assert out.by.rule is ONE
    bench.policies = {"shop/p": replace(policy, rules=(LocalRule("r", Limit(2, 60.0)),))}
    assert [bench.ask().reply is None for _ in range(3)] == [True, True, False]


def test_a_limit_that_is_to_be_hidden_is_not_told_beside_one_that_is() -> None:
    """envoyproxy/gateway#8279: a quota is for clients to see, a limit against floods is not."""
    limits = RateLimits()
    quota = RateLimitPolicy("quota", "shop", rules=(LocalRule("q", Limit(100, 60.0)),), tells=True)
    flood = RateLimitPolicy("flood", "shop", rules=(LocalRule("f", Limit(1, 60.0)),))
    policies = {each.key: each for each in (quota, flood)}
    found = limits.of(policies, policies, "")
    told = [decide(found, asks(), calls(), "s", 0.0) for _ in range(2)]
    assert dict(told[0].fields)[b"x-ratelimit-limit"] == b"100"
    assert told[1].by is not None
    assert (told[1].by.policy, told[1].fields) == (flood, ())
