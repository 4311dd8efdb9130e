"""Whether a policy's rules match a connection, exactly as Istio's ztunnel reads them (src/rbac.rs).

Rules OR; a rule's clauses AND; a clause's matches OR; a match's fields AND; within a field any positive has
to match and no negative may. The ends of it: no rules match nothing, a rule without clauses matches
everything, a clause without matches is true, a match without any condition matches nothing.
"""

from __future__ import annotations

from ztunnel.model.address import IPAddress, IPNetwork
from ztunnel.model.connection import Connection
from ztunnel.model.identity import SpiffeId
from ztunnel.model.policy import Clause, Match, Policy, Rule, ServiceAccountMatch, StringMatch

_UNCONDITIONAL = Match()


def matches(policy: Policy, connection: Connection) -> bool:
    """Whether the policy has anything to say about the connection; what it says is its action."""
    return any(rule_matches(rule, connection) for rule in policy.rules)


def rule_matches(rule: Rule, connection: Connection) -> bool:
    """Whether every clause of the rule is true."""
    return all(clause_matches(clause, connection) for clause in rule)


def clause_matches(clause: Clause, connection: Connection) -> bool:
    """Whether the clause has no matches, or one of them holds."""
    return not clause or any(not mismatch(match, connection) for match in clause)


def mismatch(match: Match, connection: Connection) -> str:
    """The first field that the connection does not meet, by authorization.proto's name; "" if none."""
    identity = connection.identity
    if (match.principals or match.not_principals) and not _strings(
        match.principals, match.not_principals, identity.principal if identity else None
    ):
        return "principals"
    if (match.namespaces or match.not_namespaces) and not _strings(
        match.namespaces, match.not_namespaces, identity.namespace if identity else ""
    ):
        return "namespaces"
    if (match.service_accounts or match.not_service_accounts) and not _accounts(match, identity):
        return "service_accounts"
    if (match.source_ips or match.not_source_ips) and not _ips(
        match.source_ips, match.not_source_ips, connection.source.ip
    ):
        return "source_ips"
    return _destination_mismatch(match, connection)


def _destination_mismatch(match: Match, connection: Connection) -> str:
    ip, port = connection.destination.ip, connection.destination.port
    if (match.destination_ips or match.not_destination_ips) and not _ips(
        match.destination_ips, match.not_destination_ips, ip
    ):
        return "destination_ips"
    if match.destination_ports and port not in match.destination_ports:
        return "destination_ports"
    if port in match.not_destination_ports:
        return "destination_ports"
    return "(no condition)" if match == _UNCONDITIONAL else ""


def _strings(
    positive: tuple[StringMatch, ...], negative: tuple[StringMatch, ...], candidate: str | None
) -> bool:
    """A candidate of None (nothing was proved) meets no comparison, so that no negative one excludes it."""
    if candidate is None:
        return not positive
    if positive and not any(each.matches(candidate) for each in positive):
        return False
    return not any(each.matches(candidate) for each in negative)


def _accounts(match: Match, identity: SpiffeId | None) -> bool:
    if identity is None:
        return not match.service_accounts
    account = ServiceAccountMatch(identity.namespace, identity.service_account)
    if match.service_accounts and account not in match.service_accounts:
        return False
    return account not in match.not_service_accounts


def _ips(positive: tuple[IPNetwork, ...], negative: tuple[IPNetwork, ...], ip: IPAddress) -> bool:
    if positive and not any(ip in network for network in positive):
        return False
    return not any(ip in network for network in negative)
