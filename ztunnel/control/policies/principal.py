"""What a principal of an AuthorizationPolicy means in this mesh: `cluster.local` stands for its own trust
domain, and so does every alias of it.

Follows istio/istio pkg pilot/pkg/trustdomain (ReplaceTrustDomainAliases), which istiod does for sidecars and
waypoints alone; what a manifest says is here the same for node proxies. Beyond Istio, a wildcard behind the
trust domain (`cluster.local/ns/shop/*`) leaves it what it is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ztunnel.control.settings import MeshSettings
from ztunnel.model.policy import MatchKind, StringMatch

POINTER: Final = "cluster.local"
"""The trust domain that means the mesh's own, whatever that is."""

_PARTS: Final = 5
"""`<trust domain>/ns/<namespace>/sa/<account>`."""


def match_text(value: str) -> StringMatch:
    """A value of a policy as a comparison: `*` at one end, or alone, stands for anything."""
    if value == "*":
        return StringMatch(MatchKind.PRESENCE)
    if value.startswith("*"):
        return StringMatch(MatchKind.SUFFIX, value[1:])
    if value.endswith("*"):
        return StringMatch(MatchKind.PREFIX, value[:-1])
    return StringMatch(MatchKind.EXACT, value)


def match_principals(values: Iterable[str], settings: MeshSettings) -> tuple[StringMatch, ...]:
    """The comparisons that these principals mean, each once, in order."""
    found: dict[StringMatch, None] = {}
    for value in values:
        found.update(dict.fromkeys(match_text(one) for one in _expand(value, settings)))
    return tuple(found)


def foreign_trust_domain(value: str, settings: MeshSettings) -> str:
    """The trust domain of a principal that no identity of this mesh can have; empty where that cannot be
    said."""
    written, separator, _ = value.partition("/")
    known = (POINTER, settings.trust_domain, *settings.trust_domain_aliases)
    return "" if not separator or "*" in written or ":" in written or written in known else written


def _expand(value: str, settings: MeshSettings) -> list[str]:
    """The same principal of each trust domain that its own stands for."""
    own = (settings.trust_domain, *settings.trust_domain_aliases)
    written, separator, rest = value.partition("/")
    if not separator:
        prefix = written.removesuffix("*")
        if prefix == written or prefix.startswith("*") or not prefix or not POINTER.startswith(prefix):
            return [value]
        return [value, *(f"{domain}/*" for domain in own if not domain.startswith(prefix))]
    if not written.startswith("*"):
        return [f"{domain}/{rest}" for domain in own] if written in (POINTER, *own) else [value]
    # `*` alone is any trust domain; of `*local/ns/shop/sa/a` it is a part.
    tail = written[1:]
    if tail and value.count("/") == _PARTS - 1 and any(one.endswith(tail) for one in (POINTER, *own)):
        return [value, *(f"{domain}/{rest}" for domain in own if not domain.endswith(tail))]
    return [value]
