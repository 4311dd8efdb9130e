"""AuthorizationPolicy as the node proxy enforces it: what can be judged without HTTP, as istiod converts it.

Follows istio/istio pkg pilot/pkg/serviceregistry/ambient/authorization.go (convertAuthorizationPolicy): a
rule becomes the clauses `to`, `from`, then one for each `when`. An ALLOW rule with an attribute of HTTP is
left out, which allows less than was asked for; a DENY rule loses the attribute, which denies more.

Four differences, all towards what is written in the manifest. Where a source, an operation or a condition of
a DENY rule loses all that it has, it counts as met, and a rule of which nothing is left denies everything:
istiod says "enforced without them, which denies more than requested" and lets such a rule match nothing. An
empty selector selects everything, as the API says (istiod attaches the policy to nothing).
`source.serviceAccount` in `when` is enforced (istiod counts it among the attributes of HTTP). The trust
domain `cluster.local` is the mesh's own (`principal.py`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ztunnel.control.policies.principal import foreign_trust_domain, match_principals, match_text
from ztunnel.control.settings import MeshSettings
from ztunnel.model.address import IPNetwork
from ztunnel.model.policy import (
    Action,
    Clause,
    Match,
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
_DENIES_ALL = "Nothing but them stands in a rule of this DENY policy: it denies every connection."
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
        return None, ()
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
            rules.append(_rule(written, namespace, settings))
    policy = Policy(
        found.meta.name, namespace, _scope(found, settings), action, tuple(rules), is_dry_run(found)
    )
    return policy, tuple(f"{who}: {text}" for text in _warnings(found, policy, names, settings))


def _warnings(
    found: AuthorizationPolicy, policy: Policy, names: set[str], settings: MeshSettings
) -> Iterator[str]:
    if names:
        end = _ALLOWS_LESS
        if policy.action is Action.DENY:
            rules = zip(policy.rules, found.rules, strict=True)  # of a DENY none is left out
            end = _DENIES_ALL if any(not made and _unsupported(it) for made, it in rules) else _DENIES_MORE
        found_names = ", ".join(sorted(names))
        yield f"node proxies do not support HTTP attributes (found: {found_names}). {_HTTP} {end}"
    if found.meta.annotations.get("istio.io/dry-run", "") not in _TRUE + _FALSE:
        yield "istio.io/dry-run is neither true nor false: the policy is enforced"
    principals = {text for rule in found.rules for text in _values(rule, "principals")}
    namespaces = {text for rule in found.rules for text in _values(rule, "namespaces")}
    for text in sorted(principals | namespaces):
        if "*" in text[1:-1] or text == "**":
            yield f"'*' stands for anything only at one end of a value: {text!r} is compared as it is"
    for text in sorted(principals):
        if text.startswith("spiffe://"):
            yield f"principals are written without spiffe://: {text!r} matches nobody"
        elif domain := foreign_trust_domain(text, settings):
            own = f"the trust domain of the mesh, {settings.trust_domain}"
            yield f"{text!r} matches nobody: {domain} is not {own}, nor an alias of it"


def _values(rule: PolicyRule, name: str) -> Iterator[str]:
    """What stands under `principals` or `namespaces`, their negations and their keys of `when`."""
    for source in rule.sources:
        yield from source.get(name, ())
        yield from source.get(f"not{name.capitalize()}", ())
    for condition in rule.conditions:
        if condition.key == f"source.{name.removesuffix('s')}":
            yield from condition.values + condition.not_values


def is_dry_run(found: AuthorizationPolicy) -> bool:
    """Whether it is tried only."""
    return found.meta.annotations.get("istio.io/dry-run", "") in _TRUE


def _scope(found: AuthorizationPolicy, settings: MeshSettings) -> PolicyScope:
    if found.selector:
        return PolicyScope.WORKLOAD_SELECTOR
    return PolicyScope.GLOBAL if found.meta.namespace == settings.root_namespace else PolicyScope.NAMESPACE


def _unsupported(rule: PolicyRule) -> set[str]:
    """The attributes of a rule that only HTTP has, and trust domains, which a match cannot express."""
    names = {name for source in rule.sources for name in source if name in L7_SOURCES}
    names |= {name for operation in rule.operations for name in operation if name in L7_OPERATIONS}
    return names | {condition.key for condition in rule.conditions if condition.key not in _WHEN}


def _rule(rule: PolicyRule, namespace: str, settings: MeshSettings) -> Rule:
    """The clauses of a rule; one in which something has no condition that can be judged here is met."""
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
                    principals=match_principals(it.get("principals", ()), settings),
                    not_principals=match_principals(it.get("notPrincipals", ()), settings),
                    service_accounts=_accounts(it.get("serviceAccounts"), namespace),
                    not_service_accounts=_accounts(it.get("notServiceAccounts"), namespace),
                    source_ips=_blocks(it.get("ipBlocks")),
                    not_source_ips=_blocks(it.get("notIpBlocks")),
                )
                for it in rule.sources
            )
        )
    clauses += [(_when(condition, namespace, settings),) for condition in rule.conditions]
    return tuple(clause for clause in clauses if Match() not in clause)


_WHEN = (
    "source.ip",
    "source.namespace",
    "source.principal",
    "source.serviceAccount",
    "destination.ip",
    "destination.port",
)


def _when(condition: Condition, namespace: str, settings: MeshSettings) -> Match:
    """One condition; a key that only HTTP has leaves an empty match."""
    values, others = condition.values, condition.not_values
    if condition.key == "source.ip":
        return Match(source_ips=_blocks(values), not_source_ips=_blocks(others))
    if condition.key == "source.namespace":
        return Match(namespaces=_texts(values), not_namespaces=_texts(others))
    if condition.key == "source.principal":
        return Match(
            principals=match_principals(values, settings),
            not_principals=match_principals(others, settings),
        )
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
    return tuple(map(match_text, values or ()))


def _accounts(values: Iterable[str] | None, namespace: str) -> tuple[ServiceAccountMatch, ...]:
    """`[namespace/]name`; the policy's own namespace where none is given."""
    found = (value.rpartition("/") for value in values or ())
    return tuple(ServiceAccountMatch(given or namespace, name) for given, _, name in found)


def _ports(values: Iterable[str] | None) -> tuple[int, ...]:
    return tuple(map(int, values or ()))


def _blocks(values: Iterable[str] | None) -> tuple[IPNetwork, ...]:
    return tuple(map(parse_block, values or ()))
