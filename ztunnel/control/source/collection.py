"""All objects of a cluster, as informers tell them; sans I/O.

What is wrong with an object costs only that one: its last good version stays in force, and the faults name
the object and the field. An object that reads as it did before is no change, whatever else has changed in
it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from ztunnel.control.services.endpoint import Name
from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.change import Change
from ztunnel.control.source.document import Key, Object
from ztunnel.control.source.inventory import POLICIES, FaultyPolicy, Inventory
from ztunnel.control.source.kept_texts import read_texts, render_texts
from ztunnel.control.source.reading import read_value
from ztunnel.control.source.served import Served, trim
from ztunnel.control.status.condition import Condition
from ztunnel.control.status.conditions import Said, gateway_status, wanted
from ztunnel.control.status.standing import Standing, merge, read_standing, status_of_route
from ztunnel.errors import Fault
from ztunnel.kube import informer
from ztunnel.kube.resource import Resource
from ztunnel.state.connection_route import TCPRoute, TLSRoute
from ztunnel.state.http_route import GRPCRoute, HTTPRoute
from ztunnel.state.kube import Service
from ztunnel.state.rate_limit_policy import RateLimitPolicy

ROUTES: Final = tuple(kind.__name__ for kind in (HTTPRoute, GRPCRoute, TCPRoute, TLSRoute))
_KEPT: Final = ("apiVersion", "kind", "metadata", "spec")
"""What is kept of a policy's last good version."""
WAYPOINTS: Final = "waypoints"
"""Where it is kept which have served."""
_SERVED: Final = "served"
MESH: Final = "mesh"
"""Where the texts of mesh configs are kept in which that was good what is not any more."""
_TEXTS: Final = "texts"
REMEMBERED: Final = (*POLICIES, RateLimitPolicy.__name__)
"""Kinds whose last good versions are kept over restarts."""


@dataclass(frozen=True, slots=True)
class _Faulty:
    faults: tuple[Fault, ...]
    scope: Mapping[str, str] | None


class Batch(NamedTuple):
    """What has changed since the last one: each object as it is now, None where it is gone; and its names."""

    objects: Mapping[Key, Object | None]
    change: Change


