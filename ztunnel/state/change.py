"""What the difference between two worlds can touch: what has to be judged or looked at again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TypeVar

from ztunnel.model.address import IPAddress
from ztunnel.model.policy import Policy, PolicyScope
from ztunnel.model.service import ServiceName
from ztunnel.model.workload import Workload

_T = TypeVar("_T")
Pairs = list[tuple[_T | None, _T | None]]
"""(before, now) of what really changes."""

# What a verdict or a decision about a workload may rest on. Not health, capacity, locality and the names that
# telemetry shows: who serves what is asked again for each connection.
_BASIS = attrgetter(
    "namespace", "service_account", "trust_domain", "addresses", "node", "network", "protocol", "same_node",
    "services", "authorization_policies", "waypoint", "host_network", "native_tunnel", "gateway",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Change:
    """What one delta can touch. False when it changed nothing.

    Attributes:
        workloads: uids that came, went or changed in any way.
        reclassified: those of them where something changed that a verdict rests on (identity, policies, node,
            protocol, addresses, services, waypoint, same-node mode), and all that came or went.
        addresses: the addresses that these had and have.
        nodes: the nodes that these ran and run on.
        services: services whose definition or endpoints changed, known or not.
        policies: keys of the policies that came, went or changed.
        namespaces: those whose own policies are among them.
        everywhere: whether a policy for the whole mesh is among them.
        http: resources of waypoints that came, went or changed, by the name of their class and their key.
    """

    workloads: frozenset[str] = frozenset()
    reclassified: frozenset[str] = frozenset()
    addresses: frozenset[IPAddress] = frozenset()
    nodes: frozenset[str] = frozenset()
    services: frozenset[ServiceName] = frozenset()
    policies: frozenset[str] = frozenset()
    namespaces: frozenset[str] = frozenset()
    everywhere: bool = False
    http: frozenset[tuple[str, str]] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.workloads or self.services or self.policies or self.http)

    def touches(self, workload: Workload) -> bool:
        """Whether a verdict about connections from or to `workload` may be another one now."""
        if self.everywhere or workload.uid in self.reclassified or workload.namespace in self.namespaces:
            return True
        return bool(self.policies) and any(key in self.policies for key in workload.authorization_policies)


def merge(changes: Sequence[Change]) -> Change:
    """What several deltas, one after the other, can touch together."""
    if len(changes) == 1:
        return changes[0]
    return Change(
        workloads=frozenset().union(*(one.workloads for one in changes)),
        reclassified=frozenset().union(*(one.reclassified for one in changes)),
        addresses=frozenset().union(*(one.addresses for one in changes)),
        nodes=frozenset().union(*(one.nodes for one in changes)),
        services=frozenset().union(*(one.services for one in changes)),
        policies=frozenset().union(*(one.policies for one in changes)),
        namespaces=frozenset().union(*(one.namespaces for one in changes)),
        everywhere=any(one.everywhere for one in changes),
        http=frozenset().union(*(one.http for one in changes)),
    )


def change_of(moved: Pairs[Workload], services: Iterable[ServiceName], ruled: Pairs[Policy]) -> Change:
    """What (before, now) of workloads and policies can touch, and of these services."""
    both = [workload for pair in moved for workload in pair if workload]
    policies = [policy for pair in ruled for policy in pair if policy]
    return Change(
        workloads=frozenset(workload.uid for workload in both),
        reclassified=frozenset(
            workload.uid
            for old, new in moved
            for workload in (old, new)
            if workload and (old is None or new is None or _BASIS(old) != _BASIS(new))
        ),
        addresses=frozenset(ip for workload in both for ip in workload.addresses),
        nodes=frozenset(workload.node for workload in both if workload.node),
        services=frozenset(services),
        policies=frozenset(policy.key for policy in policies),
        namespaces=frozenset(each.namespace for each in policies if each.scope is PolicyScope.NAMESPACE),
        everywhere=any(each.scope is PolicyScope.GLOBAL for each in policies),
    )
