"""The status of an object as it stands in the API, and what is written beside the conditions of others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ztunnel.control.routes.route_status import (
    RoutingSaid,
    merge_parents,
    wanted_parents,
    with_faults,
    written_parents,
)
from ztunnel.control.settings import ISTIO_WAYPOINT_CLASS, WAYPOINT_CLASS
from ztunnel.control.status.condition import Condition
from ztunnel.control.waypoints.waypoint import CONTROLLER
from ztunnel.errors import Fault
from ztunnel.state.route_filter import Reference

MANAGER: Final = "ztunnel-control"
"""The field manager of what we write."""

ACCEPTED, AT_WAYPOINT, BOUND = "ZtunnelAccepted", "WaypointAccepted", "istio.io/WaypointBound"
_OURS: Final = frozenset((ACCEPTED, AT_WAYPOINT, BOUND))
_KEYS: Final = {f'k:{{"type":"{name}"}}' for name in _OURS}


@dataclass(frozen=True, slots=True)
class Standing:
    """The status of an object as the API has it. `foreign`: somebody else has written conditions. `parents`
    are those of a route's status, `references` what it wants to be attached to."""

    version: str
    generation: int
    conditions: tuple[Mapping[str, Any], ...]
    foreign: bool
    parents: tuple[Mapping[str, Any], ...] = ()
    references: tuple[Reference, ...] = ()


def read_standing(value: Mapping[str, Any]) -> Standing:
    """Of an object as it came; what makes no sense counts as absent."""
    meta, status = _mapping(value.get("metadata")), _mapping(value.get("status"))
    found, generation = status.get("conditions"), meta.get("generation")
    conditions = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    managed = meta.get("managedFields")
    return Standing(
        str(meta.get("resourceVersion") or ""),
        generation if isinstance(generation, int) else 0,
        tuple(conditions),
        any(_writes_conditions(entry) for entry in managed) if isinstance(managed, list) else False,
        tuple(written_parents(value)),
        wanted_parents(value),
    )


def _writes_conditions(entry: object) -> bool:
    """Whether that entry of managedFields is somebody else's claim to conditions of ours: one by one, or to
    the list as a whole where its schema has no keys."""
    found = _mapping(entry)
    status = _mapping(_mapping(found.get("fieldsV1")).get("f:status"))
    if found.get("manager") == MANAGER or "f:conditions" not in status:
        return False
    keys = [name for name in _mapping(status["f:conditions"]) if name.startswith("k:")]
    return not keys or bool(_KEYS & set(keys))


def is_waypoint(value: Mapping[str, Any]) -> bool:
    """Whether a Gateway may be one of ours."""
    name = _mapping(value.get("spec")).get("gatewayClassName")
    return name in (WAYPOINT_CLASS, ISTIO_WAYPOINT_CLASS)


def is_our_class(value: Mapping[str, Any]) -> bool:
    """Whether a GatewayClass is."""
    return _mapping(value.get("spec")).get("controllerName") == CONTROLLER


def status_of_route(
    standing: Standing, said: RoutingSaid | None, faults: tuple[Fault, ...], stamp: str
) -> Mapping[str, Any] | None:
    """The status of a route; None where all is written already. `said` is None where it never was good."""
    parents = with_faults(said, standing.references, faults)
    merged = merge_parents(standing.parents, parents, standing.generation, stamp)
    return None if merged is None else {"parents": merged}


def merge(standing: Standing, conditions: Iterable[Condition], stamp: str) -> list[Mapping[str, Any]] | None:
    """The conditions to write, those of others as they are; None where all is written already. `stamp`: the
    time, as Kubernetes writes it."""
    old = {one.get("type"): one for one in standing.conditions}
    made = []
    for one in conditions:
        before, met = old.get(one.type, {}), "True" if one.met else "False"
        changed = before.get("status") != met
        made.append(
            {
                "type": one.type,
                "status": met,
                "reason": one.reason,
                "message": one.message,
                "observedGeneration": standing.generation,
                "lastTransitionTime": stamp if changed else before.get("lastTransitionTime", stamp),
            }
        )
    ours = _OURS.union(str(one["type"]) for one in made)
    others = [one for one in standing.conditions if one.get("type") not in ours]
    now = [one for one in standing.conditions if one.get("type") in ours]
    same = [_comparable(one) for one in now] == [_comparable(one) for one in made]
    return None if same else [*others, *made]


def _comparable(one: Mapping[str, Any]) -> tuple[object, ...]:
    """A condition without when it began. Istio's schema stores generations as texts."""
    return (
        *(one.get(name) for name in ("type", "status", "reason", "message")),
        str(one.get("observedGeneration")),
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
