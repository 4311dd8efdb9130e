"""Whose an object is that stands by the name of one of a waypoint's, and whether somebody has changed it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ztunnel.control.status.standing import MANAGER
from ztunnel.control.waypoints.deployment import MANAGED_BY_US
from ztunnel.control.waypoints.waypoint import GATEWAY_NAME, MANAGED
from ztunnel.kube.resource import GATEWAYS
from ztunnel.state.gateway import Gateway


def mark_of(value: Mapping[str, Any]) -> object:
    """What is another when somebody has changed more than status."""
    meta = value.get("metadata") or {}
    kept = {name: meta.get(name) for name in ("uid", "labels", "annotations", "ownerReferences")}
    kept["annotations"] = {
        name: one
        for name, one in (kept["annotations"] or {}).items()
        if not name.startswith("deployment.kubernetes.io/")
    }
    rest = {name: one for name, one in value.items() if name not in ("metadata", "status")}
    return kept, rest


def is_owned(value: Mapping[str, Any], gateway: Gateway) -> bool:
    """Whether it is the Gateway's, also where somebody has taken away that it says so."""
    owners = (value.get("metadata") or {}).get("ownerReferences") or ()
    if not owners:
        return is_made(value, gateway)
    return any(one.get("uid") == gateway.meta.uid and one.get("kind") == GATEWAYS.kind for one in owners)


def is_istiods(value: Mapping[str, Any]) -> bool:
    """Whether istiod has written it last."""
    labels = (value.get("metadata") or {}).get("labels") or {}
    return str(labels.get(MANAGED, "")).startswith("istio.io-")


def has_our_number(value: Mapping[str, Any]) -> bool:
    """Whether how many pods there are is what we have applied."""
    return "replicas" in value.get("spec", {}) and any(
        one.get("manager") == MANAGER and "f:replicas" in one.get("fieldsV1", {}).get("f:spec", {})
        for one in value["metadata"].get("managedFields") or ()
    )


def is_made(value: Mapping[str, Any], gateway: Gateway) -> bool:
    """Whether it was made here, for a Gateway of that name."""
    labels = (value.get("metadata") or {}).get("labels") or {}
    return labels.get(MANAGED) == MANAGED_BY_US and labels.get(GATEWAY_NAME) == gateway.meta.name
