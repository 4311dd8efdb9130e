"""Reads one document of a manifest: the objects in it, each with its own faults.

An object that is wrong costs only itself: of a list, the others are read. What can be told of one that is
wrong is told, its kind, name and scope, so that its last good version can be found and the pods that it is
about can be named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Final

from ztunnel.control.source.document import KINDS, Key, Kind, Object, key_of
from ztunnel.errors import Fault
from ztunnel.state import istio, request_authentication
from ztunnel.state.field import Field
from ztunnel.state.listing import Listing
from ztunnel.state.manifest import MAX_READS, Chunk, Notes, TooLarge, YamlField, compose, cut
from ztunnel.state.value import ValueField

_OTHER_KINDS: Final = frozenset(("UDPRoute",))
"""Not read, and no slips of those that are."""


@dataclass(frozen=True, slots=True)
class Found:
    """One object of a document, on `line` of it.

    Attributes:
        key: None where its kind or name cannot be told.
        object: None where something is wrong with it.
        faults: what is wrong with it; lines count from 1 within the document.
        scope: of a policy that is wrong, the labels that it selects by; None where they cannot be told.
    """

    line: int
    key: Key | None
    object: Object | None
    faults: tuple[Fault, ...] = ()
    scope: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Parsed:
    """What one document's text holds: objects; faults of the document as a whole, of which no object can be
    read then; kinds that are not ours (`group/Kind`)."""

    found: tuple[Found, ...] = ()
    faults: tuple[Fault, ...] = ()
    unknown: frozenset[str] = frozenset()

    @property
    def objects(self) -> tuple[Object, ...]:
        """Those with which nothing is wrong."""
        return tuple(one.object for one in self.found if one.object is not None)

    @property
    def all_faults(self) -> tuple[Fault, ...]:
        """Those of the document and of each object."""
        return self.faults + tuple(fault for one in self.found for fault in one.faults)


@dataclass(slots=True)
class _Reading:
    notes: Notes
    found: list[Found] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)


def check(text: str, file: str) -> tuple[Fault, ...]:
    """Everything that is wrong in a text of documents, with `file`, line and field, in order of lines; an
    object that stands there twice included."""
    faults: list[Fault] = []
    places: dict[Key, int] = {}
    for chunk in cut(text):
        parsed = parse(chunk.text)
        faults += [in_file(fault, file, chunk) for fault in parsed.all_faults]
        for one in parsed.found:
            if one.key is not None:
                line = one.line + chunk.line - 1
                first = places.setdefault(one.key, line)
                if first != line:
                    faults.append(twice(one.key, file, line, f"{file}:{first}"))
    return tuple(sorted(faults))


def in_file(fault: Fault, file: str, chunk: Chunk, number: int | None = None) -> Fault:
    """A fault of the document `chunk` as one of its file; of the item of that number of a list that was
    cut."""
    field = fault.field
    if number is not None:
        field = f"items[{number}]{'.' if field and field[0] != '[' else ''}{field}"
    return replace(fault, file=file, line=fault.line + chunk.line - 1, field=field)


def twice(key: Key, file: str, line: int, first: str) -> Fault:
    """The fault of an object that stands at `first` already, and is in force from there."""
    return Fault(file, line, "metadata.name", f"{key} stands in {first} as well, and counts as it is there")


def parse(text: str, reads: int = MAX_READS) -> Parsed:
    """Read one document, of at most so many values. Lines are counted from its first one."""
    reading = _Reading(Notes(reads=reads))
    notes = reading.notes
    try:
        root = compose(text, notes)
        if root is not None and root.is_mapping():
            _read_root(root, reading)
    except TooLarge:
        reading.found.clear()
        notes.add(1, "", "the document is too large, or its aliases repeat each other too often")
    return _parsed(reading)


def _parsed(reading: _Reading) -> Parsed:
    own = {fault for one in reading.found for fault in one.faults}
    faults = tuple(fault for fault in reading.notes.faults if fault not in own)
    return Parsed(() if faults else tuple(reading.found), faults, frozenset(reading.unknown))


def parse_item(text: str, inherited: tuple[str, str]) -> Parsed:
    """Read one item of a list that was cut; its version and kind are `inherited` where it says none."""
    reading = _Reading(Notes())
    notes = reading.notes
    try:
        root = compose(text, notes)
        if root is not None:
            _read(root, inherited, reading)
        elif not notes.faults:
            notes.add(1, "", "must be a mapping, is null")
    except TooLarge:
        reading.found.clear()
        notes.add(1, "", "the item is too large, or its aliases repeat each other too often")
    return _parsed(reading)


def parse_frame(listing: Listing) -> tuple[str, str] | None:
    """Version and kind that the items of a list inherit; None where it is no list, or not a good one."""
    notes = Notes()
    root = compose(listing.frame, notes)
    if root is None or not root.is_mapping():
        return None
    version, name = root.text("apiVersion"), root.text("kind")
    root.note_duplicates()
    places = [field.line for key, field in root.pairs() if key == "items" and field.is_null()]
    if notes.faults or not _is_list(version, name) or len(places) != 1:
        return None
    return _inherited(version, name)


def _read_root(root: YamlField, reading: _Reading) -> None:
    """Read one object, or each of a list. The items of a typed one may leave out their version and kind."""
    version, name = root.text("apiVersion"), root.text("kind")
    if not _is_list(version, name):
        _read(root, ("", ""), reading)
        return
    root.note_duplicates(apart_from="items")
    for item in root.items("items"):
        _read(item, _inherited(version, name), reading)


def _is_list(version: str, name: str) -> bool:
    return name.endswith("List") and (version.rpartition("/")[0], name) not in KINDS


def _inherited(version: str, name: str) -> tuple[str, str]:
    return ("", "") if name == "List" else (version, name.removesuffix("List"))


def _read(place: YamlField, inherited: tuple[str, str], reading: _Reading) -> None:
    """Read one object, of the version and kind `inherited` where it says none."""
    notes = reading.notes
    before, found = len(notes.faults), None
    if place.is_mapping():
        version, name = place.text("apiVersion"), place.text("kind")
        if not version and not name:
            version, name = inherited
        group, _, number = version.rpartition("/")
        kind = KINDS.get((group, name))
        if kind is not None and number in kind.versions:
            place.note_duplicates()
            place.only(("apiVersion", "kind", "metadata", *kind.fields))
            found = kind.read(place)
        elif wrong := _not_ours(group, number, name):
            place.fault(wrong)
        else:
            reading.unknown.add(f"{group}/{name}" if group else name)
            return
    reading.found.append(_as_found(place, found, tuple(notes.faults[before:])))


def read_value(value: object, kind: Kind, *, strict: bool) -> Found:
    """Read an object that is plain values, by the reader of its kind. Its faults have no file and no line."""
    faults: list[Fault] = []
    root = ValueField(value, "", faults, strict=strict)
    found = None
    if root.is_mapping():
        root.only(("apiVersion", "kind", "metadata", *kind.fields))
        found = kind.read(root)
    return _as_found(root, found, tuple(faults))


def _as_found(place: Field, found: Object | None, faults: tuple[Fault, ...]) -> Found:
    """What was read at a place; of a faulty object what can be told."""
    if found is not None and not faults:
        return Found(place.line, key_of(found), found)
    where = tuple(_below(place.path, faults))
    key = _readable_key(found, where) if found else None
    scope = _scope(found, where) if found else None
    return Found(place.line, key, None, faults, scope)


def _not_ours(group: str, number: str, name: str) -> str:
    """What is wrong with a kind or version that is not read here; empty where it is only unknown."""
    if not number or not name:
        return "apiVersion and kind are needed"
    if kind := KINDS.get((group, name)):
        return f"{name} is read in the versions {', '.join(kind.versions)} of {group or 'the core group'}"
    kinds = {one.lower(): one for its_group, one in KINDS if its_group == group}
    if name not in _OTHER_KINDS and (guess := get_close_matches(name.lower(), kinds, n=1, cutoff=0.8)):
        return f"unknown kind {name}; did you mean {kinds[guess[0]]}?"
    groups = [its_group for its_group, one in KINDS if one == name and its_group]
    if guess := get_close_matches(group, groups, n=1, cutoff=0.8):
        return f"unknown group {group} of {name}; did you mean {guess[0]}?"
    return ""


def _below(path: str, faults: tuple[Fault, ...]) -> Iterator[str]:
    """The fields of these faults, counted from the object at `path`."""
    for fault in faults:
        yield fault.field.removeprefix(path).removeprefix(".")


def _readable_key(found: Object, wrong: tuple[str, ...]) -> Key | None:
    named = found.meta.name and not any(
        one in ("", "metadata", "metadata.name", "metadata.namespace") for one in wrong
    )
    return key_of(found) if named else None


def _scope(found: Object, wrong: tuple[str, ...]) -> Mapping[str, str] | None:
    policies = istio.AuthorizationPolicy | istio.PeerAuthentication
    if not isinstance(found, policies | request_authentication.RequestAuthentication):
        return None
    return None if any(one.startswith("spec.selector") for one in wrong) else found.selector