class Collection:
    """The objects in force.

    Attributes:
        faults: what is wrong with objects as they are written now, sorted.
        standings: the status of those into which conditions are written.
        unsettled: of these, those whose status may not be what it should be; whoever writes it empties it.
        said: what there is to say of an object beside the others; the translation's.
        served: the Gateways that have served as waypoints; the translation's.
        mesh: texts of mesh configs, and what in each counts though it is not written so now; the
            translation's.
        resources: in which version each kind is served.
    """

    def __init__(self, count: Callable[[str, str], None] = lambda _kind, _event: None) -> None:
        self._count = count
        self._objects: dict[Key, Object] = {}
        self._faulty: dict[Key, _Faulty] = {}
        self._before: dict[Key, Object | None] = {}
        self._istiods: set[Key] = set()
        self.faults: tuple[Fault, ...] = ()
        self.standings: dict[Key, Standing] = {}
        self.unsettled: set[Key] = set()
        self.resources: dict[str, Resource] = {}
        self.said: Callable[[Key], Said] = lambda _: Said()
        self.served: Callable[[], Iterable[Name]] = tuple
        self.mesh: Callable[[], Mapping[str, Iterable[str]]] = dict
        self._good: dict[Key, Mapping[str, Any]] = {}
        self._recalled: Mapping[str, Mapping[str, Any]] = {}

    def take(self, served: Served, changes: Iterable[informer.Change]) -> None:
        """Take over what an informer told of one kind."""
        before = dict(self._faulty)
        for change in changes:
            key = Key(served.kind, *change.name)
            if isinstance(change, informer.Removal):
                self._count(served.kind, "delete")
                self._faulty.pop(key, None)
                self.standings.pop(key, None)
                self._put(key, None)
            else:
                self._count(served.kind, "update" if key in self._objects else "add")
                self._read(served, key, trim(change.value))
                self._stand(key, change.value, kept=served.has_status(change.value))
        if before != self._faulty:
            self.faults = tuple(sorted(fault for one in self._faulty.values() for fault in one.faults))

    def _read(self, served: Served, key: Key, value: Mapping[str, Any]) -> None:
        found = read_value(value, served.reader, strict=served.strict)
        if found.object is not None:
            self._faulty.pop(key, None)
            self._put(key, found.object)
            if key.kind in REMEMBERED:
                self._good[key] = {name: value[name] for name in _KEPT if name in value}
            return
        self._faulty[key] = _Faulty(tuple(replace(one, file=str(key)) for one in found.faults), found.scope)
        kept = self._recalled.get(_file_name(key))
        if key not in self._objects and kept is not None:
            before = read_value(kept, served.reader, strict=served.strict)
            if before.object is not None and before.key == key:
                self._put(key, before.object)
                self._good[key] = kept

    def recall(self, kept: Mapping[str, Mapping[str, Any]]) -> None:
        """Take these, which `last_good` gave to an earlier process, for policies that are faulty when they
        are listed first."""
        self._recalled = kept

    def last_good(self) -> dict[str, Mapping[str, Any]]:
        """For the next process: of policies that are faulty now the versions in force, which waypoints have
        served, and of the mesh config what is in force and not good any more."""
        kept: dict[str, Mapping[str, Any]] = {
            _file_name(key): self._good[key] for key in self._faulty if key in self._good
        }
        if served := sorted("/".join(name) for name in self.served()):
            kept[WAYPOINTS] = {_SERVED: served}
        if texts := render_texts(self.mesh().items()):
            kept[MESH] = {_TEXTS: texts}
        return kept

    def _stand(self, key: Key, value: Mapping[str, Any], *, kept: bool) -> None:
        if kept:
            self.standings[key] = read_standing(value)
            self.unsettled.add(key)
        else:
            self.standings.pop(key, None)

    def conditions(self, key: Key, settings: MeshSettings) -> tuple[Condition, ...]:
        """Those that the status of this object should have."""
        faulty = self._faulty.get(key)
        faults = faulty.faults if faulty else ()
        return wanted(self._objects.get(key), faults, settings, self.said(key), key.kind)

    def status(self, key: Key, settings: MeshSettings, stamp: str) -> Mapping[str, Any] | None:
        """What of an object's status is to be written; None where all is. `stamp`: the time, as Kubernetes
        writes it."""
        standing, said = self.standings[key], self.said(key)
        if key.kind in ROUTES:
            faulty = self._faulty.get(key)
            known = said.routing if key in self._objects else None
            return status_of_route(standing, known, faulty.faults if faulty else (), stamp)
        conditions = merge(standing, self.conditions(key, settings), stamp)
        if conditions is None:
            return None
        return {"conditions": conditions, **gateway_status(said, standing, stamp)}

    @property
    def istiod(self) -> Key | None:
        """The service of an istiod of this cluster, if there is one: it writes status then, and not we."""
        return next(iter(self._istiods), None)

    def _put(self, key: Key, new: Object | None) -> None:
        old = self._objects.get(key)
        if old == new:
            return
        self._before.setdefault(key, old)
        self._istiods.discard(key)
        if isinstance(new, Service) and new.meta.labels.get("app") == "istiod":
            self._istiods.add(key)
        if new is None:
            del self._objects[key]
            self._good.pop(key, None)
        else:
            self._objects[key] = new

    @property
    def changed(self) -> bool:
        """Whether `flush` would give anything."""
        return bool(self._before)

    def flush(self) -> Batch:
        """What has changed since it was asked for last."""
        before, self._before = self._before, {}
        pairs = {key: (old, self._objects.get(key)) for key, old in before.items()}
        changed = {key: new for key, (old, new) in pairs.items() if old != new}
        return Batch(
            changed,
            Change(
                tuple(sorted(key for key in changed if pairs[key][0] is None)),
                tuple(sorted(key for key in changed if None not in pairs[key])),
                tuple(sorted(key for key in changed if pairs[key][1] is None)),
            ),
        )

    def inventory(self) -> Inventory:
        """For reports: everything as it is now. Its objects are a view: they change as they do here."""
        faulty = self._faulty.items()
        return Inventory(
            MappingProxyType(self._objects),
            faults=self.faults,
            faulty_files=frozenset(str(key) for key in self._faulty),
            kept=frozenset(key for key in self._faulty if key in self._objects),
            policies=tuple(
                FaultyPolicy(key, one.scope, one.faults, key in self._objects)
                for key, one in faulty
                if key.kind in POLICIES
            ),
        )


def served_of(kept: Mapping[str, Mapping[str, Any]]) -> Iterator[Name]:
    """The Gateways that have served as waypoints, by what an earlier process has kept."""
    found = kept.get(WAYPOINTS, {}).get(_SERVED)
    for one in found if isinstance(found, list) else ():
        namespace, _, name = one.partition("/") if isinstance(one, str) else ("", "", "")
        if name:
            yield namespace, name


def mesh_of(kept: Mapping[str, Mapping[str, Any]]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The texts of mesh configs that an earlier process has kept, with what is good in each."""
    return read_texts(kept.get(MESH, {}).get(_TEXTS))


def _file_name(key: Key) -> str:
    """As a key of a ConfigMap may be: no name of an object has an underscore."""
    return "_".join(key)
