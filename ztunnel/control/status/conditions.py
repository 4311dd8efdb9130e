"""What is written into the status of objects: whether a node proxy enforces a policy, and what becomes of a
service's waypoint. Types, reasons and texts are Istio's where it has them (istio/istio pilot/pkg/model:
ZtunnelAccepted, WaypointAccepted, WaypointBound)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from ztunnel.control.policies.authorization import convert_authorization
from ztunnel.control.policies.http_authorization import convert_http_authorization
from ztunnel.control.policies.policy_targets import Target
from ztunnel.control.routes.route_status import RoutingSaid, of_faults, of_virtual_service
from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.document import Key, Object
from ztunnel.control.source.remarks import remark
from ztunnel.control.status.condition import Condition, cut
from ztunnel.control.status.standing import ACCEPTED, AT_WAYPOINT, BOUND, Standing
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
from ztunnel.state.telemetry import Telemetry
from ztunnel.state.virtual_service import VirtualService

_GATEWAY: Final = ("Accepted", "Programmed")
"""Of a Gateway or GatewayClass of ours."""
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
        name = AT_WAYPOINT if of_waypoint else ACCEPTED
        return (Condition(name, False, "Invalid", of_faults(faults, in_force=one is not None)),)
    if said.routing is not None:
        return (of_virtual_service(AT_WAYPOINT, said.routing),)
    if isinstance(one, AuthorizationPolicy):
        return (_of_policy(one, settings, said),)
    if isinstance(one, RequestAuthentication):
        remarks = [text.partition(": ")[2] for text in remark(one)]
        if not one.targets:
            return (Condition(AT_WAYPOINT, False, "UnsupportedValue", cut("; ".join(remarks))),)
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
        status, reason = (False, "UnsupportedValue") if one.refusing else (True, "PartiallyInvalid")
        if said.remarks:
            status, reason = False, reason if one.refusing else "InvalidCertificateRef"
        yield Condition(AT_WAYPOINT, status, reason, cut("; ".join((*texts, *said.remarks))))
    elif said.remarks:
        yield Condition(AT_WAYPOINT, False, "InvalidCertificateRef", cut("; ".join(said.remarks)))


def _of_telemetry(one: Telemetry, said: Said) -> Condition:
    if one.targets:
        return at_waypoint(said.targets, said.remarks)
    if one.selector:
        return Condition(AT_WAYPOINT, False, "UnsupportedValue", cut("; ".join(said.remarks)))
    text = "; ".join((f"bound to the waypoints of {one.meta.namespace}", *said.remarks))
    return Condition(AT_WAYPOINT, True, "PartiallyInvalid" if said.remarks else "Accepted", cut(text))


def _of_claims(said: Said, remarks: Sequence[str]) -> Iterator[Condition]:
    """Of a service or an entry; `remarks`: what of it is not acted on."""
    if said.refused:
        yield Condition(ACCEPTED, False, "Conflicted", cut("; ".join((*said.refused, *remarks))))
    elif remarks:
        yield Condition(ACCEPTED, True, "UnsupportedValue", cut("; ".join(remarks)))
    binding = said.binding
    if binding.reason:
        yield Condition(BOUND, False, binding.reason, binding.message)
    elif binding.waypoint is not None:
        texts = [f"{ATTACHED}{binding.name}"]
        if said.ingress:
            texts.append("Ingress traffic will traverse the waypoint")
        if said.unaddressed:
            texts.append("It has no address: calls go to its endpoints, past the waypoint")
        yield Condition(BOUND, True, "WaypointAccepted", ". ".join(texts))


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
        return Condition(ACCEPTED, True, "Accepted", "attached to ztunnel")
    texts = [remark.partition(": ")[2] for remark in remarks]
    # What is enforced in part is accepted, as istiod has it (istio/istio#52929).
    return Condition(ACCEPTED, policy is not None, "UnsupportedValue", cut("; ".join(texts)))


def at_waypoint(targets: Sequence[Target], remarks: Iterable[str] = ()) -> Condition:
    """Of a policy with these targets; `remarks` is what of it is enforced otherwise than it is written."""
    bound = ", ".join(dict.fromkeys(one.bound for one in targets if one.bound))
    unbound = [one for one in targets if not one.bound]
    texts = [*([f"bound to {bound}"] if bound else []), *(one.message for one in unbound), *remarks]
    if not bound:
        reason = unbound[0].reason if unbound else "AncestorNotBound"
        return Condition(AT_WAYPOINT, False, reason, cut("; ".join(texts) or "not bound"))
    whole = len(texts) == 1
    reason = "Accepted" if whole else "PartiallyInvalid"
    return Condition(AT_WAYPOINT, True, reason, cut("; ".join(texts)))
