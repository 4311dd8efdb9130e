"""Authorization policies as messages of istio.security, both ways.

A message that says something which we cannot compare (a StringMatch without a type, a range that is none) is
refused as a whole: to leave one value out of a negative match, or all of a positive one, would let more
through."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from ipaddress import ip_network
from typing import TypeVar

from google.protobuf.empty_pb2 import Empty

from ztunnel.errors import PeerError
from ztunnel.model.address import IPNetwork
from ztunnel.model.policy import (
    Action,
    Match,
    MatchKind,
    Policy,
    PolicyScope,
    Rule,
    ServiceAccountMatch,
    StringMatch,
)
from ztunnel.xds.pb import authorization_pb2 as pb

_E = TypeVar("_E", bound=Enum)


def render_policy(policy: Policy) -> pb.Authorization:
    """The message of a policy."""
    return pb.Authorization(
        name=policy.name,
        namespace=policy.namespace,
        scope=pb.Scope.ValueType(policy.scope.value),
        action=pb.Action.ValueType(policy.action.value),
        rules=[
            pb.Rule(clauses=[pb.Clause(matches=map(_render_match, clause)) for clause in rule])
            for rule in policy.rules
        ],
        dry_run=policy.dry_run,
    )


def parse_policy(untrusted: pb.Authorization) -> Policy:
    """The policy of a message.

    Raises:
        PeerError: no name, an unknown value of an enum, a value to compare with that is none.
    """
    it = untrusted
    if not it.name or not it.namespace:
        raise PeerError("a policy needs a name and a namespace")
    rules: tuple[Rule, ...] = tuple(
        tuple(tuple(_parse_match(match) for match in clause.matches) for clause in rule.clauses)
        for rule in it.rules
    )
    return Policy(
        it.name, it.namespace, _member(PolicyScope, it.scope), _member(Action, it.action), rules, it.dry_run
    )


def _render_match(match: Match) -> pb.Match:
    return pb.Match(
        namespaces=map(_render_text, match.namespaces),
        not_namespaces=map(_render_text, match.not_namespaces),
        principals=map(_render_text, match.principals),
        not_principals=map(_render_text, match.not_principals),
        source_ips=map(_render_block, match.source_ips),
        not_source_ips=map(_render_block, match.not_source_ips),
        destination_ips=map(_render_block, match.destination_ips),
        not_destination_ips=map(_render_block, match.not_destination_ips),
        destination_ports=match.destination_ports,
        not_destination_ports=match.not_destination_ports,
        service_accounts=map(_render_account, match.service_accounts),
        not_service_accounts=map(_render_account, match.not_service_accounts),
    )


def _parse_match(untrusted: pb.Match) -> Match:
    it = untrusted
    return Match(
        namespaces=_texts(it.namespaces),
        not_namespaces=_texts(it.not_namespaces),
        principals=_texts(it.principals),
        not_principals=_texts(it.not_principals),
        service_accounts=_accounts(it.service_accounts),
        not_service_accounts=_accounts(it.not_service_accounts),
        source_ips=_blocks(it.source_ips),
        not_source_ips=_blocks(it.not_source_ips),
        destination_ips=_blocks(it.destination_ips),
        not_destination_ips=_blocks(it.not_destination_ips),
        destination_ports=_ports(it.destination_ports),
        not_destination_ports=_ports(it.not_destination_ports),
    )


def _render_text(match: StringMatch) -> pb.StringMatch:
    if match.kind is MatchKind.EXACT:
        return pb.StringMatch(exact=match.text)
    if match.kind is MatchKind.PREFIX:
        return pb.StringMatch(prefix=match.text)
    if match.kind is MatchKind.SUFFIX:
        return pb.StringMatch(suffix=match.text)
    return pb.StringMatch(presence=Empty())


def _render_block(network: IPNetwork) -> pb.Address:
    return pb.Address(address=network.network_address.packed, length=network.prefixlen)


def _render_account(match: ServiceAccountMatch) -> pb.ServiceAccountMatch:
    return pb.ServiceAccountMatch(namespace=match.namespace, serviceAccount=match.service_account)


def _texts(untrusted: Iterable[pb.StringMatch]) -> tuple[StringMatch, ...]:
    return tuple(map(_parse_text, untrusted))


def _parse_text(untrusted: pb.StringMatch) -> StringMatch:
    kind = untrusted.WhichOneof("match_type")
    if kind is None:
        raise PeerError("a comparison of a kind that is not known here")
    if kind == "presence":
        return StringMatch(MatchKind.PRESENCE)
    return StringMatch(MatchKind(kind), getattr(untrusted, kind))


def _accounts(untrusted: Iterable[pb.ServiceAccountMatch]) -> tuple[ServiceAccountMatch, ...]:
    return tuple(ServiceAccountMatch(one.namespace, one.serviceAccount) for one in untrusted)


def _blocks(untrusted: Iterable[pb.Address]) -> tuple[IPNetwork, ...]:
    return tuple(map(_parse_block, untrusted))


def _parse_block(untrusted: pb.Address) -> IPNetwork:
    if len(untrusted.address) not in (4, 16) or untrusted.length > 8 * len(untrusted.address):
        raise PeerError(
            f"not a range of addresses: {len(untrusted.address)} bytes, length {untrusted.length}"
        )
    if (
        len(untrusted.address) == 16
        and untrusted.length >= 96
        and untrusted.address[:12] == bytes(10) + b"\xff\xff"
    ):
        return ip_network((untrusted.address[12:], untrusted.length - 96), strict=False)
    return ip_network((untrusted.address, untrusted.length), strict=False)


def _ports(untrusted: Iterable[int]) -> tuple[int, ...]:
    ports = tuple(untrusted)
    if any(port > 65535 for port in ports):
        raise PeerError(f"a port is at most 65535: {max(ports)}")
    return ports


def _member(kind: type[_E], untrusted: int) -> _E:
    try:
        return kind(untrusted)
    except ValueError as error:
        raise PeerError(f"unknown {kind.__name__} {untrusted}") from error
