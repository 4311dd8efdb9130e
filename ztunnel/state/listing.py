"""A long list in block style cut into its items without parsing it, so that a change of one of thousands
costs the parsing of one.

`kubectl get pods -o yaml` writes one document of thousands of objects. Its items begin with a dash in one
column, to which nothing within an item can come back: block scalars and the lines of plain ones are indented
further, and a quoted one or a flow collection that does leaves its item unclosed, which the parser then finds
to be no YAML. So where each item is YAML by itself, and what is around the items is too, the whole is the
same; where one is not (an alias of another item's anchor is none either), the whole has to be parsed."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ztunnel.state.manifest import Chunk

_ITEMS = re.compile(r"^items:[ \t]*\r?\n(?=( *)-[ \r\n])", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Listing:
    """The document with nothing below its `items:`, on the line `line` of it; and the items, each as a
    document of its own whose lines and columns are those of the list's."""

    frame: str
    line: int
    items: tuple[Chunk, ...]


def cut_list(text: str) -> Listing | None:
    """The parts of a document that may be a list; None where it does not look like one."""
    found = _ITEMS.search(text)
    if found is None:
        return None
    indent = found[1]
    # The list ends where something begins further to the left, or in its column without a dash.
    end = re.compile(rf"^(?! *\r?$)(?!{indent}[- ])(?! *#)", re.MULTILINE).search(text, found.end())
    stop = end.start() if end else len(text)
    starts = [
        mark.start()
        for mark in re.compile(rf"^{indent}-(?=[ \r\n])", re.MULTILINE).finditer(text, found.end(), stop)
    ]
    line = text.count("\n", 0, found.end())
    items = []
    at, number = found.end(), line + 1
    for start, following in zip(starts, [*starts[1:], stop], strict=True):
        number += text.count("\n", at, start)
        at = start
        items.append(Chunk(number, f"{indent} {text[start + len(indent) + 1 : following]}"))
    return Listing(text[: found.end()] + text[stop:], line, tuple(items))
