"""Which pods there are and where they run, as the node authorizer asks, from the objects of an inventory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ztunnel.control.source.inventory import Inventory, of_kind
from ztunnel.state import kube

Name = tuple[str, str]
"""Namespace and name."""


class InventoryPods:
    """The pods of whatever inventory is in force; gone through once for each."""

    def __init__(self, current: Callable[[], Inventory]) -> None:
        self._current = current
        self._seen: Inventory | None = None
        self._pods: dict[Name, kube.Pod] = {}
        self._nodes: dict[str, list[Name]] = {}

    def pod(self, name: Name) -> kube.Pod | None:
        """The pod of this name."""
        self._look()
        return self._pods.get(name)

    def on_node(self, node: str) -> Iterator[Name]:
        """Those that run there."""
        self._look()
        return iter(self._nodes.get(node, ()))

    def _look(self) -> None:
        current = self._current()
        if current is self._seen:
            return
        pods = of_kind(current.objects.values(), kube.Pod)
        self._pods = {(one.meta.namespace, one.meta.name): one for one in pods}
        self._nodes = {}
        for name, one in self._pods.items():
            self._nodes.setdefault(one.node, []).append(name)
        self._seen = current
