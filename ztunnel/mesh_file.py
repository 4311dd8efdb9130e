"""The mesh config file, from which a setting may come (Istio's `meshConfig`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ztunnel.errors import Fault

if TYPE_CHECKING:
    import yaml

_MAPPING, _LIST, _SCALAR = "mapping", "sequence", "scalar"  # kinds of nodes, as PyYAML calls them


class Given(NamedTuple):
    """What a source says about a setting, and where."""

    value: str
    file: str
    line: int
    name: str


class MeshFile:
    """The mesh config file, flattened: dotted keys of scalars and of lists (with commas), as text with their
    lines."""

    def __init__(self, text: str, file: str) -> None:
        self.values: dict[str, Given] = {}
        self.faults: list[Fault] = []
        self._file = file
        if not text:
            return
        import yaml  # most proxies are given no such file, and a megabyte less

        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            problem = getattr(error, "problem", None) or "not YAML"
            self.faults.append(Fault(file, mark.line + 1 if mark else 0, "", str(problem)))
            return
        if root is None:
            return
        if isinstance(root, yaml.MappingNode):
            self._flatten("", root, 4)
        else:
            self.faults.append(Fault(file, 1, "", "a mapping is expected"))

    def _flatten(self, prefix: str, node: yaml.Node, depth: int) -> None:
        """`depth` bounds what aliases can do; the keys that we know are three deep."""
        for key_node, value_node in node.value:
            key = f"{prefix}{key_node.value}"
            if value_node.id == _MAPPING and depth:
                self._flatten(f"{key}.", value_node, depth - 1)
            elif value_node.id == _SCALAR:
                self._add(key, value_node, str(value_node.value))
            elif value_node.id == _LIST:
                parts = [part.value for part in value_node.value if part.id == _SCALAR]
                self._add(key, value_node, ",".join(parts))

    def _add(self, key: str, node: yaml.Node, value: str) -> None:
        self.values[key] = Given(value, self._file, node.start_mark.line + 1, key)
