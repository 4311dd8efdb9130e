"""YAML manifests as typed reads with faults: every wrong thing is found, each with its line and field.

A file is cut into documents as kubectl does (at lines that begin with `---`), so that a change in one of
thousands costs the parsing of one, and a document that is no YAML costs only itself. A `Field` is a place in
a document; its readers return a default and note a fault where the value is wrong, so that reading goes on
and the operator learns of everything at once.

PyYAML's C composer recurses without a limit and takes the process with it (seen at a depth of 100,000), so
depth is checked before it runs. Aliases cost nothing while composing, but a walk over them can be
exponential: the number of reads is bounded."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Final

import yaml

from ztunnel.errors import Fault

MAX_DEPTH: Final = 100
MAX_READS: Final = 2_000_000
"""Values read of one document; a `kind: List` of 10,000 pods needs a quarter of it."""

_CUT = re.compile(r"^\ufeff?---(?=[ \t\r\n]|\Z)", re.MULTILINE)
_OPENERS = re.compile(r"[\[{]")
_MARGIN = re.compile(r"^[ \-?]{200}", re.MULTILINE)
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_PLAIN = re.compile(r"[A-Za-z0-9_-]+")
_TAG = "tag:yaml.org,2002:"
_NAMES = {
    "str": "a string",
    "int": "a number",
    "float": "a number",
    "bool": "a boolean",
    "null": "null",
    "map": "a mapping",
    "seq": "a list",
    "timestamp": "a timestamp",
}


@dataclass(frozen=True, slots=True)
class Chunk:
    """One document's text and the line of its file on which it begins, counted from 1."""

    line: int
    text: str


def cut(text: str) -> list[Chunk]:
    """The documents of a file. One that consists of comments only is left in, and reads as nothing."""
    chunks = []
    line, start = 1, 0
    for mark in _CUT.finditer(text):
        if mark.start() > start:
            chunks.append(Chunk(line, text[start : mark.start()]))
            line += text.count("\n", start, mark.start())
        start = mark.start()
    if start < len(text):
        chunks.append(Chunk(line, text[start:]))
    return chunks


class TooLarge(Exception):
    """A document holds more than `MAX_READS` values, in practice aliases of aliases."""


@dataclass(slots=True)
class Notes:
    """What reading one document found: its faults (lines count from 1 within the document) and reads left."""

    faults: list[Fault] = field(default_factory=list)
    reads: int = MAX_READS

    def spend(self) -> None:
        """One more value is read. Raises TooLarge: there were too many."""
        self.reads -= 1
        if self.reads < 0:
            raise TooLarge

    def add(self, line: int, path: str, message: str) -> None:
        """Note one fault; the file is filled in by whoever knows it."""
        self.faults.append(Fault("", line, path, message))


def compose(text: str, notes: Notes) -> Field | None:
    """The root of one document; None where there is nothing in it, or a fault now in `notes`.

    A byte order mark may begin each document of a stream (YAML 1.2, 5.2).
    """
    text = text.removeprefix("\ufeff")
    try:
        if _depth_is_doubtful(text) and _too_deep(text):
            notes.add(1, "", f"nested deeper than {MAX_DEPTH} levels")
            return None
        node = yaml.compose(text, Loader=yaml.CSafeLoader)
    except yaml.MarkedYAMLError as error:
        # At the end of the text libyaml names the line behind the last one.
        last = text.count("\n") + 1
        line = min(error.problem_mark.line + 1, last) if error.problem_mark else 1
        notes.add(line, "", f"not YAML: {error.problem or error.context}")
        return None
    except yaml.YAMLError as error:
        notes.add(1, "", f"not YAML: {str(error).splitlines()[0]}")
        return None
    if node is None or node.tag == _TAG + "null":
        return None
    return Field(node, "", notes)


def _depth_is_doubtful(text: str) -> bool:
    """Whether nesting could pass `MAX_DEPTH` by far: told by opening brackets and the widest margin."""
    openers = _OPENERS.finditer(text)
    return (
        sum(1 for _, _ in zip(range(1000), openers, strict=False)) == 1000 or _MARGIN.search(text) is not None
    )


def _too_deep(text: str) -> bool:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    return False


def _join(path: str, name: str) -> str:
    if not _PLAIN.fullmatch(name):
        return f"{path}[{name}]"
    return f"{path}.{name}" if path else name


