"""Endpoints of services that somebody names by their addresses: EndpointSlice, and Endpoints, which
Kubernetes mirrors into slices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ztunnel.model.address import IPAddress
from ztunnel.state.field import Field
from ztunnel.state.meta import Meta, read_choice, read_ip, read_meta, read_port

_MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
_CONTROLLER = "endpointslice-controller.k8s.io"
_SKIP_MIRROR = "endpointslice.kubernetes.io/skip-mirror"


@dataclass(frozen=True, slots=True)
class SliceEndpoint:
    """An endpoint of a slice. `pod` is the name of the pod that it says is behind it, empty where it says
    none. `draining` is one that terminates and still serves."""

    addresses: tuple[IPAddress, ...]
    ready: bool = True
    pod: str = ""
    draining: bool = False


@dataclass(frozen=True, slots=True)
class EndpointSlice:
    """Endpoints of the service `service`; `ports` maps names of service ports to the endpoints' own ports.

    `generated` says whether Kubernetes made it of a service's selector.
    """

    meta: Meta
    service: str
    ports: Mapping[str, int]
    endpoints: tuple[SliceEndpoint, ...]
    generated: bool = False


@dataclass(frozen=True, slots=True)
class Endpoints:
    """A v1 Endpoints: the slices that it is mirrored into."""

    meta: Meta
    slices: tuple[EndpointSlice, ...]


def read_endpoint_slice(root: Field) -> EndpointSlice:
    """discovery.k8s.io/v1 EndpointSlice; one of names instead of addresses (FQDN) has no endpoints for us."""
    meta = read_meta(root)
    by_address = read_choice(root, "addressType", "IPv4", "IPv6", "FQDN") != "FQDN"
    endpoints = tuple(_slice_endpoint(place) for place in root.each("endpoints")) if by_address else ()
    return EndpointSlice(
        meta,
        meta.labels.get("kubernetes.io/service-name", ""),
        _ports(root),
        endpoints,
        meta.labels.get(_MANAGED_BY) == _CONTROLLER,
    )


def read_endpoints(root: Field) -> Endpoints:
    """v1 Endpoints; one that says so is not mirrored."""
    meta = read_meta(root)
    slices = []
    for place in root.each("subsets"):
        place.only(["addresses", "notReadyAddresses", "ports"])
        ready = [_address(one, ready=True) for one in place.each("addresses")]
        unready = [_address(one, ready=False) for one in place.each("notReadyAddresses")]
        slices.append(EndpointSlice(meta, meta.name, _ports(place), (*ready, *unready)))
    return Endpoints(meta, () if meta.labels.get(_SKIP_MIRROR) == "true" else tuple(slices))


def _ports(parent: Field) -> dict[str, int]:
    """TCP ports by their names."""
    ports = {}
    for place in parent.each("ports"):
        place.only(["appProtocol", "name", "port", "protocol"])
        number = place.sub("port")
        if number is not None and read_choice(place, "protocol", "TCP", "UDP", "SCTP") in ("", "TCP"):
            ports[place.text("name")] = read_port(number)
    return ports


def _slice_endpoint(place: Field) -> SliceEndpoint:
    """An endpoint without a condition is ready, and serves where it is ready."""
    place.only(
        [
            "addresses",
            "conditions",
            "deprecatedTopology",
            "hints",
            "hostname",
            "nodeName",
            "targetRef",
            "zone",
        ]
    )
    target, conditions = place.sub("targetRef"), place.sub("conditions")
    ready, serving, terminating = True, True, False
    if conditions is not None:
        ready = conditions.flag("ready") or conditions.sub("ready") is None
        serving = conditions.flag("serving") or (conditions.sub("serving") is None and ready)
        terminating = conditions.flag("terminating")
    addresses = tuple(ip for address in place.each("addresses") for ip in read_ip(address))
    return SliceEndpoint(addresses, ready, _pod_name(target), not ready and serving and terminating)


def _address(place: Field, *, ready: bool) -> SliceEndpoint:
    place.only(["hostname", "ip", "nodeName", "targetRef"])
    ip = place.sub("ip")
    if ip is None:
        place.fault("ip is missing")
    return SliceEndpoint(read_ip(ip) if ip else (), ready, _pod_name(place.sub("targetRef")))


def _pod_name(target: Field | None) -> str:
    return target.text("name") if target and target.text("kind") == "Pod" else ""
