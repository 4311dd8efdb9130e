"""Labels are those of a workload."""

from __future__ import annotations

from ztunnel.model.labels import WorkloadLabels


def test_labels_are_known_by_the_uid_of_their_workload() -> None:
    made = WorkloadLabels("Kubernetes//Pod/shop/a", frozenset({("version", "v1"), ("app", "a")}))
    assert made.key == "Kubernetes//Pod/shop/a"
    assert made == WorkloadLabels("Kubernetes//Pod/shop/a", frozenset({("app", "a"), ("version", "v1")}))
