"""Endpoints that a user wrote for a service without a selector: EndpointSlice, and the older Endpoints."""

from __future__ import annotations

from collections.abc import Iterable

from ztunnel.demo.allot import parse_addresses
from ztunnel.demo.assign import Objects
from ztunnel.demo.manifest import Key, Manifest, Part
from ztunnel.model.address import Endpoint

_SERVICE = "kubernetes.io/service-name"


def given_endpoints(service: Key, objects: Objects) -> dict[str, list[Endpoint]]:
    """The ready endpoints by the name of the service's port."""
    found: dict[str, list[Endpoint]] = {}
    for key, one in objects.items():
        if key.namespace != service.namespace:
            continue
        if (key.group, key.kind) == ("discovery.k8s.io", "EndpointSlice"):
            if one.pull("metadata.labels", dict, {}).get(_SERVICE) == service.name:
                _add(found, one.parts("ports"), _of_slice(one))
        elif (key.group, key.kind, key.name) == ("", "Endpoints", service.name):
            for subset in one.parts("subsets"):
                addresses = [entry.pull("ip", str, "") for entry in subset.parts("addresses")]
                _add(found, subset.parts("ports"), addresses)
    return found


def _of_slice(piece: Manifest) -> list[str]:
    ready = [end for end in piece.parts("endpoints") if end.pull("conditions.ready", bool, True)]
    return [str(address) for end in ready for address in end.pull("addresses", list, [])]


def _add(found: dict[str, list[Endpoint]], ports: Iterable[Part], addresses: list[str]) -> None:
    for port in ports:
        number = port.pull("port", int, 0)
        ends = [Endpoint(ip, number) for ip in parse_addresses(addresses)]
        found.setdefault(port.pull("name", str, ""), []).extend(ends)
