"""The labels of a workload, by which a waypoint knows the subsets of a service."""

from __future__ import annotations

from dataclasses import dataclass

Label = tuple[str, str]


@dataclass(frozen=True, slots=True)
class WorkloadLabels:
    """Those of one workload. Node proxies need none, so they are no part of it."""

    uid: str
    labels: frozenset[Label]

    @property
    def key(self) -> str:
        """The workload's uid."""
        return self.uid
