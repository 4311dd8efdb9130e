"""The objects of a mesh as they were written, and what they mean to its node proxies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ztunnel.control.routes.route_parts import Problem
from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.document import Key
from ztunnel.control.source.inventory import Inventory
from ztunnel.errors import Fault
from ztunnel.model.route import Routes
from ztunnel.state.world import World


@dataclass(frozen=True, slots=True, order=True)
class Written:
    """One object as it was written: `body` is its plain values, `file` and `line` where it begins."""

    group: str
    kind: str
    namespace: str
    name: str
    file: str = ""
    line: int = 0
    body: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"

    def get(self, path: str) -> Any:
        """The value at a dotted path; None where it, or a parent, is missing or no mapping."""
        value: Any = self.body
        for step in path.split("."):
            value = value.get(step) if isinstance(value, Mapping) else None
        return value

    def labels(self, path: str = "metadata.labels") -> Mapping[str, str]:
        """The labels at a path, those that are text."""
        found = self.get(path)
        if not isinstance(found, Mapping):
            return {}
        return {str(key): value for key, value in found.items() if isinstance(value, str)}

    def entries(self, path: str) -> list[Mapping[str, Any]]:
        """The mappings of the list at a path."""
        found = self.get(path)
        return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []


@dataclass(frozen=True, slots=True)
class Mesh:
    """All objects, what the readers of the control plane make of them, and the world that node proxies get.

    `faults` are what those readers refuse, `warnings` what they remark; `routes` are those of services, by
    their names, `problems` what is doubtful in the objects that they come from.
    """

    written: tuple[Written, ...]
    inventory: Inventory
    world: World
    settings: MeshSettings
    faults: tuple[Fault, ...] = ()
    warnings: tuple[str, ...] = ()
    routes: Mapping[str, Routes] = field(default_factory=dict)
    problems: Mapping[Key, tuple[Problem, ...]] = field(default_factory=dict)

    def of(self, group: str, kind: str) -> Iterator[Written]:
        """The objects of a kind."""
        return (one for one in self.written if one.kind == kind and one.group == group)


def is_route(kind: str) -> bool:
    """Whether objects of that kind have `problems`, and no other remarks."""
    return kind in ("VirtualService", "HTTPRoute", "GRPCRoute", "TCPRoute", "TLSRoute")
