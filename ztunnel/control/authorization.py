"""AuthorizationPolicy as the node proxy enforces it: what can be judged without HTTP, as istiod converts it.

Follows istio/istio pkg pilot/pkg/serviceregistry/ambient/authorization.go (convertAuthorizationPolicy): a
rule becomes the clauses `to`, `from`, then one for each `when`. An ALLOW rule with an attribute of HTTP is
left out, which allows less than was asked for; a DENY rule loses the attribute, which denies more, or nothing
at all where nothing is left of a clause. Two differences, both towards what is written in the manifest: an
empty selector selects everything, as the API says (istiod attaches the policy to nothing), and
`source.serviceAccount` in `when` is enforced (istiod counts it among the attributes of HTTP)."""

from __future__ import annotations

from collections.abc import Iterable

from ztunnel.control.settings import MeshSettings
from ztunnel.model.address import IPNetwork
from ztunnel.model.policy import (
    Action,
    Clause,
    Match,
    MatchKind,
    Policy,
    PolicyScope,
    Rule,
    ServiceAccountMatch,
    StringMatch,
)
from ztunnel.state.istio import (
    L7_OPERATIONS,
    L7_SOURCES,
    AuthorizationPolicy,
    Condition,
    PolicyRule,
    parse_block,
)

_HTTP = "In ambient mode a waypoint proxy enforces HTTP rules."
_NO_EFFECT = "Nothing that can be enforced is left of this DENY policy: it has no effect."
_DENIES_MORE = "The DENY policy is enforced without them, which denies more than requested."
_ALLOWS_LESS = "Rules of an ALLOW policy that have them are omitted, which allows less than requested."
_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("", "0", "f", "F", "false", "FALSE", "False")


def convert_authorization(
    found: AuthorizationPolicy, settings: MeshSettings
) -> tuple[Policy | None, tuple[str, ...]]:
    """The policy for node proxies, or None where it is not for them; and what the operator should know."""
    who = f"AuthorizationPolicy {found.meta.namespace}/{found.meta.name}"
    if found.targets:
        return None, (
            f"{who}: targets {', '.join(found.targets)}: enforced by a waypoint, not by node proxies",
        )
    if found.action in ("AUDIT", "CUSTOM"):
        return None, (f"{who}: node proxies do not support the {found.action} action",)
    action = Action[found.action]
    namespace = found.meta.namespace
    names: set[str] = set()
    rules: list[Rule] = []
    for written in found.rules:
        unsupported = _unsupported(written)
        names |= unsupported
        if action is Action.DENY or not unsupported:
            rules.append(_rule(written, namespace))
    policy = Policy(
        found.meta.name, namespace, _scope(found, settings), action, tuple(rules), _dry_run(found)
    )
    return policy, tuple(f"{who}: {text}" for text in [*_warnings(found, policy, names)])


def _warnings(found: AuthorizationPolicy, policy: Policy, names: set[str]) -> Iterable[str]:
    if names:
        end = _ALLOWS_LESS
        if policy.action is Action.DENY:
            end = _DENIES_MORE if any(map(_can_match, policy.rules)) else _NO_EFFECT
        found_names = ", ".join(sorted(names))
        yield f"node proxies do not support HTTP attributes (found: {found_names}). {_HTTP} {end}"
    if found.meta.annotations.get("istio.io/dry-run", "") not in _TRUE + _FALSE:
        yield "istio.io/dry-run is neither true nor false: the policy is enforced"
    written = {
        match.text for rule in policy.rules for clause in rule for part in clause for match in _strings(part)
    }
    for text in sorted(written):
        if "*" in text:
            yield f"'*' stands for anything only at one end of a value: {text!r} is compared as it is"
        if text.startswith("spiffe://"):
            yield f"principals are written without spiffe://: {text!r} matches nobody"


def _strings(match: Match) -> tuple[StringMatch, ...]:
    return match.principals + match.not_principals + match.namespaces + match.not_namespaces


def _dry_run(found: AuthorizationPolicy) -> bool:
    return found.meta.annotations.get("istio.io/dry-run", "") in _TRUE


