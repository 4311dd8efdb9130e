"""What is written into the status of objects: whether a node proxy enforces a policy, and what becomes of a
service's waypoint. Types, reasons and texts are Istio's where it has them (istio/istio pilot/pkg/model:
ZtunnelAccepted, WaypointAccepted, WaypointBound)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ztunnel.control.policies.authorization import convert_authorization
from ztunnel.control.policies.http_authorization import convert_http_authorization
from ztunnel.control.policies.policy_targets import Target
from ztunnel.control.routes.route_status import (
    RoutingSaid,
    merge_parents,
    of_faults,
    of_virtual_service,
    wanted_parents,
    with_faults,
    written_parents,
)
from ztunnel.control.settings import ISTIO_WAYPOINT_CLASS, WAYPOINT_CLASS, MeshSettings
from ztunnel.control.source.document import Key, Object
from ztunnel.control.source.remarks import remark
from ztunnel.control.status.condition import Condition, cut
from ztunnel.control.waypoints.use_waypoint import HBONE_PORT
from ztunnel.control.waypoints.waypoint import (
    CONTROLLER,
    GATEWAY_NAME,
    Binding,
    GatewayState,
    Traffic,
    Waypoints,
)
from ztunnel.errors import Fault
from ztunnel.state.destination_rule import DestinationRule
from ztunnel.state.gateway import Gateway, GatewayClass
from ztunnel.state.istio import AuthorizationPolicy
from ztunnel.state.kube import Service
from ztunnel.state.networking import ServiceEntry, WorkloadEntry
from ztunnel.state.rate_limit_policy import RateLimitPolicy
from ztunnel.state.request_authentication import RequestAuthentication
from ztunnel.state.route_filter import Reference
from ztunnel.state.telemetry import Telemetry
from ztunnel.state.virtual_service import VirtualService

MANAGER: Final = "ztunnel-control"
"""The field manager of what we write."""

_ACCEPTED, _AT_WAYPOINT, _BOUND = "ZtunnelAccepted", "WaypointAccepted", "istio.io/WaypointBound"
_OURS: Final = frozenset((_ACCEPTED, _AT_WAYPOINT, _BOUND))
_GATEWAY: Final = ("Accepted", "Programmed")
"""Of a Gateway or GatewayClass of ours."""
_KEYS: Final = {f'k:{{"type":"{name}"}}' for name in _OURS}
_OF_WAYPOINTS: Final = frozenset(
    one.__name__
    for one in (VirtualService, DestinationRule, RequestAuthentication, RateLimitPolicy, Telemetry)
)
ATTACHED: Final = "Successfully attached to waypoint "


@dataclass(frozen=True, slots=True)
class Said:
    """What the translation says of an object beside the others: what of it is somebody else's, what its own
    waypoint is, how a Gateway of ours is, and what becomes of a policy's targets or of an object that
    routes; `problem`: why a CUSTOM policy's provider is not asked; `remarks`: what of a Telemetry has no
    effect, or a DestinationRule lacks. `ingress`: gateways use its waypoint; `unaddressed`: a service of it
    has no address."""

    refused: tuple[str, ...] = ()
    binding: Binding = field(default_factory=Binding)
    gateway: GatewayState | None = None
    is_class: bool = False
    one: Gateway | None = None
    targets: tuple[Target, ...] = ()
    problem: str = ""
    routing: RoutingSaid | None = None
    remarks: tuple[str, ...] = ()
    ingress: bool = False
    unaddressed: bool = False


_NOTHING: Final = Said()


def said_of(
    key: Key, one: Object | None, waypoints: Waypoints, refused: tuple[str, ...], *, guarded: bool = False
) -> Said:
    """What there is to say of an object; `refused` is what of it does not count, `guarded` whether there are
    policies that only its waypoint can enforce."""
    if isinstance(one, Gateway):
        return Said(gateway=waypoints.state((key.namespace, key.name)), one=one)
    if isinstance(one, GatewayClass):
        return Said(is_class=one.controller == CONTROLLER)
    binding = Binding()
    if isinstance(one, Service | ServiceEntry):
        binding = waypoints.bind(one.meta.labels, key.namespace, Traffic.SERVICE, one.bound, guarded=guarded)
    elif isinstance(one, WorkloadEntry):
        binding = waypoints.bind(one.labels, key.namespace, Traffic.WORKLOAD)
    return Said(refused, binding)


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


def wanted(
    one: Object | None,
    faults: tuple[Fault, ...],
    settings: MeshSettings,
    said: Said = _NOTHING,
    kind: str = "",
) -> tuple[Condition, ...]:
    """The conditions of an object of that kind in force, None where it never was good; `faults` are those of
    what is written now."""
    if isinstance(one, Gateway | GatewayClass):
        return tuple(_of_gateway(said))
    if faults:
        of_waypoint = kind in _OF_WAYPOINTS
        name = _AT_WAYPOINT if of_waypoint else _ACCEPTED
        return (Condition(name, False, "Invalid", of_faults(faults, in_force=one is not None)),)
    if said.routing is not None:
        return (of_virtual_service(_AT_WAYPOINT, said.routing),)
    if isinstance(one, AuthorizationPolicy):
        return (_of_policy(one, settings, said),)
    if isinstance(one, RequestAuthentication):
        remarks = [text.partition(": ")[2] for text in remark(one)]
        if not one.targets:
            return (Condition(_AT_WAYPOINT, False, "UnsupportedValue", cut("; ".join(remarks))),)
        return (at_waypoint(said.targets, remarks),)
    if isinstance(one, DestinationRule):
        return tuple(_of_rule(one, said))
    if isinstance(one, Telemetry):
        return (_of_telemetry(one, said),)
    if isinstance(one, RateLimitPolicy):
        return (at_waypoint(said.targets, [text.partition(": ")[2] for text in remark(one)]),)
    remarks = [text.partition(": ")[2] for text in remark(one)] if isinstance(one, ServiceEntry) else []
    return tuple(_of_claims(said, remarks))


def _of_rule(one: DestinationRule, said: Said) -> Iterator[Condition]:
    """Nothing, where nothing is wrong: what it is for may have no waypoint."""
    if one.unread:
        texts = [text.partition(": ")[2] for text in remark(one)]
        yield Condition(_AT_WAYPOINT, False, "UnsupportedValue", cut("; ".join((*texts, *said.remarks))))
    elif said.remarks:
        yield Condition(_AT_WAYPOINT, False, "InvalidCertificateRef", cut("; ".join(said.remarks)))


def _of_telemetry(one: Telemetry, said: Said) -> Condition:
    if one.targets:
        return at_waypoint(said.targets, said.remarks)
    if one.selector:
        return Condition(_AT_WAYPOINT, False, "UnsupportedValue", cut("; ".join(said.remarks)))
    text = "; ".join((f"bound to the waypoints of {one.meta.namespace}", *said.remarks))
    return Condition(_AT_WAYPOINT, True, "PartiallyInvalid" if said.remarks else "Accepted", cut(text))


def _of_claims(said: Said, remarks: Sequence[str]) -> Iterator[Condition]:
    """Of a service or an entry; `remarks`: what of it is not acted on."""
    if said.refused:
        yield Condition(_ACCEPTED, False, "Conflicted", cut("; ".join((*said.refused, *remarks))))
    elif remarks:
        yield Condition(_ACCEPTED, True, "UnsupportedValue", cut("; ".join(remarks)))
    binding = said.binding
    if binding.reason:
        yield Condition(_BOUND, False, binding.reason, binding.message)
    elif binding.waypoint is not None:
        texts = [f"{ATTACHED}{binding.name}"]
        if said.ingress:
            texts.append("Ingress traffic will traverse the waypoint")
        if said.unaddressed:
            texts.append("It has no address: calls go to its endpoints, past the waypoint")
        yield Condition(_BOUND, True, "WaypointAccepted", ". ".join(texts))


def _of_gateway(said: Said) -> Iterator[Condition]:
    """As istiod's for its waypoints (istio/istio pilot/pkg/config/kube/gateway)."""
    accepted, programmed = _GATEWAY
    if said.is_class:
        yield Condition(accepted, True, "Accepted", "Handled by ztunnel")
    if (state := said.gateway) is None:
        return
    yield Condition(
        accepted,
        not state.invalid,
        state.reason if state.invalid else "Accepted",
        state.invalid or "Resource accepted",
    )
    if state.invalid:
        yield Condition(programmed, False, "Invalid", state.invalid)
    elif state.service is None:
        text = f"no Service with port {HBONE_PORT} has its name, or the label {GATEWAY_NAME} with it"
        yield Condition(programmed, False, "AddressNotAssigned", text)
    elif not state.ready:
        text = "no pod of it has been ready yet: calls go as without it until then"
        yield Condition(programmed, False, "Pending", text)
    else:
        text = f"Resource programmed, assigned to service(s) {state.service.hostname}:{HBONE_PORT}"
        yield Condition(programmed, True, "Programmed", text)


