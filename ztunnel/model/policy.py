"""Authorization policies in the shape of Istio's authorization.proto: rules OR, clauses AND, matches OR."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ztunnel.model.address import IPNetwork


class PolicyScope(Enum):
    """authorization.proto Scope: which destinations a policy concerns."""

    GLOBAL = 0
    NAMESPACE = 1
    WORKLOAD_SELECTOR = 2


class Action(Enum):
    """authorization.proto Action."""

    ALLOW = 0
    DENY = 1


class MatchKind(Enum):
    """authorization.proto StringMatch.match_type."""

    EXACT = "exact"
    PREFIX = "prefix"
    SUFFIX = "suffix"
    PRESENCE = "presence"


@dataclass(frozen=True, slots=True)
class StringMatch:
    """One comparison with a string; `text` is empty for PRESENCE, which any non-empty string meets."""

    kind: MatchKind
    text: str = ""

    def matches(self, candidate: str) -> bool:
        """Whether `candidate` meets this comparison."""
        if self.kind is MatchKind.EXACT:
            return candidate == self.text
        if self.kind is MatchKind.PREFIX:
            return candidate.startswith(self.text)
        if self.kind is MatchKind.SUFFIX:
            return candidate.endswith(self.text)
        return candidate != ""


@dataclass(frozen=True, slots=True)
class ServiceAccountMatch:
    """A service account by namespace and name; the trust domain does not count."""

    namespace: str
    service_account: str


@dataclass(frozen=True, slots=True)
class Match:
    """Fields AND; within a field any positive must match and no negative may. A completely empty match
    matches nothing."""

    namespaces: tuple[StringMatch, ...] = ()
    not_namespaces: tuple[StringMatch, ...] = ()
    principals: tuple[StringMatch, ...] = ()
    not_principals: tuple[StringMatch, ...] = ()
    service_accounts: tuple[ServiceAccountMatch, ...] = ()
    not_service_accounts: tuple[ServiceAccountMatch, ...] = ()
    source_ips: tuple[IPNetwork, ...] = ()
    not_source_ips: tuple[IPNetwork, ...] = ()
    destination_ips: tuple[IPNetwork, ...] = ()
    not_destination_ips: tuple[IPNetwork, ...] = ()
    destination_ports: tuple[int, ...] = ()
    not_destination_ports: tuple[int, ...] = ()


Clause = tuple[Match, ...]
Rule = tuple[Clause, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy. `rules` OR; a rule's clauses AND; a clause's matches OR (ztunnel src/rbac.rs)."""

    name: str
    namespace: str
    scope: PolicyScope
    action: Action
    rules: tuple[Rule, ...] = ()
    dry_run: bool = False

    @property
    def key(self) -> str:
        """`namespace/name`: how workloads, logs and metrics name it."""
        return f"{self.namespace}/{self.name}"
