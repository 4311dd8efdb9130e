"""All objects of a cluster, as informers tell them; sans I/O.

What is wrong with an object costs only that one: its last good version stays in force, and the faults name
the object and the field. An object that reads as it did before is no change, whatever else has changed in
it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import NamedTuple

from ztunnel.control.change import Change
from ztunnel.control.document import Found, Key, Object, read_value
from ztunnel.control.inventory import POLICIES, FaultyPolicy, Inventory
from ztunnel.control.served import Served, trim
from ztunnel.errors import Fault
from ztunnel.kube import informer


@dataclass(frozen=True, slots=True)
class _Faulty:
    faults: tuple[Fault, ...]
    scope: Mapping[str, str] | None


class Batch(NamedTuple):
    """What has changed since the last one: each object as it is now, None where it is gone; and its names."""

    objects: Mapping[Key, Object | None]
    change: Change


class Collection:
    """The objects in force. `events` counts what was told, by kind and `add`, `update` or `delete`."""

    def __init__(self, count: Callable[[str, str], None] = lambda _kind, _event: None) -> None:
        self._count = count
        self._objects: dict[Key, Object] = {}
        self._faulty: dict[Key, _Faulty] = {}
        self._before: dict[Key, Object | None] = {}
        self.faults: tuple[Fault, ...] = ()

    def take(self, served: Served, changes: Iterable[informer.Change]) -> None:
        """Take over what an informer told of one kind."""
        before = dict(self._faulty)
        for change in changes:
            key = Key(served.kind, *change.name)
            if isinstance(change, informer.Removal):
                self._count(served.kind, "delete")
                self._faulty.pop(key, None)
                self._put(key, None)
            else:
                self._count(served.kind, "update" if key in self._objects else "add")
                self._read(key, read_value(trim(change.value), served.reader, strict=served.strict))
        if before != self._faulty:
            self.faults = tuple(sorted(fault for one in self._faulty.values() for fault in one.faults))

    def _read(self, key: Key, found: Found) -> None:
        if found.object is not None:
            self._faulty.pop(key, None)
            self._put(key, found.object)
            return
        self._faulty[key] = _Faulty(tuple(replace(one, file=str(key)) for one in found.faults), found.scope)

    def _put(self, key: Key, new: Object | None) -> None:
        old = self._objects.get(key)
        if old == new:
            return
        self._before.setdefault(key, old)
        if new is None:
            del self._objects[key]
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
