"""What the operator should know about single objects that are in force."""

from __future__ import annotations

from collections.abc import Iterator

from ztunnel.control.services.workload import DATAPLANE_MODE
from ztunnel.control.source.document import Object
from ztunnel.control.waypoints.use_waypoint import USE
from ztunnel.model.traffic import Balance, PortTraffic, Traffic
from ztunnel.state import kube
from ztunnel.state.destination_rule import DestinationRule
from ztunnel.state.networking import Resolution, ServiceEntry
from ztunnel.state.rate_limit_policy import RateLimitPolicy
from ztunnel.state.request_authentication import RequestAuthentication


def remark(one: Object) -> Iterator[str]:
    """A line for each thing about an object that does not mean what it may be meant to."""
    if isinstance(one, ServiceEntry):
        yield from _of_service_entry(one)
    if isinstance(one, RequestAuthentication):
        yield from _of_request_authentication(one)
    if isinstance(one, RateLimitPolicy):
        yield from _of_rate_limits(one)
    if isinstance(one, DestinationRule):
        yield from _of_destination_rule(one)
    if not isinstance(one, kube.Namespace | kube.Pod):
        return
    who = f"{type(one).__name__} {one.meta.namespace}/{one.meta.name}".replace(" /", " ")
    labels = one.meta.labels
    mode = labels.get(DATAPLANE_MODE, "none")
    if mode not in ("ambient", "none"):
        yield f"{who}: {DATAPLANE_MODE}={mode} is neither ambient nor none: it decides nothing"
    if isinstance(one, kube.Pod) and not one.addresses and one.phase in ("", "Running"):
        yield f"{who}: has no address (status.podIPs): it is not in the mesh yet"


def _of_request_authentication(one: RequestAuthentication) -> Iterator[str]:
    who = f"RequestAuthentication {one.meta.namespace}/{one.meta.name}"
    if not one.targets:
        yield (
            f"{who}: without targetRefs it does nothing: node proxies see no tokens, and a waypoint takes up "
            "those with targetRefs alone"
        )
    elif not one.rules:
        yield f"{who}: without jwtRules it does nothing"
    yield from (f"{who}: {text}" for text in one.remarks)


def _of_rate_limits(one: RateLimitPolicy) -> Iterator[str]:
    who = f"RateLimitPolicy {one.meta.namespace}/{one.meta.name}"
    for rule in one.rules:
        if not rule.limit.most:
            yield f"{who}: {rule.name}: a limit of no requests refuses all that it is for"


def _of_destination_rule(one: DestinationRule) -> Iterator[str]:
    who = f"DestinationRule {one.meta.namespace}/{one.meta.name}"
    for name in one.unread:
        if name in one.refusing:
            yield f"{who}: trafficPolicy.{name} is not supported: connections that need it are refused"
        else:
            yield f"{who}: trafficPolicy.{name} has no effect at a waypoint, as in Istio; the rest counts"
    if one.selector:
        yield f"{who}: workloadSelector: a rule that has one is not for waypoints: it counts for nobody"
    policies = [
        each for part in (one.traffic, *(each.traffic for each in one.subsets)) for each in _all(part)
    ]
    if any(each.balancing is not None and each.balancing.simple is Balance.PASSTHROUGH for each in policies):
        yield f"{who}: PASSTHROUGH: calls of a service's own address go to its endpoints, as LEAST_REQUEST"


def _all(traffic: PortTraffic) -> Iterator[Traffic]:
    yield traffic.common
    yield from (each for _, each in traffic.ports)


def _of_service_entry(one: ServiceEntry) -> Iterator[str]:
    who = f"ServiceEntry {one.meta.namespace}/{one.meta.name}"
    for network in one.addresses:
        if network.prefixlen < network.max_prefixlen:
            yield (
                f"{who}: address {network} is a range: node proxies leave calls to it alone, in plaintext "
                "and past policies and waypoints; single addresses are acted on"
            )
    if one.export_to and "*" not in one.export_to:
        yield f"{who}: exportTo is not honoured: it is there in every namespace, as in Istio's ambient mode"
    if one.resolution is Resolution.DYNAMIC_DNS:
        yield f"{who}: resolution DYNAMIC_DNS needs a waypoint: node proxies cannot resolve a '*'"
    if one.resolution is Resolution.STATIC and not one.endpoints and not one.selector:
        yield f"{who}: resolution STATIC without endpoints or a workloadSelector: nobody serves it"
    if one.meta.labels.get(USE, "none") != "none" and not one.addresses and not one.allocated:
        yield f"{who}: without addresses calls go past its waypoint: node proxies know it by these alone"
