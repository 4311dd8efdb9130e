"""Why a policy matches a connection or does not, in words for the operator."""

from __future__ import annotations

from dataclasses import dataclass

from ztunnel.authz.rule import matches, mismatch, rule_matches
from ztunnel.model.connection import Connection
from ztunnel.model.policy import Action, Clause, Policy, Rule
from ztunnel.model.workload import Workload
from ztunnel.state.world import World

_RULES = 5
"""Explained of a policy that does not match; of more, how many there are."""


@dataclass(frozen=True, slots=True)
class Tried:
    """One policy that a verdict looked at.

    `action` is ALLOW or DENY, `scope` Istio's word for which destinations it concerns; both are empty for a
    policy that the workload lists and that has not been received. `decides` says whether the verdict is its,
    `why` which rule matches, or what keeps each from matching.
    """

    policy: str
    action: str
    scope: str
    matches: bool
    decides: bool
    why: str
    dry_run: bool = False


def trace(world: World, destination: Workload, connection: Connection) -> tuple[Tried, ...]:
    """Every policy that concerns a connection to `destination`, in the order in which `verdict.judge` heeds
    them: DENY, those not received, ALLOW, those under trial. At most one decides."""
    received, missing = world.policies_for(destination)
    in_force = [one for one in received if not one.dry_run]
    denying = [_try(one, connection) for one in in_force if one.action is Action.DENY]
    lost = [Tried(key, "", "", True, False, "has not been received: refused until it is") for key in missing]
    allowing = [_try(one, connection) for one in in_force if one.action is Action.ALLOW]
    tried = [*denying, *lost, *allowing]
    first = next((number for number, one in enumerate(tried) if one.matches), None)
    if first is not None:
        tried[first] = _deciding(tried[first])
    return (*tried, *(_try(one, connection) for one in received if one.dry_run))


def _try(policy: Policy, connection: Connection) -> Tried:
    hit = matches(policy, connection)
    why = explain(policy, connection)
    return Tried(policy.key, policy.action.name, policy.scope.name, hit, False, why, policy.dry_run)


def _deciding(one: Tried) -> Tried:
    return Tried(one.policy, one.action, one.scope, one.matches, True, one.why)


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
