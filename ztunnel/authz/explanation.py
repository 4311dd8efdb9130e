"""Why a connection would be admitted or refused: each policy that was considered, and what it made of it."""

from __future__ import annotations

from dataclasses import dataclass

from ztunnel.authz.rule import matches, mismatch, rule_matches
from ztunnel.authz.verdict import judge
from ztunnel.errors import Denied
from ztunnel.model.connection import Connection
from ztunnel.model.policy import Clause, Policy, Rule
from ztunnel.model.workload import Workload
from ztunnel.state.world import World


@dataclass(frozen=True, slots=True)
class Considered:
    """One policy. `why` names the rule that matched, or for each rule the fields that did not."""

    policy: Policy
    matched: bool
    why: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """A verdict with its reasons, in the order in which policies are kept: mesh, namespace, workload."""

    admitted: bool
    verdict: str
    considered: tuple[Considered, ...]
    missing: tuple[str, ...]


def explain(world: World, destination: Workload, connection: Connection) -> Explanation:
    """Judge as `verdict.judge` does, and say why."""
    received, missing = world.policies_for(destination)
    considered = tuple(
        Considered(policy, matches(policy, connection), _why(policy, connection)) for policy in received
    )
    try:
        evidence = judge(world, destination, connection)
    except Denied as denied:
        return Explanation(False, str(denied), considered, missing)
    by = f"allowed by: {evidence.by}" if evidence.by else "no policy allows selectively, so all may connect"
    tried = f" (dry run: {evidence.dry_run})" if evidence.dry_run else ""
    return Explanation(True, by + tried, considered, missing)


def render(explanation: Explanation) -> str:
    """One line for the verdict, one for each policy."""
    lines = [f"{'ADMITTED' if explanation.admitted else 'REFUSED'}: {explanation.verdict}"]
    for each in explanation.considered:
        policy = each.policy
        scope = policy.scope.name.lower().replace("_", " ")
        action = policy.action.name + (" (dry run)" if policy.dry_run else "")
        said = "matches" if each.matched else "does not match"
        lines.append(f"  {action} {policy.key} [{scope}] {said}: {each.why}")
    lines += [f"  {key} [workload selector] has not been received" for key in explanation.missing]
    return "\n".join(lines)


def _why(policy: Policy, connection: Connection) -> str:
    if not policy.rules:
        return "it has no rules"
    for number, rule in enumerate(policy.rules, 1):
        if rule_matches(rule, connection):
            return f"rule {number}" if rule else f"rule {number} has no conditions"
    return "; ".join(
        f"rule {number}: {_failing(rule, connection)}" for number, rule in enumerate(policy.rules, 1)
    )


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
