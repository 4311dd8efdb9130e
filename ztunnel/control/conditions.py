"""What is written into the status of objects: whether a node proxy enforces a policy, and what becomes of a
service's waypoint. Types, reasons and texts are Istio's where it has them (istio/istio pilot/pkg/model:
ZtunnelAccepted, WaypointAccepted, WaypointBound)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ztunnel.control.authorization import convert_authorization
from ztunnel.control.document import Object
from ztunnel.control.remarks import WAYPOINT
from ztunnel.control.settings import MeshSettings
from ztunnel.errors import Fault
from ztunnel.state.istio import AuthorizationPolicy
from ztunnel.state.kube import Service

MANAGER: Final = "ztunnel-control"
"""The field manager of what we write."""

_ACCEPTED, _AT_WAYPOINT, _BOUND = "ZtunnelAccepted", "WaypointAccepted", "istio.io/WaypointBound"
_OURS: Final = frozenset((_ACCEPTED, _AT_WAYPOINT, _BOUND))
_KEYS: Final = {f'k:{{"type":"{name}"}}' for name in _OURS}
_MOST_MESSAGE: Final = 1024


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition, without when it began."""

    type: str
    met: bool
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Standing:
    """The status of an object as the API has it. `foreign`: somebody else has written conditions."""

    version: str
    generation: int
    conditions: tuple[Mapping[str, Any], ...]
    foreign: bool


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


def concerns(value: Mapping[str, Any]) -> bool:
    """Whether anything may have to be written about a service: it names a waypoint, or has a condition about
    one."""
    labels = _mapping(_mapping(value.get("metadata")).get("labels"))
    return WAYPOINT in labels or any(one.get("type") == _BOUND for one in read_standing(value).conditions)


def wanted(
    one: Object | None, faults: tuple[Fault, ...], settings: MeshSettings, refused: tuple[str, ...] = ()
) -> tuple[Condition, ...]:
    """The conditions of an object in force, None where it never was good; `faults` are those of what is
    written now, `refused` says what of it is somebody else's."""
    if faults:
        instead = "its last good version is in force" if one is not None else "it is not in force"
        texts = "; ".join(f"{fault.field}: {fault.message}" for fault in faults[:5])
        return (Condition(_ACCEPTED, False, "Invalid", _cut(f"{texts}; {instead}")),)
    if refused:
        return (Condition(_ACCEPTED, False, "Conflicted", _cut("; ".join(refused))),)
    if isinstance(one, AuthorizationPolicy):
        return (_of_policy(one, settings),)
    if isinstance(one, Service) and one.meta.labels.get(WAYPOINT, "none") != "none":
        namespace = one.meta.labels.get(f"{WAYPOINT}-namespace", one.meta.namespace)
        text = (
            f"waypoint {namespace}/{one.meta.labels[WAYPOINT]} is not known here: HTTP rules are not applied"
        )
        return (Condition(_BOUND, False, "WaypointIsNotReady", text),)
    return ()


def _of_policy(one: AuthorizationPolicy, settings: MeshSettings) -> Condition:
    if one.targets:
        text = f"{', '.join(one.targets)}: not bound; node proxies do not enforce policies with targetRefs"
        return Condition(_AT_WAYPOINT, False, "AncestorNotBound", _cut(text))
    policy, remarks = convert_authorization(one, settings)
    if not remarks:
        return Condition(_ACCEPTED, True, "Accepted", "attached to ztunnel")
    texts = (remark.partition(": ")[2] for remark in remarks)
    # What is enforced in part is accepted, as istiod has it (istio/istio#52929).
    return Condition(_ACCEPTED, policy is not None, "UnsupportedValue", _cut("; ".join(texts)))


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
    others = [one for one in standing.conditions if one.get("type") not in _OURS]
    now = [one for one in standing.conditions if one.get("type") in _OURS]
    same = [_comparable(one) for one in now] == [_comparable(one) for one in made]
    return None if same else [*others, *made]


def _comparable(one: Mapping[str, Any]) -> tuple[object, ...]:
    """A condition without when it began. Istio's schema stores generations as texts."""
    return (
        *(one.get(name) for name in ("type", "status", "reason", "message")),
        str(one.get("observedGeneration")),
    )


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_MESSAGE else f"{text[:_MOST_MESSAGE]}..."


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
