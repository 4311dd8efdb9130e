"""What the node proxies' own reader, and the templates of workloads, find wrong in a document.

So `apply` refuses, with file, line and field, what a node proxy would refuse later where nobody looks.
"""

from __future__ import annotations

import yaml

from ztunnel.control.source import reading
from ztunnel.control.source.reading import in_file
from ztunnel.demo.kinds import Standing, standing
from ztunnel.demo.template import check_workload
from ztunnel.demo.tree import Item, child, items, line_of
from ztunnel.errors import Fault
from ztunnel.state.manifest import Chunk, Notes, TooLarge


def review(chunk: Chunk, root: yaml.Node, file: str) -> list[Fault]:
    """The faults of a document, of which `root` is the tree, with the lines of its file."""
    notes = Notes()
    wrong_kinds: set[str] = set()
    try:
        for item in items(root):
            if item.version and item.kind and not _review(item, notes):
                wrong_kinds.add(item.path)
    except TooLarge:
        pass  # the reader says so
    others = [one for one in reading.parse(chunk.text).all_faults if one.field not in wrong_kinds]
    return sorted(in_file(fault, file, chunk) for fault in dict.fromkeys((*others, *notes.faults)))


def _review(item: Item, notes: Notes) -> bool:
    """Whether its kind is right; what else is wrong in a workload is noted."""
    found = standing(item.version, item.kind)
    if isinstance(found, str):
        place = "kind" if found.startswith("no kind") else "apiVersion"
        node = child(item.node, place)
        path = ".".join(filter(None, [item.path, place]))
        notes.add(line_of(node or item.node), path, found)
        return False
    if found is Standing.WORKLOAD:
        check_workload(item, notes)
    return True