def gateway_status(said: Said, standing: Standing, stamp: str) -> dict[str, object]:
    """What of a Gateway's status is beside its conditions: where it is called, and of each listener the same
    as of the Gateway; nothing for other objects. Addresses stay once they are there: from then on whatever
    names it is called by it, or not at all."""
    state, gateway = said.gateway, said.one
    if state is None or gateway is None:
        return {}
    addresses = [{"type": kind, "value": value} for kind, value in gateway.addresses]
    if not state.invalid and state.service is not None and state.ready:
        addresses = [{"type": "Hostname", "value": state.service.hostname}]
    conditions = [
        {
            "type": one.type,
            "status": "True" if one.met else "False",
            "reason": one.reason if one.type == _GATEWAY[0] and not state.invalid else _of_listener(one),
            "message": one.message,
            "observedGeneration": standing.generation,
            "lastTransitionTime": stamp,
        }
        for one in _of_gateway(said)
    ]
    listeners = [
        {"name": one.name, "supportedKinds": [], "attachedRoutes": 0, "conditions": conditions}
        for one in gateway.listeners
        if one.name
    ]
    return {"addresses": addresses, "listeners": listeners}


def _of_listener(one: Condition) -> str:
    """A reason in the words of listeners."""
    if one.met:
        return one.reason
    return "UnsupportedProtocol" if one.type == _GATEWAY[0] else "Pending"


