"""Policies of waypoints as messages of ztunnel.http, both ways.

A message that says something which cannot be compared here is refused as a whole, as in `policy`: the version
before stays in force, and without one the service that names the policy is refused to everybody."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_network
from typing import Final

from ztunnel.errors import PeerError
from ztunnel.l7.regex import regex
from ztunnel.model.address import IPNetwork
from ztunnel.model.http_policy import (
    Attribute,
    HttpAction,
    HttpPolicy,
    HttpRule,
    Term,
    TextKind,
    TextMatch,
    Value,
)
from ztunnel.xds.pb import http_policy_pb2 as pb

_TEXTS: Final = {kind.value: kind for kind in TextKind if kind is not TextKind.PRESENCE}
_BLOCKS: Final = frozenset((Attribute.SOURCE_IP, Attribute.REMOTE_IP, Attribute.DESTINATION_IP))


def render_http_policy(policy: HttpPolicy) -> pb.AuthorizationPolicy:
    """The message of a policy."""
    return pb.AuthorizationPolicy(
        name=policy.name,
        namespace=policy.namespace,
        action=pb.Action.ValueType(policy.action.value),
        rules=[
            pb.Rule(
                clauses=[
                    pb.Clause(matches=[pb.Match(terms=map(render_term, match)) for match in clause])
                    for clause in rule
                ]
            )
            for rule in policy.rules
        ],
        dry_run=policy.dry_run,
        provider=policy.provider,
    )


def parse_http_policy(untrusted: pb.AuthorizationPolicy) -> HttpPolicy:
    """The policy of a message.

    Raises:
        PeerError: no name, an action or attribute that is not known, a value that is none of its attribute.
    """
    it = untrusted
    if not it.name or not it.namespace:
        raise PeerError("a policy needs a name and a namespace")
    try:
        action = HttpAction(it.action)
    except ValueError as error:
        raise PeerError(f"unknown action {it.action}") from error
    rules: tuple[HttpRule, ...] = tuple(
        tuple(
            tuple(tuple(parse_term(term) for term in match.terms) for match in clause.matches)
            for clause in rule.clauses
        )
        for rule in it.rules
    )
    return HttpPolicy(it.name, it.namespace, action, rules, it.dry_run, it.provider)


def render_term(term: Term) -> pb.Term:
    """The message of a term."""
    return pb.Term(
        attribute=term.attribute.value,
        argument=term.argument,
        values=map(_render_value, term.values),
        not_values=map(_render_value, term.not_values),
    )


def _render_value(value: Value) -> pb.Value:
    if isinstance(value, int):
        return pb.Value(port=value)
    if isinstance(value, TextMatch):
        if value.kind is TextKind.PRESENCE:
            return pb.Value(presence=True)
        made = pb.Value()
        setattr(made, value.kind.value, value.text)
        return made
    return pb.Value(block=pb.Block(address=value.network_address.packed, length=value.prefixlen))


def parse_term(untrusted: pb.Term) -> Term:
    """The term of a message.

    Raises:
        PeerError: an attribute that is not known, a value that is none of it.
    """
    try:
        attribute = Attribute(untrusted.attribute)
    except ValueError as error:
        raise PeerError(f"an attribute that is not known here: {untrusted.attribute[:80]!r}") from error
    argument = tuple(untrusted.argument)
    if attribute in (Attribute.HEADER, Attribute.CLAIM) and not argument:
        raise PeerError(f"{attribute}: of which name?")
    values = _values(attribute, untrusted.values)
    return Term(attribute, values, _values(attribute, untrusted.not_values), argument)


def _values(attribute: Attribute, untrusted: Iterable[pb.Value]) -> tuple[Value, ...]:
    return tuple(_parse_value(attribute, one) for one in untrusted)


def _parse_value(attribute: Attribute, untrusted: pb.Value) -> Value:
    kind = untrusted.WhichOneof("value")
    if attribute is Attribute.DESTINATION_PORT:
        if kind != "port" or untrusted.port > 65535:
            raise PeerError(f"{attribute}: not a port")
        return untrusted.port
    if attribute in _BLOCKS:
        if kind != "block":
            raise PeerError(f"{attribute}: not a range of addresses")
        return _parse_block(untrusted.block)
    if kind == "presence":
        return TextMatch(TextKind.PRESENCE)
    if kind is None or kind not in _TEXTS:
        raise PeerError(f"{attribute}: a comparison of a kind that is not known here")
    if kind == TextKind.REGEX.value:
        _check_pattern(attribute, untrusted.regex)
    return TextMatch(_TEXTS[kind], getattr(untrusted, kind))


def _check_pattern(attribute: Attribute, untrusted: str) -> None:
    try:
        regex(untrusted)
    except ValueError as error:
        raise PeerError(f"{attribute}: {error}") from error


def _parse_block(untrusted: pb.Block) -> IPNetwork:
    if len(untrusted.address) not in (4, 16) or untrusted.length > 8 * len(untrusted.address):
        raise PeerError(
            f"not a range of addresses: {len(untrusted.address)} bytes, length {untrusted.length}"
        )
    return ip_network((untrusted.address, untrusted.length), strict=False)
