"""A RateLimitPolicy, compiled: its buckets, and what it asks of a service."""

from __future__ import annotations

from collections.abc import Hashable

from ztunnel.l7.limits.buckets import Bucket, Buckets, key_of
from ztunnel.l7.limits.matching import Terms, value_of
from ztunnel.l7.policy.attributes import Attributes
from ztunnel.model.connection import Connection
from ztunnel.model.rate_limit import Descriptor, LocalRule, RateLimitPolicy

Entries = list[tuple[str, str]]


class CompiledRule:
    """One rule, with its buckets."""

    __slots__ = ("_terms", "buckets", "policy", "rule")

    def __init__(self, policy: RateLimitPolicy, rule: LocalRule, buckets: Buckets) -> None:
        self.policy = policy
        self.rule = rule
        self.buckets = buckets
        self._terms = Terms(rule.terms)

    @property
    def name(self) -> str:
        """In the log."""
        return f"{self.policy.key} {self.rule.name}"

    def key(self, asked: Attributes, connection: Connection, scope: str) -> str | None:
        """The key of the bucket for a request; None: the rule is not for it."""
        if not self._terms.hold(asked, connection):
            return None
        values = ["" if self.rule.shared else scope]
        for one in self.rule.keys:
            value = value_of(one, asked, connection)
            if value is None:
                return None
            values.append(value)
        return key_of(values)

    def find(
        self, asked: Attributes, connection: Connection, scope: str, owner: Hashable, now: float
    ) -> Bucket | None:
        """The bucket for a request; None: the rule is not for it."""
        key = self.key(asked, connection, scope)
        return None if key is None else self.buckets.find(key, owner, now)


class CompiledPolicy:
    """One policy. What of `before`, its last version, has not changed goes on counting."""

    __slots__ = ("_descriptors", "policy", "rules")

    def __init__(self, policy: RateLimitPolicy, before: CompiledPolicy | None = None) -> None:
        self.policy = policy
        kept = list(before.rules) if before is not None else []
        self.rules: list[CompiledRule] = []
        for rule in policy.rules:
            same = next((one for one in kept if one.rule == rule), None)
            if same is not None:
                kept.remove(same)
            buckets = same.buckets if same is not None else Buckets(rule.limit)
            self.rules.append(CompiledRule(policy, rule, buckets))
        service = policy.service
        descriptors = service.descriptors if service is not None else ()
        self._descriptors: list[tuple[Descriptor, Terms]] = [(one, Terms(one.terms)) for one in descriptors]

    def descriptors(self, asked: Attributes, connection: Connection) -> list[Entries]:
        """What its service is asked about a request; nothing: it is not."""
        found = []
        for descriptor, terms in self._descriptors:
            if terms.hold(asked, connection):
                entries = _entries(descriptor, asked, connection)
                if entries:
                    found.append(entries)
        return found


def _entries(descriptor: Descriptor, asked: Attributes, connection: Connection) -> Entries:
    """Those of one; none where a request has no value of one (as Envoy, that sends none of it then)."""
    made: Entries = []
    for entry in descriptor.entries:
        value: str | None = entry.value
        if entry.source is not None:
            value = value_of(entry.source, asked, connection)
        if not value:
            return []
        made.append((entry.key, value))
    return made
