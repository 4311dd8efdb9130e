"""Values of an object as it was written, whatever stands there."""

from __future__ import annotations

from typing import Any

import pytest

from ztunnel.analyze.mesh import Mesh, Written
from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.inventory import Inventory
from ztunnel.state.world import World

BODY = {"metadata": {"labels": {"app": "web", "n": 1}}, "spec": {"ports": [{"port": 1}, 7], "x": None}}
ONE = Written("", "Service", "shop", "web", "f.yaml", 3, BODY)


@pytest.mark.parametrize(
    ("path", "value"),
    [("metadata.labels.app", "web"), ("spec.x.y", None), ("none", None), ("spec.ports.a", None)],
)
def test_a_path_leads_to_a_value_or_to_none(path: str, value: Any) -> None:
    assert ONE.get(path) == value


def test_only_what_has_the_right_shape_counts() -> None:
    assert ONE.labels() == {"app": "web"}
    assert ONE.labels("spec.ports") == {}
    assert ONE.entries("spec.ports") == [{"port": 1}]
    assert ONE.entries("spec.x") == []


def test_an_object_says_what_it_is() -> None:
    assert str(ONE) == "Service shop/web"
    assert str(Written("", "Node", "", "n1")) == "Node n1"


def test_objects_are_found_by_their_kind() -> None:
    other = Written("apps", "Service", "shop", "odd")
    mesh = Mesh((ONE, other), Inventory(), World(), MeshSettings())
    assert list(mesh.of("", "Service")) == [ONE]
