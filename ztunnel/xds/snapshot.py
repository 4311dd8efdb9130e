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

    `aliases`: the names of the resources that are asked for by another name. `network`: that of the services'
    addresses.

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
    aliases: Map[str, frozenset[str]] = field(default_factory=Map)
    network: str = ""
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
    aliases = before.aliases.mutate()
    for type_url, ones in changes.items():
        names = set()
        with resources[type_url].mutate() as made, origins[type_url].mutate() as sources:
            for name, one in ones.items():
                old, new = made.get(name), None if one is None else render(one, network)
                if _differ(old, new):
                    names.add(name)
                    _set(made, name, new)
                    _name(aliases, name, old, new)
                    _set(sources, name, one)
            resources[type_url], origins[type_url] = made.finish(), sources.finish()
        changed[type_url] = frozenset(names)
    named = aliases.finish()
    serial = before.serial + 1
    return Snapshot(resources, origins, changed, named, network, serial, before.lineage, changed_at)


def take(resources: Iterable[Resource], network: str, before: Snapshot) -> Snapshot:
    """A snapshot of exactly these resources; of several with one name the last counts."""
    changes: dict[str, dict[str, Resource | None]] = {
        type_url: dict.fromkeys(before.resources[type_url]) for type_url in TYPES
    }
    for resource in resources:
        changes[type_of(resource)][name_of(resource)] = resource
    return advance(before, changes, network)


def _differ(old: discovery_pb2.Resource | None, new: discovery_pb2.Resource | None) -> bool:
    return old is not new and (old is None or new is None or old.version != new.version)


def _name(
    aliases: MapMutation[str, frozenset[str]],
    name: str,
    old: discovery_pb2.Resource | None,
    new: discovery_pb2.Resource | None,
) -> None:
    """Have the resource of that name found by its aliases."""
    before = {*old.aliases} if old is not None else set[str]()
    now = {*new.aliases} if new is not None else set[str]()
    for alias in before - now:
        _set(aliases, alias, aliases[alias] - {name} or None)
    for alias in now - before:
        aliases[alias] = aliases.get(alias, frozenset()) | {name}


def _set(made: MapMutation[str, V], name: str, new: V | None) -> None:
    if new is None:
        del made[name]
    else:
        made[name] = new
