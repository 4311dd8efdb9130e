"""The verdict about one connection to a workload, as evidence: `Admitted`, or `Denied` raised.

The order is Istio's (ztunnel src/state.rs, `assert_rbac`): a DENY that matches refuses; without any ALLOW
policy the connection is admitted; an ALLOW that matches admits; otherwise it is refused. One thing is ours: a
policy that the workload lists and that has not been received refuses, where ztunnel skips it.
"""

from __future__ import annotations

from dataclasses import dataclass

from ztunnel.authz.rule import matches
from ztunnel.errors import Denied
from ztunnel.model.connection import Connection
from ztunnel.model.policy import Action, Policy
from ztunnel.model.workload import Workload
from ztunnel.state.world import World

NONE_ALLOWED = "allow policies exist, but none allowed"


@dataclass(frozen=True, slots=True)
class Admitted:
    """Evidence that policy admits a connection.

    Attributes:
        workload: the destination.
        connection: what was judged.
        by: the key of the ALLOW policy that matched; None where there are no ALLOW policies.
        dry_run: what the policies under trial would have said instead, "explicitly denied by: ..." or "allow
            policies exist, but none allowed"; empty where they would have admitted it too.
    """

    workload: Workload
    connection: Connection
    by: str | None
    dry_run: str = ""


def judge(world: World, destination: Workload, connection: Connection) -> Admitted:
    """Judge a connection by every policy that concerns its destination.

    Args:
        world: what is known.
        destination: the workload as this world knows it, for its list of policies.
        connection: its destination port is the one that the application listens on.

    Raises:
        Denied: refused, with Istio's text; `policy` is the key of the one that did, "" where none allowed.
    """
    received, missing = world.policies_for(destination)
    if not received and not missing:
        return Admitted(destination, connection, None)
    allowing: list[Policy] = []
    tried: list[Policy] = []
    for policy in received:
        if policy.dry_run:
            tried.append(policy)
        elif policy.action is Action.ALLOW:
            allowing.append(policy)
        elif matches(policy, connection):
            raise _refused(f"explicitly denied by: {policy.key}", policy.key)
    if missing:
        raise _refused(f"policy not received yet: {missing[0]}", missing[0])
    by = next((policy.key for policy in allowing if matches(policy, connection)), None)
    if allowing and by is None:
        raise _refused(NONE_ALLOWED)
    return Admitted(destination, connection, by, _try_out(tried, by, connection) if tried else "")


def _refused(reason: str, policy: str = "") -> Denied:
    return Denied(f"connection closed due to policy rejection: {reason}", policy)


def _try_out(tried: list[Policy], by: str | None, connection: Connection) -> str:
    """What the policies under trial, were they in force too, would object to an admitted connection."""
    for policy in tried:
        if policy.action is Action.DENY and matches(policy, connection):
            return f"explicitly denied by: {policy.key}"
    allowing = [policy for policy in tried if policy.action is Action.ALLOW]
    if by is None and allowing and not any(matches(policy, connection) for policy in allowing):
        return NONE_ALLOWED
    return ""
