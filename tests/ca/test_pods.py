"""Pods by name and node, of the inventory that is in force."""

from __future__ import annotations

from ztunnel.ca.pods import InventoryPods
from ztunnel.control.source.inventory import Inventory, gather


def pods(**nodes: str) -> str:
    text = "apiVersion: v1\nkind: Pod\nmetadata: {{name: {0}, namespace: t}}\nspec: {{nodeName: {1}}}\n"
    return "---\n".join(text.format(name, node) for name, node in nodes.items())


def test_they_are_those_of_the_moment() -> None:
    current = [gather({"a.yaml": pods(a="n1", b="n1", c="n2")}, Inventory())]
    found = InventoryPods(lambda: current[0])
    assert sorted(found.on_node("n1")) == [("t", "a"), ("t", "b")]
    one = found.pod(("t", "c"))
    assert one is not None
    assert one.node == "n2"
    current[0] = gather({"a.yaml": pods(b="n2")}, current[0])
    assert list(found.on_node("n1")) == []
    assert list(found.on_node("n2")) == [("t", "b")]
    assert found.pod(("t", "a")) is None
