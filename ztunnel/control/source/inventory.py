"""All objects of a folder, gathered from its files; what did not change is neither parsed again nor made
anew.

Every file is cut into documents, and what a document's text was read as is kept for as long as the text
stands in some file. Objects that read equal to those before are those before, so that the translation can
tell at a glance what changed.

What is wrong costs only itself, and keeps its last good version: an object whose kind and name can be told,
that one; a document or file that cannot be read, every object that stood in the file and stands nowhere
else now. Of an object in two places the first one counts, in order of file names and lines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple, TypeVar

from ztunnel.control.source.document import Key, Object
from ztunnel.control.source.reading import Found, Parsed, in_file, parse, parse_frame, parse_item, twice
from ztunnel.errors import Fault
from ztunnel.state import istio
from ztunnel.state.listing import cut_list
from ztunnel.state.manifest import Chunk, cut
from ztunnel.state.request_authentication import RequestAuthentication

T = TypeVar("T", bound=Object)

LONG = 16_384
"""Characters from which on a list is cut into its items."""

POLICIES = (
    istio.AuthorizationPolicy.__name__,
    istio.PeerAuthentication.__name__,
    RequestAuthentication.__name__,
)


class Place(NamedTuple):
    """Where an object stands. Prints as `file:line`."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class FaultyPolicy:
    """A policy that cannot be taken over as it is written now.

    `selector` is what it selects by, None where that cannot be told; `kept` says whether its last good
    version is in force, or none.
    """

    key: Key
    selector: Mapping[str, str] | None
    faults: tuple[Fault, ...]
    kept: bool


@dataclass(frozen=True, slots=True)
class Inventory:
    """Every object by its key, those included that are their last good version, and where it stands or stood.

    `unknown` are the unread kinds, `faults` all that is wrong, `faulty_files` where, `kept` the keys of the
    last good versions, and `policies` the policies among what is wrong. `parsed`, by digests of texts, is for
    the next gathering.
    """

    objects: Mapping[Key, Object] = field(default_factory=dict)
    places: Mapping[Key, Place] = field(default_factory=dict)
    unknown: frozenset[str] = frozenset()
    faults: tuple[Fault, ...] = ()
    faulty_files: frozenset[str] = frozenset()
    kept: frozenset[Key] = frozenset()
    policies: tuple[FaultyPolicy, ...] = ()
    parsed: Mapping[bytes, Parsed] = field(default_factory=dict, repr=False)


class _Part(NamedTuple):
    """A document, or an item of a list, that is read by itself."""

    chunk: Chunk
    number: int | None
    document: Parsed

    def place(self, fault: Fault, name: str) -> Fault:
        """A fault of it as one of its file."""
        return in_file(fault, name, self.chunk, self.number)


@dataclass(slots=True)
class _Gathering:
    """`unreadable` are files (and folders) of which not every object can be named."""

    before: Inventory
    objects: dict[Key, Object] = field(default_factory=dict)
    places: dict[Key, Place] = field(default_factory=dict)
    parsed: dict[bytes, Parsed] = field(default_factory=dict)
    faults: set[Fault] = field(default_factory=set)
    wrong: list[tuple[Key, Found, tuple[Fault, ...]]] = field(default_factory=list)
    unreadable: set[str] = field(default_factory=set)
    kept: set[Key] = field(default_factory=set)

    def read(self, name: str, text: str) -> None:
        """Take over what is good in a file, and note what is not."""
        for whole in cut(text):
            for part in self._items(whole) or [_Part(whole, None, self._parse(whole.text, None))]:
                document = part.document
                if document.faults:
                    self.unreadable.add(name)
                    self.faults.update(part.place(fault, name) for fault in document.faults)
                for one in document.found:
                    self._take(one, name, part)

    def _take(self, one: Found, name: str, part: _Part) -> None:
        if one.key is None or one.object is None:
            self._note(one, name, tuple(part.place(fault, name) for fault in one.faults))
            return
        key, place = one.key, Place(name, one.line + part.chunk.line - 1)
        if key in self.objects:
            self.faults.add(twice(key, *place, str(self.places[key])))
            return
        old = self.before.objects.get(key)
        self.objects[key] = old if old is not None and old == one.object else one.object
        self.places[key] = place

    def _parse(self, text: str, inherited: tuple[str, str] | None) -> Parsed:
        """What a document is read as, or an item of a list; from before where it was read before."""
        known_by = text if inherited is None else f"{inherited!r}\0{text}"
        digest = blake2b(known_by.encode(errors="surrogatepass"), digest_size=16).digest()
        found = self.parsed.get(digest) or self.before.parsed.get(digest)
        if found is None:
            found = parse(text) if inherited is None else parse_item(text, inherited)
        self.parsed[digest] = found
        return found

    def _items(self, whole: Chunk) -> list[_Part]:
        """The items of a long list, each read by itself; none where the document has to be read as a
        whole."""
        listing = cut_list(whole.text) if len(whole.text) >= LONG else None
        inherited = parse_frame(listing) if listing else None
        if listing is None or inherited is None:
            return []
        parts = []
        for number, item in enumerate(listing.items):
            document = self._parse(item.text, inherited)
            if document.faults:
                return []
            parts.append(_Part(Chunk(item.line + whole.line - 1, item.text), number, document))
        return parts

    def _note(self, one: Found, name: str, faults: tuple[Fault, ...]) -> None:
        self.faults.update(faults)
        if one.key is None:
            self.unreadable.add(name)
        else:
            self.wrong.append((one.key, one, faults))

    def keep(self) -> None:
        """What cannot be read now stays what it was."""
        for key, _, _ in self.wrong:
            self._keep(key)
        if self.unreadable:
            below = tuple(f"{name}/" for name in self.unreadable)
            for key, place in self.before.places.items():
                if f"{place.file}/".startswith(below):
                    self._keep(key)

    def _keep(self, key: Key) -> None:
        if key not in self.objects and key in self.before.objects:
            self.objects[key], self.places[key] = self.before.objects[key], self.before.places[key]
            self.kept.add(key)


def gather(files: Mapping[str, str | Fault], before: Inventory) -> Inventory:
    """The objects of `files` (name to text, or to the fault that kept it from being read), and what is wrong
    in them."""
    gathering = _Gathering(before)
    for name in sorted(files):
        text = files[name]
        if isinstance(text, str):
            gathering.read(name, text)
        else:
            gathering.faults.add(text)
            gathering.unreadable.add(name)
    gathering.keep()
    objects, kept = gathering.objects, gathering.kept
    return Inventory(
        objects,
        gathering.places,
        frozenset().union(*(document.unknown for document in gathering.parsed.values())),
        tuple(sorted(gathering.faults)),
        frozenset(fault.file for fault in gathering.faults),
        frozenset(kept),
        tuple(
            FaultyPolicy(key, one.scope, faults, key in objects)
            for key, one, faults in gathering.wrong
            if key.kind in POLICIES
        ),
        gathering.parsed,
    )


def of_kind(objects: Iterable[Object], kind: type[T]) -> list[T]:
    """The objects of one kind, in order."""
    return [found for found in objects if isinstance(found, kind)]
