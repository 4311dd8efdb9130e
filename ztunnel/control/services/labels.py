"""The labels of workloads, as waypoints are sent them: by these they know the subsets of a service."""

from __future__ import annotations

from collections.abc import Mapping

from ztunnel.control.services.claim import Entry
from ztunnel.model.labels import WorkloadLabels
from ztunnel.model.service import Service
from ztunnel.model.workload import Workload
from ztunnel.state.networking import WorkloadEntry


def labels_for(uid: str, labels: Mapping[str, str]) -> WorkloadLabels | None:
    """Those of one workload; None: it has none."""
    return WorkloadLabels(uid, frozenset(labels.items())) if labels else None


def entry_labels(
    entry: Entry | None, made: Mapping[str, Workload | Service]
) -> dict[str, WorkloadLabels | None]:
    """Those of the workloads among what an entry was made into, by name; endpoints have their own."""
    uids = [name for name, one in made.items() if isinstance(one, Workload)]
    if isinstance(entry, WorkloadEntry):
        return {uid: labels_for(uid, entry.labels) for uid in uids}
    by_address = {each.address: each.labels for each in entry.endpoints} if entry is not None else {}
    return {uid: labels_for(uid, by_address.get(uid.rpartition("/")[2], {})) for uid in uids}
