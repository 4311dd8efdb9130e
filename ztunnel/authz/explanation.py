"""Why a policy matches a connection or does not, in words for the operator."""

from __future__ import annotations

from ztunnel.authz.rule import mismatch, rule_matches
from ztunnel.model.connection import Connection
from ztunnel.model.policy import Clause, Policy, Rule

_RULES = 5
"""Explained of a policy that does not match; of more, how many there are."""


def explain(policy: Policy, connection: Connection) -> str:
    """The rule that matches, or for each rule the fields that do not, by authorization.proto's names."""
    if not policy.rules:
        return "it has no rules"
    for number, rule in enumerate(policy.rules, 1):
        if rule_matches(rule, connection):
            return f"rule {number} matches" if rule else f"rule {number} has no conditions"
    failing = [
        f"rule {number}: {_failing(rule, connection)}" for number, rule in enumerate(policy.rules[:_RULES], 1)
    ]
    more = [f"{len(policy.rules) - _RULES} more"] if len(policy.rules) > _RULES else []
    return "; ".join(failing + more)


def _failing(rule: Rule, connection: Connection) -> str:
    """The fields that keep each match of the first false clause from holding."""
    for clause in rule:
        fields = _fields(clause, connection)
        if fields:
            return " or ".join(fields)
    return ""


def _fields(clause: Clause, connection: Connection) -> list[str]:
    found = [mismatch(match, connection) for match in clause]
    return [] if "" in found else list(dict.fromkeys(found))
