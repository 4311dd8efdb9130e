"""The status of HTTPRoutes and GRPCRoutes: `parents`, one for each Service and ServiceEntry that they are
attached to (Gateway API apis/v1 shared_types.go, RouteParentStatus). What other controllers say of the
parents that are theirs stays as it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ztunnel.control.routes.gateway_route import ENTRY, SERVICE, Route
from ztunnel.control.routes.route_parts import UNRESOLVED, Problem, Why
from ztunnel.control.routes.routing import Routing, ServiceRoutes, caller_of
from ztunnel.control.source.document import Key
from ztunnel.control.status.condition import Condition, cut
from ztunnel.control.waypoints.waypoint import CONTROLLER
from ztunnel.errors import Fault
from ztunnel.state.route_filter import Reference, read_parents
from ztunnel.state.value import ValueField
from ztunnel.state.virtual_service import VirtualService

_INVALID: Final = (Why.UNSUPPORTED, Why.INCOMPATIBLE)


@dataclass(frozen=True, slots=True)
class ParentSaid:
    """What there is to say of a route below one of its parents."""

    reference: Reference
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class RoutingSaid:
    """What there is to say of an object that routes: below each parent, or of a VirtualService as a whole.
    `nowhere`: why that is for no service, if it is."""

    parents: tuple[ParentSaid, ...] = ()
    problems: tuple[Problem, ...] = ()
    nowhere: str = ""


def is_attached(value: Mapping[str, Any]) -> bool:
    """Whether a route, as the API has it, is or was attached to anything of the mesh."""
    return bool(wanted_parents(value)) or any(map(_is_ours, written_parents(value)))


def written_parents(value: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """`status.parents` of an object as the API has it; nothing of one that has none."""
    status = value.get("status")
    found = status.get("parents") if isinstance(status, dict) else None
    yield from (one for one in (found if isinstance(found, list) else ()) if isinstance(one, dict))


def wanted_parents(value: Mapping[str, Any]) -> tuple[Reference, ...]:
    """The Services and ServiceEntries among its `spec.parentRefs`."""
    spec = value.get("spec")
    found = read_parents(ValueField(spec, "spec", [])) if isinstance(spec, dict) else ()
    return tuple(one for one in dict.fromkeys(found) if _is_of_mesh(one))


def said_of_routing(key: Key, one: Routing, routes: ServiceRoutes) -> RoutingSaid:
    """What there is to say of an object that is in force."""
    converted = routes.converted(key)
    if isinstance(one, VirtualService):
        return RoutingSaid(problems=converted.problems, nowhere=routes.nowhere(one))
    return RoutingSaid(
        tuple(
            ParentSaid(reference, tuple(_conditions(key, one, reference, routes)))
            for reference in dict.fromkeys(one.parents)
            if _is_of_mesh(reference)
        )
    )


def _is_of_mesh(one: Reference) -> bool:
    return (one.group, one.kind) in (SERVICE, ENTRY)


def of_faults(faults: tuple[Fault, ...], *, in_force: bool) -> str:
    """The message for what is wrong as it is written now."""
    instead = "its last good version is in force" if in_force else "it is not in force"
    texts = "; ".join(f"{fault.field}: {fault.message}" for fault in faults[:5])
    return cut(f"{texts}; {instead}")


def of_virtual_service(kind: str, said: RoutingSaid) -> Condition:
    """The condition of a VirtualService that is in force."""
    told = [one for one in said.problems if one.why is not Why.INEFFECTIVE]
    if said.nowhere:
        return Condition(kind, False, "AncestorNotBound", f"hosts: {said.nowhere}")
    if not told:
        return Condition(
            kind, True, "Accepted", "in force at the waypoints of its hosts, where they have any"
        )
    return Condition(kind, True, "PartiallyInvalid", _texts(told))


def with_faults(
    said: RoutingSaid | None, references: tuple[Reference, ...], faults: tuple[Fault, ...]
) -> tuple[ParentSaid, ...]:
    """What is to be said of a route below its parents: the same, but for one that is wrong as it is written
    now. `said` is None where it never was good."""
    if not faults:
        return said.parents if said is not None else ()
    message = of_faults(faults, in_force=said is not None)
    wrong = Condition("Accepted", False, "UnsupportedValue", message)
    return tuple(ParentSaid(reference, (wrong,)) for reference in references)


def _conditions(key: Key, one: Route, reference: Reference, routes: ServiceRoutes) -> Iterator[Condition]:
    converted = routes.converted(key)
    wrong = [problem for problem in converted.problems if problem.why in _INVALID]
    reason, message = _not_matching(key, one, reference, routes)
    if reason:
        yield Condition("Accepted", False, reason, message)
    elif wrong and len({_rule_of(problem) for problem in wrong}) == len(one.rules):
        yield Condition("Accepted", False, str(wrong[0].why), _texts(wrong))
    else:
        yield Condition("Accepted", True, "Accepted", message)
        if wrong:
            yield Condition("PartiallyInvalid", True, str(wrong[0].why), _texts(wrong))
    yield _waypoints(one, reference, routes)
    missing = [problem for problem in converted.problems if problem.why in UNRESOLVED]
    if missing:
        yield Condition("ResolvedRefs", False, str(missing[0].why), _texts(missing))
    else:
        yield Condition("ResolvedRefs", True, "ResolvedRefs", "All references resolved")


def _not_matching(key: Key, one: Route, reference: Reference, routes: ServiceRoutes) -> tuple[str, str]:
    """Why the parent does not take the route, if it does not; and the message for either."""
    services = routes.parent(reference, one.meta.namespace)
    if not services:
        return "NoMatchingParent", f"there is no {_named(reference, one)}"
    if reference.section:
        return "NoMatchingParent", "sectionName has no meaning here: use port"
    if reference.port and all(port.service != reference.port for each in services for port in each.ports):
        return "NoMatchingParent", f"{_named(reference, one)} has no port {reference.port}"
    if all(one.meta.namespace not in (each.namespace, caller_of(each)) for each in services):
        text = "a route of another namespace than the service's counts only in that of its waypoint"
        return "UnsupportedValue", text
    if not any(each.addresses for each in services):
        text = f"{_named(reference, one)} has no address: calls go to its pods, past any waypoint of it"
        return "UnsupportedValue", text
    where, whole = routes.displaced(key, one, services)
    if whole:
        return "Conflicted", cut(where)
    return "", cut(f"Route was valid, but {where}" if where else "Route was valid")


def _waypoints(one: Route, reference: Reference, routes: ServiceRoutes) -> Condition:
    """Whether there is anybody who acts on the route (istio/istio#55381)."""
    services = routes.parent(reference, one.meta.namespace)
    if not services:
        return Condition("ResolvedWaypoints", False, "NoMatchingParent", "parent not found")
    without = [each.hostname for each in services if each.waypoint is None]
    if without:
        text = f"{', '.join(without)} has no waypoint that is ready (istio.io/use-waypoint): no effect there"
        return Condition("ResolvedWaypoints", False, "MissingUseWaypointLabel", cut(text))
    return Condition("ResolvedWaypoints", True, "ResolvedWaypoints", "All waypoints resolved")


def _named(reference: Reference, one: Route) -> str:
    return f"{reference.kind} {reference.namespace or one.meta.namespace}/{reference.name}"


def _rule_of(problem: Problem) -> str:
    return problem.field.partition(".")[0]


def _texts(problems: list[Problem]) -> str:
    return cut("; ".join(map(str, problems)))


def merge_parents(
    written: tuple[Mapping[str, Any], ...], said: tuple[ParentSaid, ...], generation: int, stamp: str
) -> list[Mapping[str, Any]] | None:
    """`status.parents` to write, those of other controllers as they are; None where all is written already.
    `stamp`: the time, as Kubernetes writes it."""
    ours = [one for one in written if _is_ours(one)]
    made = [_parent(one, ours, generation, stamp) for one in said]
    if list(map(_comparable, ours)) == list(map(_comparable, made)):
        return None
    return [*(one for one in written if not _is_ours(one)), *made]


def _parent(
    said: ParentSaid, before: list[Mapping[str, Any]], generation: int, stamp: str
) -> Mapping[str, Any]:
    reference = _reference(said.reference)
    old = next((one for one in before if one.get("parentRef") == reference), {})
    known = {one.get("type"): one for one in old.get("conditions", ()) if isinstance(one, dict)}
    conditions = []
    for one in said.conditions:
        met = "True" if one.met else "False"
        earlier = known.get(one.type, {})
        same = earlier.get("status") == met
        conditions.append(
            {
                "type": one.type,
                "status": met,
                "reason": one.reason,
                "message": one.message,
                "observedGeneration": generation,
                "lastTransitionTime": earlier.get("lastTransitionTime", stamp) if same else stamp,
            }
        )
    return {"parentRef": reference, "controllerName": CONTROLLER, "conditions": conditions}


def _reference(one: Reference) -> Mapping[str, Any]:
    more = {"namespace": one.namespace, "sectionName": one.section, "port": one.port}
    given = {name: value for name, value in more.items() if value}
    return {"group": one.group, "kind": one.kind, "name": one.name, **given}


def _is_ours(one: object) -> bool:
    return isinstance(one, dict) and one.get("controllerName") == CONTROLLER


def _comparable(one: Mapping[str, Any]) -> tuple[object, ...]:
    conditions = one.get("conditions")
    return (
        one.get("parentRef"),
        [
            [each.get(name) for name in ("type", "status", "reason", "message", "observedGeneration")]
            for each in (conditions if isinstance(conditions, list) else ())
            if isinstance(each, dict)
        ],
    )