def _of_policy(one: AuthorizationPolicy, settings: MeshSettings, said: Said) -> Condition:
    if one.targets:
        _, remarks = convert_http_authorization(one, settings)
        texts = [remark.partition(": ")[2] for remark in remarks]
        return at_waypoint(said.targets, [*texts, *([said.problem] if said.problem else [])])
    policy, remarks = convert_authorization(one, settings)
    if not remarks:
        return Condition(_ACCEPTED, True, "Accepted", "attached to ztunnel")
    texts = [remark.partition(": ")[2] for remark in remarks]
    # What is enforced in part is accepted, as istiod has it (istio/istio#52929).
    return Condition(_ACCEPTED, policy is not None, "UnsupportedValue", cut("; ".join(texts)))


def status_of_route(
    standing: Standing, said: RoutingSaid | None, faults: tuple[Fault, ...], stamp: str
) -> Mapping[str, Any] | None:
    """The status of a route; None where all is written already. `said` is None where it never was good."""
    parents = with_faults(said, standing.references, faults)
    merged = merge_parents(standing.parents, parents, standing.generation, stamp)
    return None if merged is None else {"parents": merged}


def at_waypoint(targets: Sequence[Target], remarks: Iterable[str] = ()) -> Condition:
    """Of a policy with these targets; `remarks` is what of it is enforced otherwise than it is written."""
    bound = ", ".join(dict.fromkeys(one.bound for one in targets if one.bound))
    unbound = [one for one in targets if not one.bound]
    texts = [*([f"bound to {bound}"] if bound else []), *(one.message for one in unbound), *remarks]
    if not bound:
        reason = unbound[0].reason if unbound else "AncestorNotBound"
        return Condition(_AT_WAYPOINT, False, reason, cut("; ".join(texts) or "not bound"))
    whole = len(texts) == 1
    reason = "Accepted" if whole else "PartiallyInvalid"
    return Condition(_AT_WAYPOINT, True, reason, cut("; ".join(texts)))


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
