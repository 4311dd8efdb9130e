"""All that a control plane serves at one moment, as resources ready to be sent."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from immutables import Map, MapMutation

from ztunnel.xds.pb import discovery_pb2
from ztunnel.xds.resource import TYPES, Resource, name_of, render, type_of

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Resources by type URL and name, and in `origins` what each was rendered from.

    `changed` names by type what differs from the snapshot before, which is that of the same `lineage` with
    the `serial` before: who has sent that one has to look at nothing else.

    `changed_at`: when the first of these changes was known, by the clock of whoever made the snapshot.
    """

    resources: Mapping[str, Map[str, discovery_pb2.Resource]] = field(
        default_factory=lambda: {type_url: Map() for type_url in TYPES}
    )
    origins: Mapping[str, Map[str, Resource]] = field(
        default_factory=lambda: {type_url: Map() for type_url in TYPES}
    )
    changed: Mapping[str, frozenset[str]] = field(
        default_factory=lambda: {type_url: frozenset() for type_url in TYPES}
    )
    serial: int = 0
    lineage: object = field(default_factory=object, compare=False, repr=False)
    changed_at: float = field(default=-math.inf, compare=False)

    def follows(self, other: Snapshot) -> bool:
        """Whether `changed` is what differs from `other`."""
        return self.lineage is other.lineage and self.serial == other.serial + 1


def advance(
    before: Snapshot,
    changes: Mapping[str, Mapping[str, Resource | None]],
    network: str,
    changed_at: float = -math.inf,
) -> Snapshot:
    """The snapshot after `changes`: by type and name a resource that is new or another, None for one that is
    gone. Costs what has changed.

    Args:
        before: the snapshot before, made with the same `network`.
        changes: see above.
        network: that of the services' addresses.
        changed_at: when the first of the changes was known.
    """
    resources, origins = dict(before.resources), dict(before.origins)
    changed = {type_url: frozenset[str]() for type_url in TYPES}
    for type_url, ones in changes.items():
        names = set()
        with resources[type_url].mutate() as made, origins[type_url].mutate() as sources:
            for name, one in ones.items():
                if _put(made, name, one, network):
                    names.add(name)
                    _set(sources, name, one)
            resources[type_url], origins[type_url] = made.finish(), sources.finish()
        changed[type_url] = frozenset(names)
    return Snapshot(resources, origins, changed, before.serial + 1, before.lineage, changed_at)


def take(resources: Iterable[Resource], network: str, before: Snapshot) -> Snapshot:
    """A snapshot of exactly these resources; of several with one name the last counts."""
    changes: dict[str, dict[str, Resource | None]] = {
        type_url: dict.fromkeys(before.resources[type_url]) for type_url in TYPES
    }
    for resource in resources:
        changes[type_of(resource)][name_of(resource)] = resource
    return advance(before, changes, network)


def _put(
    made: MapMutation[str, discovery_pb2.Resource], name: str, one: Resource | None, network: str
) -> bool:
    """Whether that is a change."""
    old, new = made.get(name), None if one is None else render(one, network)
    if old is new or (old is not None and new is not None and old.version == new.version):
        return False
    _set(made, name, new)
    return True


def _set(made: MapMutation[str, V], name: str, new: V | None) -> None:
    if new is None:
        del made[name]
    else:
        made[name] = new
