"""The rate limits of all requests through a waypoint: whether one may pass by those that are counted here.

A request takes a token of every rule that is for it, or of none: where one has none left it is answered 429,
and costs the others nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import ceil, floor, isinf

from ztunnel.http1.head import Fields
from ztunnel.l7.limits.buckets import Bucket
from ztunnel.l7.limits.compiled import CompiledPolicy, CompiledRule
from ztunnel.l7.policy.attributes import Attributes
from ztunnel.l7.reply import Reply
from ztunnel.model.connection import Connection
from ztunnel.model.rate_limit import RateLimitPolicy

RESOURCE_EXHAUSTED = 8
"""Of gRPC. Without it a client is told what 429 stands for: UNAVAILABLE (Envoy's default)."""

LIMITED_FIELDS: Fields = ((b"x-envoy-ratelimited", b"true"),)
_LOCAL = Reply(429, "RL", "local_rate_limited", "local_rate_limited", fields=LIMITED_FIELDS)
_LOCAL_EXHAUSTED = Reply(
    429, "RL", "local_rate_limited", "local_rate_limited", fields=LIMITED_FIELDS,
    grpc_status=RESOURCE_EXHAUSTED,
)  # fmt: skip
_ROUNDING = 1e-3
_MOST_SECONDS = 86400 * 366


@dataclass(slots=True)
class Outcome:
    """What the rules that are counted here say.

    Attributes:
        reply: what the request is answered; None: it may pass.
        by: the policy and rule that had no token for it.
        fields: for the response, whoever gives it.
        counted: how many rules are for it.
    """

    reply: Reply | None = None
    by: CompiledRule | None = None
    fields: Fields = field(default_factory=tuple)
    counted: int = 0


_Found = list[tuple[CompiledRule, Bucket]]


class RateLimits:
    """Policies are compiled once, and go on counting for as long as they are the same."""

    def __init__(self) -> None:
        self._policies: Mapping[str, RateLimitPolicy] = {}
        self._compiled: dict[str, CompiledPolicy] = {}
        self._of_route: dict[str, tuple[str, ...]] = {}
        self._evicted = 0

    @property
    def keys(self) -> int:
        """Buckets that there are."""
        return sum(len(rule.buckets) for each in self._compiled.values() for rule in each.rules)

    @property
    def evicted(self) -> int:
        """Buckets that were forgotten because there were too many."""
        return self._evicted + _evicted(self._compiled.values())

    def follow(self, policies: Mapping[str, RateLimitPolicy]) -> bool:
        """These are all that there are now; whether there are any."""
        if policies is not self._policies:
            self._change(policies)
        return bool(policies)

    def of(
        self, policies: Mapping[str, RateLimitPolicy], names: Iterable[str], route: str
    ) -> list[CompiledPolicy]:
        """Those of these names, and those that are for a route; `policies` are all that there are now. One
        that is not there (yet) limits nothing."""
        self.follow(policies)
        wanted = dict.fromkeys(names)
        if route and self._of_route:
            wanted.update(dict.fromkeys(self._of_route.get(route, ())))
        found = []
        for name in wanted:
            made = self._compiled.get(name)
            if made is None and (policy := policies.get(name)) is not None:
                made = self._compiled[name] = CompiledPolicy(policy)
            if made is not None:
                found.append(made)
        return found

    def names_routes(self, policies: Mapping[str, RateLimitPolicy]) -> bool:
        """Whether any policy is for a route."""
        self.follow(policies)
        return bool(self._of_route)

    def _change(self, policies: Mapping[str, RateLimitPolicy]) -> None:
        self._policies = policies
        before, self._compiled = self._compiled, {}
        left = list[CompiledPolicy]()
        for name, made in before.items():
            policy = policies.get(name)
            if policy is made.policy:
                self._compiled[name] = made
            elif policy is not None:
                self._compiled[name] = now = CompiledPolicy(policy, made)
                kept = {id(rule.buckets) for rule in now.rules}
                gone = [rule.buckets for rule in made.rules if id(rule.buckets) not in kept]
                self._evicted += sum(each.evicted for each in gone)
            else:
                left.append(made)
        self._evicted += _evicted(left)
        found: dict[str, list[str]] = {}
        for name, policy in policies.items():
            for route in policy.routes:
                found.setdefault(route, []).append(name)
        self._of_route = {route: tuple(sorted(names)) for route, names in found.items()}


def _evicted(policies: Iterable[CompiledPolicy]) -> int:
    return sum(rule.buckets.evicted for each in policies for rule in each.rules)


def decide(
    policies: Iterable[CompiledPolicy], asked: Attributes, connection: Connection, scope: str, now: float
) -> Outcome:
    """Whether a request may pass, by the rules of these policies; `scope` is what they are for: another one
    has buckets of its own. Tokens that it takes are gone."""
    owner = (connection.identity, connection.source.ip)
    found: _Found = []
    for policy in policies:
        for rule in policy.rules:
            bucket = rule.find(asked, connection, scope, owner, now)
            if bucket is not None:
                found.append((rule, bucket))
    if not found:
        return Outcome()
    out = next((rule for rule, bucket in found if bucket.tokens < 1), None)
    if out is None:
        for rule, bucket in found:
            rule.buckets.take(bucket)
        return Outcome(None, None, _told(found, None), len(found))
    reply = _LOCAL_EXHAUSTED if out.policy.exhausted else _LOCAL
    return Outcome(reply, out, _told(found, out), len(found))


def _told(found: _Found, out: CompiledRule | None) -> Fields:
    """What the response tells of limits: of the rule that has refused, or has the least left (the names are
    those of the IETF's draft-polli-ratelimit-headers-03, the values Envoy's local rate limit filter's)."""
    telling = [(rule, bucket) for rule, bucket in found if rule.policy.tells and (out is None or rule is out)]
    if not telling:
        return ()
    rule, bucket = min(telling, key=_left)
    wait = rule.buckets.wait_of(bucket)
    reset = _MOST_SECONDS if isinf(wait) else min(ceil(wait - _ROUNDING), _MOST_SECONDS)
    return (
        (b"x-ratelimit-limit", b"%d" % rule.rule.limit.most),
        (b"x-ratelimit-remaining", b"%d" % max(0, floor(bucket.tokens))),
        (b"x-ratelimit-reset", b"%d" % reset),
    )


def _left(one: tuple[CompiledRule, Bucket]) -> float:
    return one[1].tokens
