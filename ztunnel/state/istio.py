"""Istio's security resources read from manifests, strictly: a misspelled field in a policy is a hole in it.

Fields are those of security.istio.io/v1 (v1beta1 is the same schema); what else is checked is what istiod's
validation refuses (istio/istio pkg/config/validation: ValidateAuthorizationPolicy,
ValidatePeerAuthentication)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_interface
from typing import Final

from ztunnel.model.address import IPNetwork
from ztunnel.state.field import Field
from ztunnel.state.meta import Meta, read_labels, read_meta

L4_SOURCES: Final = (
    "principals",
    "notPrincipals",
    "namespaces",
    "notNamespaces",
    "serviceAccounts",
    "notServiceAccounts",
    "ipBlocks",
    "notIpBlocks",
)
L7_SOURCES: Final = (
    "requestPrincipals",
    "notRequestPrincipals",
    "remoteIpBlocks",
    "notRemoteIpBlocks",
    "trustDomains",
    "notTrustDomains",
)
L4_OPERATIONS: Final = ("ports", "notPorts")
L7_OPERATIONS: Final = ("hosts", "notHosts", "methods", "notMethods", "paths", "notPaths")

_KEYS = re.compile(
    r"request\.headers\[.+\]|source\.(ip|namespace|principal|serviceAccount|trustDomain)|remote\.ip"
    r"|request\.auth\.(principal|audiences|presenter|claims\[.+\])|destination\.(ip|port)|connection\.sni"
    r"|experimental\.envoy\.filters\..+"
)
_ACCOUNT = re.compile(r"([a-z0-9.-]+/)?[a-z0-9.-]+")
_LITERAL = re.compile(r"[a-zA-Z0-9._~%!$&'()+,;:@=-]+")
_MAX_RULES = 512
_NO_TEXT = "\0"
_MAPPED = IPv6Network("::ffff:0:0/96")


class Mode(StrEnum):
    """PeerAuthentication's modes."""

    UNSET = "UNSET"
    DISABLE = "DISABLE"
    PERMISSIVE = "PERMISSIVE"
    STRICT = "STRICT"


@dataclass(frozen=True, slots=True)
class Condition:
    """An entry of `when`."""

    key: str
    values: tuple[str, ...]
    not_values: tuple[str, ...]


Attributes = Mapping[str, tuple[str, ...]]
"""Fields of a `source` or `operation` that are not empty, by their names in the manifest."""


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """A rule: `from` OR, AND `to` OR, AND `when` AND."""

    sources: tuple[Attributes, ...]
    operations: tuple[Attributes, ...]
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class AuthorizationPolicy:
    """An AuthorizationPolicy. An empty selector selects everything, as none does; `targets` are for
    waypoints. `provider` is who is to be asked, of CUSTOM."""

    meta: Meta
    action: str
    selector: Mapping[str, str]
    targets: tuple[str, ...]
    rules: tuple[PolicyRule, ...]
    provider: str = ""


@dataclass(frozen=True, slots=True)
class PeerAuthentication:
    """A PeerAuthentication; `ports` holds the modes of workload ports."""

    meta: Meta
    selector: Mapping[str, str]
    mode: Mode
    ports: Mapping[int, Mode]


def parse_block(text: str) -> IPNetwork:
    """An address or CIDR; host bits are ignored, a v4-mapped range is the IPv4 range it maps.

    Raises:
        ValueError: it is neither.
    """
    _, separator, length = text.partition("/")
    if "%" in text or (separator and not length.isdigit()):
        raise ValueError(f"neither an address nor a CIDR: {text!r}")
    network = ip_interface(text).network
    if isinstance(network, IPv6Network) and network.prefixlen >= 96 and network.subnet_of(_MAPPED):
        return IPv4Network((network.network_address.packed[12:], network.prefixlen - 96))
    return network


def read_authorization_policy(root: Field) -> AuthorizationPolicy:
    """security.istio.io AuthorizationPolicy."""
    meta, spec = read_meta(root), root.sub("spec")
    if spec is None:
        return AuthorizationPolicy(meta, "ALLOW", {}, (), ())
    spec.only(["action", "provider", "rules", "selector", "targetRef", "targetRefs"])
    action = _action(spec)
    rules = spec.each("rules")
    if len(rules) > _MAX_RULES:
        spec.fault(f"more than {_MAX_RULES} rules")
        rules = []
    if action == "DENY" and not rules:
        spec.fault("DENY without rules never matches; an empty rule `{}` matches everything")
    return AuthorizationPolicy(
        meta,
        action,
        read_selector(spec),
        read_targets(spec),
        tuple(map(_rule, rules)),
        provider.text("name") if (provider := spec.sub("provider")) is not None else "",
    )


def read_peer_authentication(root: Field) -> PeerAuthentication:
    """security.istio.io PeerAuthentication."""
    meta, spec = read_meta(root), root.sub("spec")
    if spec is None:
        return PeerAuthentication(meta, {}, Mode.UNSET, {})
    spec.only(["mtls", "portLevelMtls", "selector"])
    selector, ports = read_selector(spec), {}
    levels = spec.sub("portLevelMtls")
    for key, place in levels.pairs() if levels else ():
        if _is_port(key):
            ports[int(key)] = _mode(place)
        else:
            place.fault("a port is a number from 1 to 65535")
    if levels and not selector:
        levels.fault("portLevelMtls needs a selector with matchLabels")
    mtls = spec.sub("mtls")
    return PeerAuthentication(meta, selector, _mode(mtls) if mtls else Mode.UNSET, ports)


