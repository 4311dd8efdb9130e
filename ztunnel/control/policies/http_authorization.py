"""AuthorizationPolicy as a waypoint enforces it: every field, as istiod makes Envoy's RBAC of it.

Follows istio/istio pilot/pkg/security/authz/model (generator.go, model.go). What cannot be judged here, the
metadata of Envoy's filters (`experimental.envoy.filters.*`), makes an ALLOW policy allow less and any other
match more, as with istiod where it cannot express something."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from ztunnel.control.policies.authorization import is_dry_run
from ztunnel.control.policies.principal import match_principals, match_text
from ztunnel.control.settings import MeshSettings
from ztunnel.model.http_policy import (
    Attribute,
    HttpAction,
    HttpClause,
    HttpMatch,
    HttpPolicy,
    HttpRule,
    Term,
    TextKind,
    TextMatch,
    Value,
)
from ztunnel.state.istio import Attributes, AuthorizationPolicy, Condition, PolicyRule, parse_block

_SOURCES: Final[Mapping[str, tuple[str, Attribute]]] = {
    "principals": ("notPrincipals", Attribute.PRINCIPAL),
    "requestPrincipals": ("notRequestPrincipals", Attribute.REQUEST_PRINCIPAL),
    "namespaces": ("notNamespaces", Attribute.NAMESPACE),
    "serviceAccounts": ("notServiceAccounts", Attribute.SERVICE_ACCOUNT),
    "trustDomains": ("notTrustDomains", Attribute.TRUST_DOMAIN),
    "ipBlocks": ("notIpBlocks", Attribute.SOURCE_IP),
    "remoteIpBlocks": ("notRemoteIpBlocks", Attribute.REMOTE_IP),
}
_OPERATIONS: Final[Mapping[str, tuple[str, Attribute]]] = {
    "hosts": ("notHosts", Attribute.HOST),
    "methods": ("notMethods", Attribute.METHOD),
    "paths": ("notPaths", Attribute.PATH),
    "ports": ("notPorts", Attribute.DESTINATION_PORT),
}
_BRACKETS = re.compile(r"\[([^\[\]]+)\]")
_TEMPLATE = re.compile(r"\{\*{1,2}\}")

Read = Callable[[str], Iterable[Value]]


def convert_http_authorization(
    found: AuthorizationPolicy, settings: MeshSettings
) -> tuple[HttpPolicy, tuple[str, ...]]:
    """The policy for waypoints; and what the operator should know."""
    action = HttpAction[found.action]
    rules: list[HttpRule] = []
    unsupported: dict[str, None] = {}
    for written in found.rules:
        keys = [one.key for one in written.conditions if _attribute_of(one.key) is None]
        unsupported.update(dict.fromkeys(keys))
        if action is HttpAction.ALLOW and keys:
            continue
        rules.append(_rule(written, found.meta.namespace, settings))
    policy = HttpPolicy(
        found.meta.name, found.meta.namespace, action, tuple(rules), is_dry_run(found), found.provider
    )
    return policy, tuple(_remarks(policy, unsupported, _odd(found.rules)))


def _remarks(policy: HttpPolicy, unsupported: Iterable[str], odd: Iterable[str]) -> Iterable[str]:
    who = f"AuthorizationPolicy {policy.key}"
    if names := ", ".join(unsupported):
        end = (
            "rules that have them are omitted, which allows less than requested"
            if policy.action is HttpAction.ALLOW
            else "the policy is enforced without them, which concerns more than requested"
        )
        yield f"{who}: waypoints do not support attributes of Envoy alone (found: {names}): {end}"
    for text in odd:
        yield f"{who}: '*' stands for anything only at one end of a value: {text!r} is compared as it is"


def _odd(rules: Iterable[PolicyRule]) -> list[str]:
    """The texts with a `*` that stands for nothing but itself."""
    found: set[str] = set()
    for rule in rules:
        for names, written in ((_SOURCES, rule.sources), (_OPERATIONS, rule.operations)):
            for name, (negated, attribute) in names.items():
                for each in written:
                    texts = (*each.get(name, ()), *each.get(negated, ()))
                    found.update(text for text in texts if _is_odd(attribute, text))
        for it in rule.conditions:
            attribute_of = _attribute_of(it.key)
            if attribute_of is not None:
                found.update(text for text in it.values + it.not_values if _is_odd(attribute_of, text))
    return sorted(found)


def _is_odd(attribute: Attribute, text: str) -> bool:
    if attribute is Attribute.NAMESPACE or (attribute is Attribute.PATH and _TEMPLATE.search(text)):
        return False
    if attribute is Attribute.SERVICE_ACCOUNT:
        return "*" in text
    return "*" in match_text(text).text


def _rule(written: PolicyRule, namespace: str, settings: MeshSettings) -> HttpRule:
    clauses: list[HttpClause] = []
    if written.sources:
        clauses.append(tuple(_match(it, _SOURCES, namespace, settings) for it in written.sources))
    if written.operations:
        clauses.append(tuple(_match(it, _OPERATIONS, namespace, settings) for it in written.operations))
    for condition in written.conditions:
        attribute = _attribute_of(condition.key)
        if attribute is not None:
            clauses.append(((_condition(condition, attribute, namespace, settings),),))
    return tuple(clauses)


def _match(
    attributes: Attributes, names: Mapping[str, tuple[str, Attribute]], namespace: str, settings: MeshSettings
) -> HttpMatch:
    terms = []
    for name, (negated, attribute) in names.items():
        values, others = attributes.get(name, ()), attributes.get(negated, ())
        if values or others:
            read = _reader(attribute, namespace, settings)
            terms.append(Term(attribute, _read(read, values), _read(read, others)))
    return tuple(terms)


def _condition(it: Condition, attribute: Attribute, namespace: str, settings: MeshSettings) -> Term:
    argument: tuple[str, ...] = ()
    if attribute is Attribute.CLAIM:
        argument = tuple(_BRACKETS.findall(it.key))
    elif attribute is Attribute.HEADER:
        argument = (it.key.removeprefix(attribute.value)[1:-1].lower(),)
    read = _reader(attribute, namespace, settings)
    return Term(attribute, _read(read, it.values), _read(read, it.not_values), argument)


def _attribute_of(key: str) -> Attribute | None:
    """That of a key of `when`; None where it cannot be judged here."""
    try:
        return Attribute(key.partition("[")[0])
    except ValueError:
        return None


def _read(read: Read, values: Iterable[str]) -> tuple[Value, ...]:
    return tuple(dict.fromkeys(one for value in values for one in read(value)))


def _reader(attribute: Attribute, namespace: str, settings: MeshSettings) -> Read:
    """What a value of that attribute is to be compared as."""
    if attribute in (Attribute.SOURCE_IP, Attribute.REMOTE_IP, Attribute.DESTINATION_IP):
        return lambda value: (parse_block(value),)
    if attribute is Attribute.DESTINATION_PORT:
        return lambda value: (int(value),)
    if attribute is Attribute.PRINCIPAL:
        return lambda value: (
            TextMatch(TextKind(one.kind.value), one.text) for one in match_principals((value,), settings)
        )
    if attribute is Attribute.SERVICE_ACCOUNT:
        return lambda value: (TextMatch(TextKind.EXACT, value if "/" in value else f"{namespace}/{value}"),)
    if attribute is Attribute.NAMESPACE:
        return lambda value: (_wildcard(value),)
    if attribute is Attribute.PATH:
        return lambda value: (
            TextMatch(TextKind.TEMPLATE, value) if _TEMPLATE.search(value) else _text(value),
        )
    return lambda value: (_text(value),)


def _text(value: str) -> TextMatch:
    found = match_text(value)
    return TextMatch(TextKind(found.kind.value), found.text)


def _wildcard(value: str) -> TextMatch:
    """istiod makes `.*` of every `*` in a namespace."""
    return TextMatch(TextKind.WILDCARD, value) if "*" in value[1:-1] else _text(value)
