"""YAML manifests as typed reads with faults: every wrong thing is found, each with its line and field.

A file is cut into documents as kubectl does (at lines that begin with `---`), so that a change in one of
thousands costs the parsing of one, and a document that is no YAML costs only itself.

PyYAML's C composer recurses without a limit and takes the process with it (seen at a depth of 100,000), so
depth is checked before it runs. Aliases cost nothing while composing, but a walk over them can be
exponential: the number of reads is bounded."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import yaml

from ztunnel.errors import Fault
from ztunnel.state.field import Field, Kind, join

MAX_DEPTH: Final = 100
MAX_READS: Final = 2_000_000
"""Values read of one document; a `kind: List` of 10,000 pods needs a quarter of it."""

_CUT = re.compile(r"^\ufeff?---(?=[ \t\r\n]|\Z)", re.MULTILINE)
_OPENERS = re.compile(r"[\[{]")
_MARGIN = re.compile(r"^[ \-?]{200}", re.MULTILINE)
_TAG = "tag:yaml.org,2002:"
_KINDS: Final = {
    "str": Kind.TEXT,
    "int": Kind.INTEGER,
    "float": Kind.NUMBER,
    "bool": Kind.FLAG,
    "null": Kind.NULL,
    "map": Kind.MAPPING,
    "seq": Kind.LIST,
    "timestamp": Kind.TIMESTAMP,
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


def compose(text: str, notes: Notes) -> YamlField | None:
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
    return YamlField(node, "", notes)


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


def _renamed(key: yaml.Node, names: Mapping[str, str], *, free: bool) -> str:
    """The name of a key, which it has from then on."""
    if not isinstance(key, yaml.ScalarNode):
        return ""
    if not free:
        key.value = names.get(key.value, key.value)
    return str(key.value)


class YamlField(Field):
    """A place in a document: a node of it, and where faults are noted."""

    __slots__ = ("_node", "_notes")

    def __init__(self, node: yaml.Node, path: str, notes: Notes) -> None:
        super().__init__(path)
        self._node = node
        self._notes = notes
        notes.spend()

    @property
    def line(self) -> int:
        """Counted from 1 within the document."""
        return int(self._node.start_mark.line) + 1

    @property
    def kind(self) -> Kind:
        """What stands here."""
        return _KINDS.get(self._node.tag.removeprefix(_TAG), Kind.OTHER)

    def fault(self, message: str) -> None:
        """Note that this place is wrong."""
        self._notes.add(self.line, self.path, message)

    def rename(self, names: Mapping[str, str], apart_from: Collection[str]) -> None:
        """Have keys that stand in `names` other names, here and below, but for the keys of fields that are
        called as one of `apart_from`: those are whatever somebody likes. Each node is looked at once."""
        seen = {id(self._node)}
        waiting: list[tuple[yaml.Node, bool]] = [(self._node, False)]
        while waiting:
            node, free = waiting.pop()
            self._notes.spend()
            below = [(value, False) for value in node.value if isinstance(value, yaml.Node)]
            if isinstance(node, yaml.MappingNode):
                below = [(value, _renamed(key, names, free=free) in apart_from) for key, value in node.value]
            for each in below:
                if not isinstance(each[0], yaml.ScalarNode) and id(each[0]) not in seen:
                    seen.add(id(each[0]))
                    waiting.append(each)

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
                place = join(path, name)
                self._notes.add(key.start_mark.line + 1, place, "stands twice in the same mapping")
            names.add(name)
            if not isinstance(value, yaml.ScalarNode):
                children.append((value, join(path, name)))
        return children

    def sub(self, name: str) -> YamlField | None:
        """The field of that name, or None where it is absent or null (or this is no mapping)."""
        if isinstance(self._node, yaml.MappingNode):
            for key, value in self._node.value:
                if key.value == name:
                    below = YamlField(value, join(self.path, name), self._notes)
                    return None if below.is_null() else below
        return None

    def pairs(self) -> Iterator[tuple[str, YamlField]]:
        """Names and fields of a mapping with free keys; a key that is no scalar is a fault."""
        if not self.is_mapping():
            return
        for key, value in self._node.value:
            if isinstance(key, yaml.ScalarNode):
                yield key.value, YamlField(value, join(self.path, key.value), self._notes)
            else:
                self.fault("a key must be a string")

    def items(self, name: str) -> list[YamlField]:
        """As `each`, of this kind of field."""
        return [one for one in self.each(name) if isinstance(one, YamlField)]

    def _elements(self) -> list[Field]:
        values = enumerate(self._node.value)
        return [YamlField(value, f"{self.path}[{index}]", self._notes) for index, value in values]

    def _scalar(self) -> str:
        return str(self._node.value)

    def _what(self) -> str:
        return super()._what() if self.kind is not Kind.OTHER else f"of the tag {self._node.tag}"
