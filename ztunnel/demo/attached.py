"""Whether a node proxy sends calls to a waypoint, by what it has in its configuration dump."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any


def is_attached(dump: Mapping[str, Any], namespace: str, services: Collection[str], waypoint: str) -> bool:
    """Whether these services of a namespace are called by way of the waypoint, and it serves: until its pod
    is ready, calls are refused."""
    pods = _pods(dump, namespace, waypoint)
    return _bound(dump, namespace).issuperset(services) and any(pod["status"] == "Healthy" for pod in pods)


def is_detached(dump: Mapping[str, Any], namespace: str, services: Collection[str], waypoint: str) -> bool:
    """Whether none of them is, and no pod of the waypoint is left."""
    return _bound(dump, namespace).isdisjoint(services) and not _pods(dump, namespace, waypoint)


def _bound(dump: Mapping[str, Any], namespace: str) -> set[str]:
    return {
        each["name"] for each in dump["services"] if each["namespace"] == namespace and "waypoint" in each
    }


def _pods(dump: Mapping[str, Any], namespace: str, waypoint: str) -> list[Mapping[str, Any]]:
    return [
        each
        for each in dump["workloads"]
        if (each["namespace"], each["canonicalName"]) == (namespace, waypoint)
    ]
