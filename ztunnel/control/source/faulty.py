"""Policies that cannot be taken over as they are written, and the pods that they are about.

Istio's API server refuses such an object, so it never counts, and what stood there before goes on. So it is
here; and as nobody was refused to their face, the pods of its scope are named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ztunnel.control.source.document import Key
from ztunnel.control.source.inventory import FaultyPolicy, Inventory, of_kind
from ztunnel.errors import Fault
from ztunnel.state.kube import Pod


@dataclass(frozen=True, slots=True)
class Marked:
    """A faulty policy with the pods of its scope, `namespace/name`, sorted. Where its selector cannot be
    told, those of its namespace."""

    key: Key
    kept: bool
    faults: tuple[Fault, ...]
    pods: tuple[str, ...]

    @property
    def name(self) -> str:
        """`namespace/name`, as metrics and logs name policies."""
        return f"{self.key.namespace}/{self.key.name}"

    @property
    def in_force(self) -> str:
        """What counts instead."""
        return "last good version" if self.kept else "none"

    def __str__(self) -> str:
        what = "its last good version is in force" if self.kept else "not in force, and never was"
        return f"{self.key} ({self.faults[0]}): {what}; pods of its scope: {len(self.pods)}"


def mark(inventory: Inventory, root_namespace: str) -> tuple[Marked, ...]:
    """The faulty policies of a folder, each object once."""
    found: dict[Key, FaultyPolicy] = {}
    for one in inventory.policies:
        found.setdefault(one.key, one)
    if not found:
        return ()
    pods = of_kind(inventory.objects.values(), Pod)
    return tuple(
        Marked(key, one.kept, one.faults, tuple(sorted(_scope(one, pods, root_namespace))))
        for key, one in found.items()
    )


def _scope(policy: FaultyPolicy, pods: list[Pod], root_namespace: str) -> list[str]:
    namespace, wanted = policy.key.namespace, (policy.selector or {}).items()
    return [
        f"{pod.meta.namespace}/{pod.meta.name}"
        for pod in pods
        if namespace in (root_namespace, pod.meta.namespace) and wanted <= pod.meta.labels.items()
    ]


def dump(inventory: Inventory, faults: tuple[Fault, ...], marked: tuple[Marked, ...]) -> dict[str, Any]:
    """All of it as plain JSON values, for the admin page."""
    return {
        "objects": len(inventory.objects),
        "faults": [str(fault) for fault in faults],
        "lastGoodVersions": sorted(map(str, inventory.kept)),
        "policyFaults": [
            {
                "kind": one.key.kind,
                "policy": one.name,
                "inForce": one.in_force,
                "faults": [str(fault) for fault in one.faults],
                "pods": list(one.pods),
            }
            for one in marked
        ],
    }