class Field:
    """One place in a document: a node of it, the path that leads there, and where faults are noted."""

    __slots__ = ("_node", "_notes", "path")

    def __init__(self, node: yaml.Node, path: str, notes: Notes) -> None:
        self._node = node
        self._notes = notes
        self.path = path
        notes.spend()

    @property
    def line(self) -> int:
        """Counted from 1 within the document."""
        return int(self._node.start_mark.line) + 1

    def fault(self, message: str) -> None:
        """Note that this place is wrong."""
        self._notes.add(self.line, self.path, message)

    def note_duplicates(self, apart_from: str = "") -> None:
        """Note every key that stands twice in one mapping, here and below, but not below the field
        `apart_from`. Each node is looked at once, however often it is aliased."""
        seen = {id(self._node)}
        waiting = [(self._node, self.path)]
        while waiting:
            node, path = waiting.pop()
            self._notes.spend()
            for child, below in self._children(node, path):
                if not isinstance(child, yaml.ScalarNode) and id(child) not in seen:
                    seen.add(id(child))
                    if below != apart_from:
                        waiting.append((child, below))

    def _children(self, node: yaml.Node, path: str) -> list[tuple[yaml.Node, str]]:
        """What stands in a mapping or list, with its paths; keys that stand there twice are noted."""
        if isinstance(node, yaml.SequenceNode):
            return [(value, f"{path}[{index}]") for index, value in enumerate(node.value)]
        names: set[str] = set()
        children = []
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else "?"
            if name in names:
                place = _join(path, name)
                self._notes.add(key.start_mark.line + 1, place, "stands twice in the same mapping")
            names.add(name)
            if not isinstance(value, yaml.ScalarNode):
                children.append((value, _join(path, name)))
        return children

    def is_mapping(self) -> bool:
        """Whether this is a mapping; a fault is noted where it is not."""
        if isinstance(self._node, yaml.MappingNode):
            return True
        self._wrong("a mapping")
        return False

    def is_null(self) -> bool:
        """Whether nothing, `~` or `null` stands here, which Kubernetes reads as an absent field."""
        return bool(self._node.tag == _TAG + "null")

    def sub(self, name: str) -> Field | None:
        """The field of that name, or None where it is absent or null (or this is no mapping)."""
        if isinstance(self._node, yaml.MappingNode):
            for key, value in self._node.value:
                if key.value == name:
                    below = Field(value, _join(self.path, name), self._notes)
                    return None if below.is_null() else below
        return None

    def pairs(self) -> Iterator[tuple[str, Field]]:
        """Names and fields of a mapping with free keys; a key that is no scalar is a fault."""
        if not self.is_mapping():
            return
        for key, value in self._node.value:
            if isinstance(key, yaml.ScalarNode):
                yield key.value, Field(value, _join(self.path, key.value), self._notes)
            else:
                self.fault("a key must be a string")

    def only(self, names: Collection[str], similar_to: Collection[str] | None = None) -> None:
        """Note each field whose name is none of `names`; with `similar_to`, only those that look like a slip
        of one."""
        if not self.is_mapping():
            return
        for name, below in self.pairs():
            if name in names:
                continue
            guess = get_close_matches(name, names if similar_to is None else similar_to, n=1, cutoff=0.75)
            if guess:
                below.fault(f"unknown field; did you mean {guess[0]}?")
            elif similar_to is None:
                below.fault("unknown field")

    def each(self, name: str) -> list[Field]:
        """The elements of the list of that name; none where it is absent."""
        below = self.sub(name)
        if below is None:
            return []
        if not isinstance(below._node, yaml.SequenceNode):
            below._wrong("a list")
            return []
        values = enumerate(below._node.value)
        return [Field(value, f"{below.path}[{index}]", self._notes) for index, value in values]

    def text(self, name: str, default: str = "") -> str:
        """The string of that name."""
        below = self.sub(name)
        return default if below is None else below.as_text(default)

    def flag(self, name: str) -> bool:
        """The boolean of that name, False where it is absent."""
        below = self.sub(name)
        if below is None:
            return False
        if below._node.tag != _TAG + "bool":
            below._wrong("a boolean")
            return False
        return str(below._node.value).lower() in ("true", "yes", "on")

    def as_text(self, default: str = "") -> str:
        """This as a string. A plain timestamp counts as one; a number or boolean has to stand in quotes."""
        if self._node.tag in (_TAG + "str", _TAG + "timestamp"):
            return str(self._node.value)
        self._wrong("a string")
        return default

    def as_number(self) -> int | None:
        """This as a decimal integer."""
        if self._node.tag == _TAG + "int" and _INTEGER.fullmatch(self._node.value):
            return int(self._node.value)
        self._wrong("a decimal number")
        return None

    def holds_number(self) -> bool:
        """Whether a number stands here; for fields that take a number or a name."""
        return bool(self._node.tag == _TAG + "int")

    def _wrong(self, wanted: str) -> None:
        kind = self._node.tag.removeprefix(_TAG)
        found = _NAMES.get(kind, f"of the tag {self._node.tag}")
        quotes = "; write it in quotes" if wanted == "a string" and kind in ("int", "float", "bool") else ""
        self.fault(f"must be {wanted}, is {found}{quotes}")