def read_selector(spec: Field) -> dict[str, str]:
    """`selector.matchLabels`; nothing else can stand in an Istio selector."""
    selector = spec.sub("selector")
    if selector is None:
        return {}
    selector.only(["matchLabels"])
    return read_labels(selector, "matchLabels")


def read_targets(spec: Field) -> tuple[str, ...]:
    """`targetRefs`, and `targetRef`, each as `Kind name`; they exclude a selector."""
    targets = spec.each("targetRefs") + [place for place in [spec.sub("targetRef")] if place]
    if targets and spec.sub("selector") is not None:
        spec.fault("selector and targetRefs exclude each other")
    return tuple(map(_target, targets))


def _action(spec: Field) -> str:
    place = spec.sub("action")
    action = "ALLOW" if place is None else place.as_text("ALLOW")
    if place is not None and action not in ("ALLOW", "DENY", "AUDIT", "CUSTOM"):
        place.fault("must be one of ALLOW, DENY, AUDIT, CUSTOM")
        return "ALLOW"
    provider = spec.sub("provider")
    if provider is not None:
        provider.only(["name"])
        if action != "CUSTOM":
            provider.fault("a provider stands with the action CUSTOM only")
    return action


def _target(place: Field) -> str:
    place.only(["group", "kind", "name", "namespace"])
    if not place.text("kind") or not place.text("name"):
        place.fault("kind and name are needed")
    return f"{place.text('kind')} {place.text('name')}"


def _rule(place: Field) -> PolicyRule:
    place.only(["from", "to", "when"])
    for name in ("from", "to"):
        below = place.sub(name)
        if below is not None and not place.each(name):
            below.fault("must not be empty: leave it out to match everything")
    return PolicyRule(
        tuple(_attributes(source, "source", L4_SOURCES, L7_SOURCES) for source in place.each("from")),
        tuple(
            _attributes(operation, "operation", L4_OPERATIONS, L7_OPERATIONS)
            for operation in place.each("to")
        ),
        tuple(map(_condition, place.each("when"))),
    )


def _attributes(entry: Field, name: str, l4: tuple[str, ...], l7: tuple[str, ...]) -> Attributes:
    """The lists of a `source` or `operation`, each value checked by what its field means."""
    entry.only([name])
    place = entry.sub(name)
    if place is None:
        entry.fault(f"{name} is missing")
        return {}
    place.only(l4 + l7)
    found = {field: _values(place, field, field) for field in l4 + l7 if place.sub(field) is not None}
    found = {field: values for field, values in found.items() if values}
    if not found:
        place.fault("needs at least one attribute")
    accounts = {"serviceAccounts", "notServiceAccounts"} & found.keys()
    if accounts and {"principals", "notPrincipals", "namespaces", "notNamespaces"} & found.keys():
        place.fault("serviceAccounts cannot stand with namespaces or principals")
    return found


def _condition(place: Field) -> Condition:
    place.only(["key", "notValues", "values"])
    key = place.text("key")
    if not _KEYS.fullmatch(key):
        place.fault(f"not a key of a condition: {key!r}")
    values, not_values = _values(place, "values", key), _values(place, "notValues", key)
    if not values and not not_values:
        place.fault("needs values or notValues")
    return Condition(key, values, not_values)


def _values(parent: Field, name: str, meaning: str) -> tuple[str, ...]:
    places = parent.each(name)
    if meaning in ("ipBlocks", "notIpBlocks", "remoteIpBlocks", "notRemoteIpBlocks") or meaning.endswith(
        ".ip"
    ):
        return tuple(_checked(places, _is_block, "neither an address nor a CIDR"))
    if meaning in ("ports", "notPorts", "destination.port"):
        return tuple(_checked(places, _is_port, "a port is a number from 1 to 65535, in quotes"))
    if meaning in ("serviceAccounts", "notServiceAccounts", "source.serviceAccount"):
        return tuple(
            _checked(places, _is_account, "a service account is written [namespace/]name, without wildcards")
        )
    if meaning in ("paths", "notPaths"):
        message = (
            "a template has {*} or {**} alone between slashes, {**} last of these, and nothing else of { } *"
        )
        return tuple(_checked(places, _is_path, message))
    return tuple(_checked(places, bool, "must not be empty"))


def _checked(places: Iterable[Field], is_right: Callable[[str], bool], message: str) -> Iterator[str]:
    for place in places:
        text = place.as_text(_NO_TEXT)
        if text != _NO_TEXT and not is_right(text):
            place.fault(message)
        yield text


def _is_block(text: str) -> bool:
    try:
        parse_block(text)
    except ValueError:
        return False
    return True


def _is_port(text: str) -> bool:
    return len(text) <= 5 and text.isascii() and text.isdigit() and 0 < int(text) < 65536


def _is_path(text: str) -> bool:
    """A path, or a template of one (istio/istio pkg/config/security: CheckValidPathTemplate)."""
    parts = text.strip("/").split("/")
    is_template, last = "{*}" in text or "{**}" in text, False
    for part in parts:
        if part in ("{*}", "{**}"):
            if last:
                return False
            last = part == "{**}"
        elif "{" in part or "}" in part or (is_template and not _LITERAL.fullmatch(part)):
            return False
    return bool(text)


def _is_account(text: str) -> bool:
    return len(text) <= 320 and _ACCOUNT.fullmatch(text) is not None


def _mode(place: Field) -> Mode:
    place.only(["mode"])
    below = place.sub("mode")
    if below is None:
        return Mode.UNSET
    if below.as_text() not in list(Mode):
        below.fault(f"must be one of {', '.join(Mode)}")
        return Mode.UNSET
    return Mode(below.as_text())
