"""The verdict about one connection to a workload, as evidence: `Admitted`, or `Denied` raised.

The order is Istio's (ztunnel src/state.rs, `assert_rbac`): a DENY that matches refuses; without any ALLOW
policy the connection is admitted; an ALLOW that matches admits; otherwise it is refused. One thing is ours: a
policy that the workload lists and that has not been received refuses, where ztunnel skips it.

A refusal begins with Istio's words and goes on with its cause: who was refused, or that nobody was proved.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from ztunnel.authz.explanation import explain
from ztunnel.authz.rule import matches
from ztunnel.errors import Denied
from ztunnel.model.connection import Connection
from ztunnel.model.identity import SpiffeId
from ztunnel.model.policy import Action, Policy
from ztunnel.model.workload import Workload
from ztunnel.state.world import World

NONE_ALLOWED: Final = "allow policies exist, but none allowed"

NO_POLICY: Final = "none allowed"
"""Stands for a policy's key where none denied and none allowed; no key is without a slash."""

_REJECTED: Final = "connection closed due to policy rejection"
_NAMED: Final = 3
"""Policies named in a refusal."""

# The names under which istiod publishes PeerAuthentication
# (pilot/pkg/serviceregistry/ambient/authorization.go).
_STRICT: Final = "istio_converted_static_strict"
_CONVERTED: Final = "converted_peer_authentication_"


class Trial(NamedTuple):
    """What a policy under trial (`istio.io/dry-run`) made of an admitted connection.

    `refuses` says whether it would be refused were the policy in force too, `why` which rule matches, or what
    keeps the rules from matching; it is empty where nothing would be refused.
    """

    policy: str
    refuses: bool
    why: str


@dataclass(frozen=True, slots=True)
class Admitted:
    """Evidence that policy admits a connection.

    Attributes:
        workload: the destination.
        connection: what was judged.
        by: the key of the ALLOW policy that matched; None where there are no ALLOW policies.
        tried: what each policy under trial made of it.
    """

    workload: Workload
    connection: Connection
    by: str | None
    tried: tuple[Trial, ...] = ()


def judge(world: World, destination: Workload, connection: Connection) -> Admitted:
    """Judge a connection by every policy that concerns its destination.

    Args:
        world: what is known.
        destination: the workload as this world knows it, for its list of policies.
        connection: its destination port is the one that the application listens on.

    Raises:
        Denied: refused, with Istio's text; `policy` is the key of the one that did, `NO_POLICY` where none
            allowed.
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
            raise denied_by(policy.key, connection.identity)
    if missing:
        raise Denied(f"{_REJECTED}: policy not received yet: {missing[0]}", missing[0])
    by = next((policy.key for policy in allowing if matches(policy, connection)), None)
    if allowing and by is None:
        raise none_allowed([policy.key for policy in allowing], connection.identity)
    return Admitted(destination, connection, by, _try_out(tried, by, connection) if tried else ())


def trials(world: World, destination: Workload, connection: Connection) -> tuple[Trial, ...]:
    """What the policies under trial make of a connection that was admitted without being judged here: the
    kernel goes by a verdict of before."""
    try:
        return judge(world, destination, connection).tried
    except Denied:
        return ()


def denied_by(policy: str, identity: SpiffeId | None) -> Denied:
    """The refusal of a DENY policy, by its key."""
    text = f"{_REJECTED}: explicitly denied by: {policy}"
    if identity is None and is_peer_authentication(policy.rpartition("/")[2]):
        text += f" (PeerAuthentication STRICT; {_who(None)})"
    return Denied(text, policy)


def none_allowed(policies: Iterable[str], identity: SpiffeId | None) -> Denied:
    """The refusal where none of these ALLOW policies matched."""
    keys = list(policies)
    names = ", ".join(keys[:_NAMED]) + (f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else "")
    cause = f"{_who(identity)}; policies: {names}" if keys else _who(identity)
    return Denied(f"{_REJECTED}: {NONE_ALLOWED} ({cause})", NO_POLICY)


def is_peer_authentication(name: str) -> bool:
    """Whether a policy of this name stands for a PeerAuthentication."""
    return name == _STRICT or name.startswith(_CONVERTED)


def allowing_keys(world: World, destination: Workload) -> list[str]:
    """The ALLOW policies that are in force for a workload."""
    received, _ = world.policies_for(destination)
    return [one.key for one in received if one.action is Action.ALLOW and not one.dry_run]


def _who(identity: SpiffeId | None) -> str:
    return f"identity {identity.principal}" if identity else "no identity: the connection is plaintext"


def _try_out(tried: list[Policy], by: str | None, connection: Connection) -> tuple[Trial, ...]:
    """What the policies under trial, were they in force too, would make of an admitted connection."""
    hits = [matches(policy, connection) for policy in tried]
    allowed = by is not None or any(
        hit and policy.action is Action.ALLOW for policy, hit in zip(tried, hits, strict=True)
    )
    trials: list[Trial] = []
    for policy, hit in zip(tried, hits, strict=True):
        refuses = hit if policy.action is Action.DENY else not allowed
        trials.append(Trial(policy.key, refuses, explain(policy, connection) if refuses else ""))
    return tuple(trials)
