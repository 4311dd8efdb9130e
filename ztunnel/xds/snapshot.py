"""All that a control plane serves at one moment, as resources ready to be sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from ztunnel.xds.pb import discovery_pb2
from ztunnel.xds.resource import ADDRESS, AUTHORIZATION, Resource, name_of, render, type_of

TYPES: Final = (AUTHORIZATION, ADDRESS)
"""Policies first: a workload that refers to a policy not received yet is refused."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Resources by type URL and name. `origins` holds what each was rendered from, for the next snapshot."""

    resources: Mapping[str, Mapping[str, discovery_pb2.Resource]] = field(
        default_factory=lambda: {type_url: {} for type_url in TYPES}
    )
    origins: Mapping[str, Mapping[str, Resource]] = field(
        default_factory=lambda: {type_url: {} for type_url in TYPES}
    )


def take(resources: Iterable[Resource], network: str, before: Snapshot) -> Snapshot:
    """A snapshot of these resources; what equals its namesake in `before` is not rendered again.

    Args:
        resources: of any type; of several with one name the last counts.
        network: that of the services' addresses.
        before: the snapshot before, made with the same `network`.
    """
    rendered: dict[str, dict[str, discovery_pb2.Resource]] = {type_url: {} for type_url in TYPES}
    origins: dict[str, dict[str, Resource]] = {type_url: {} for type_url in TYPES}
    for resource in resources:
        type_url, name = type_of(resource), name_of(resource)
        old = before.origins[type_url].get(name)
        same = old is not None and (old is resource or old == resource)
        origins[type_url][name] = old if same and old is not None else resource
        rendered[type_url][name] = before.resources[type_url][name] if same else render(resource, network)
    return Snapshot(rendered, origins)
