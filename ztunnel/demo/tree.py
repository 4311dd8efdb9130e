"""YAML as a tree of nodes with lines: the objects of a document, and what of it is too much to be copied."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import yaml

from ztunnel.state.manifest import MAX_DEPTH, MAX_READS

_MAP, _TEXT = "tag:yaml.org,2002:map", "tag:yaml.org,2002:str"
_TOO_LARGE = "the document is too large, or its aliases repeat each other too often"


class Item(NamedTuple):
    """An object of a document: where it stands, and the kind that the list it is in gives it, if any."""

    node: yaml.Node
    path: str
    version: str
    kind: str


def items(root: yaml.Node) -> Iterator[Item]:
    """The objects of a document: itself, or the items of a list; those of a `PodList` may omit their kind."""
    version, kind = text_of(child(root, "apiVersion")), text_of(child(root, "kind"))
    within = child(root, "items")
    if not kind.endswith("List") or not isinstance(within, yaml.SequenceNode):
        yield Item(root, "", version, kind)
        return
    inherited = (version, kind.removesuffix("List")) if kind != "List" else ("", "")
    for index, node in enumerate(within.value):
        own = text_of(child(node, "apiVersion")), text_of(child(node, "kind"))
        yield Item(node, f"items[{index}]", *(own if any(own) else inherited))


def child(node: yaml.Node | None, *names: str) -> yaml.Node | None:
    """What stands under these names in nested mappings; None where it does not."""
    for name in names:
        if not isinstance(node, yaml.MappingNode):
            return None
        node = next((value for key, value in node.value if key.value == name), None)
    return node


def text_of(node: yaml.Node | None) -> str:
    """The string that stands there; empty for anything else."""
    return str(node.value) if isinstance(node, yaml.ScalarNode) and node.tag == _TEXT else ""


def line_of(node: yaml.Node) -> int:
    """Counted from 1 within the document."""
    return int(node.start_mark.line) + 1


def mapping(like: yaml.Node, **values: yaml.Node | None) -> yaml.MappingNode:
    """A new mapping that stands where `like` does; None is left out."""
    marks = like.start_mark, like.end_mark
    pairs = [(yaml.ScalarNode(_TEXT, name, *marks), value) for name, value in values.items() if value]
    return yaml.MappingNode(_MAP, pairs, *marks)


def named(metadata: yaml.Node | None, like: yaml.Node, name: str) -> yaml.MappingNode:
    """The metadata with a name, for an object that gets its name from what makes it."""
    marks = like.start_mark, like.end_mark
    own = metadata.value if isinstance(metadata, yaml.MappingNode) else []
    kept = [(key, value) for key, value in own if key.value not in ("name", "namespace", "generateName")]
    pair = yaml.ScalarNode(_TEXT, "name", *marks), yaml.ScalarNode(_TEXT, name, *marks)
    return yaml.MappingNode(_MAP, [pair, *kept], *marks)


def too_much(root: yaml.Node) -> str:
    """What keeps a document from being copied and written again; empty where nothing does.

    Aliases count as what they stand for, because written again they are that.
    """
    left, waiting = MAX_READS, [(root, 1)]
    while waiting:
        node, depth = waiting.pop()
        left -= 1
        if depth > MAX_DEPTH:
            return f"nested deeper than {MAX_DEPTH} levels"
        if left < 0:
            return _TOO_LARGE
        if isinstance(node, yaml.MappingNode):
            waiting += [(below, depth + 1) for pair in node.value for below in pair]
        elif isinstance(node, yaml.SequenceNode):
            waiting += [(below, depth + 1) for below in node.value]
    return ""