def _scope(found: AuthorizationPolicy, settings: MeshSettings) -> PolicyScope:
    if found.selector:
        return PolicyScope.WORKLOAD_SELECTOR
    return PolicyScope.GLOBAL if found.meta.namespace == settings.root_namespace else PolicyScope.NAMESPACE


def _can_match(rule: Rule) -> bool:
    """Whether every clause has a match that is not empty; an empty one matches nothing."""
    return all(any(match != Match() for match in clause) for clause in rule)


def _unsupported(rule: PolicyRule) -> set[str]:
    """The attributes of a rule that only HTTP has, and trust domains, which a match cannot express."""
    names = {name for source in rule.sources for name in source if name in L7_SOURCES}
    names |= {name for operation in rule.operations for name in operation if name in L7_OPERATIONS}
    return names | {condition.key for condition in rule.conditions if condition.key not in _WHEN}


def _rule(rule: PolicyRule, namespace: str) -> Rule:
    clauses: list[Clause] = []
    if rule.operations:
        clauses.append(
            tuple(
                Match(
                    destination_ports=_ports(it.get("ports")),
                    not_destination_ports=_ports(it.get("notPorts")),
                )
                for it in rule.operations
            )
        )
    if rule.sources:
        clauses.append(
            tuple(
                Match(
                    namespaces=_texts(it.get("namespaces")),
                    not_namespaces=_texts(it.get("notNamespaces")),
                    principals=_texts(it.get("principals")),
                    not_principals=_texts(it.get("notPrincipals")),
                    service_accounts=_accounts(it.get("serviceAccounts"), namespace),
                    not_service_accounts=_accounts(it.get("notServiceAccounts"), namespace),
                    source_ips=_blocks(it.get("ipBlocks")),
                    not_source_ips=_blocks(it.get("notIpBlocks")),
                )
                for it in rule.sources
            )
        )
    return (*clauses, *((_when(condition, namespace),) for condition in rule.conditions))


_WHEN = (
    "source.ip",
    "source.namespace",
    "source.principal",
    "source.serviceAccount",
    "destination.ip",
    "destination.port",
)


def _when(condition: Condition, namespace: str) -> Match:
    """One condition; a key that only HTTP has leaves an empty match, which matches nothing."""
    values, others = condition.values, condition.not_values
    if condition.key == "source.ip":
        return Match(source_ips=_blocks(values), not_source_ips=_blocks(others))
    if condition.key == "source.namespace":
        return Match(namespaces=_texts(values), not_namespaces=_texts(others))
    if condition.key == "source.principal":
        return Match(principals=_texts(values), not_principals=_texts(others))
    if condition.key == "source.serviceAccount":
        return Match(
            service_accounts=_accounts(values, namespace), not_service_accounts=_accounts(others, namespace)
        )
    if condition.key == "destination.ip":
        return Match(destination_ips=_blocks(values), not_destination_ips=_blocks(others))
    if condition.key == "destination.port":
        return Match(destination_ports=_ports(values), not_destination_ports=_ports(others))
    return Match()


def _texts(values: Iterable[str] | None) -> tuple[StringMatch, ...]:
    return tuple(map(_text, values or ()))


def _text(value: str) -> StringMatch:
    if value == "*":
        return StringMatch(MatchKind.PRESENCE)
    if value.startswith("*"):
        return StringMatch(MatchKind.SUFFIX, value[1:])
    if value.endswith("*"):
        return StringMatch(MatchKind.PREFIX, value[:-1])
    return StringMatch(MatchKind.EXACT, value)


def _accounts(values: Iterable[str] | None, namespace: str) -> tuple[ServiceAccountMatch, ...]:
    """`[namespace/]name`; the policy's own namespace where none is given."""
    found = (value.rpartition("/") for value in values or ())
    return tuple(ServiceAccountMatch(given or namespace, name) for given, _, name in found)


def _ports(values: Iterable[str] | None) -> tuple[int, ...]:
    return tuple(map(int, values or ()))


def _blocks(values: Iterable[str] | None) -> tuple[IPNetwork, ...]:
    return tuple(map(parse_block, values or ()))
