"""Why a policy of a waypoint matches a request or does not, in words for the operator."""

from __future__ import annotations

from typing import Final, NamedTuple

from ztunnel.l7.policy.attributes import Attributes
from ztunnel.l7.policy.rule import Clause, CompiledRule, Match
from ztunnel.l7.policy.term import CompiledTerm
from ztunnel.model.connection import Connection
from ztunnel.model.http_policy import HttpAction, HttpPolicy

_RULES: Final = 5
"""Explained of a policy that does not match; of more, how many there are."""


def explain_policy(
    policy: HttpPolicy, connection: Connection, attributes: Attributes | None, sni: str | None = ""
) -> tuple[bool, str]:
    """Whether it matches, and which rule does, counted from 1; or for each rule what is otherwise, by the
    names of AuthorizationPolicy. Without `attributes` the connection is no HTTP; `sni` as of
    `Authorization.judge`."""
    if not policy.rules:
        return False, "it has no rules"
    failing = []
    for number in range(len(policy.rules)):
        rule = CompiledRule(policy, number)
        missing = _missing(rule, _Looked(connection, attributes, sni))
        if missing is None:
            return True, f"rule {number + 1} {'matches' if rule.clauses else 'has no conditions'}"
        failing.append(f"rule {number + 1}: {missing}")
    more = [f"{len(failing) - _RULES} more"] if len(failing) > _RULES else []
    return False, "; ".join(failing[:_RULES] + more)


class _Looked(NamedTuple):
    """What is looked at."""

    connection: Connection
    attributes: Attributes | None
    sni: str | None


def _missing(rule: CompiledRule, at: _Looked) -> str | None:
    """What keeps the first false clause from holding; None: nothing does."""
    if at.attributes is None and rule.has_http and rule.action is HttpAction.ALLOW:
        return "needs HTTP, and this is none"
    for clause in rule.clauses:
        names = _failing(clause, at)
        if names:
            return " or ".join(dict.fromkeys(names))
    return None


def _failing(clause: Clause, at: _Looked) -> list[str]:
    """The first term of each match that does not hold; empty: one match holds."""
    found = [_first(match, at) for match in clause]
    return [] if None in found else [name for name in found if name is not None]


def _first(match: Match, at: _Looked) -> str | None:
    return next((_name(term) for term in match if not _holds(term, at)), None)


def _holds(term: CompiledTerm, at: _Looked) -> bool:
    if term.of_connection:
        return term.holds_of_connection(at.connection, at.sni)
    return at.attributes is None or term.holds_of_request(at.attributes)


def _name(term: CompiledTerm) -> str:
    named = term.attribute.value in ("request.headers", "request.auth.claims")
    return term.attribute.value + "".join(f"[{each}]" for each in term.argument if named)
