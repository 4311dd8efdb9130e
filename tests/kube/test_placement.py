"""Whether a DaemonSet wants a node, as Kubernetes decides it."""

from __future__ import annotations

from typing import Any

import pytest

from ztunnel.kube.placement import is_wanted

NODE = {"metadata": {"name": "n1", "labels": {"os": "linux", "pool": "a", "cores": "8"}}}


def daemon_set(**spec: Any) -> dict[str, Any]:
    return {"spec": {"template": {"spec": spec}}}


def term(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


def affine(*terms: dict[str, Any]) -> dict[str, Any]:
    required = {"nodeSelectorTerms": list(terms)}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}


@pytest.mark.parametrize(
    ("selector", "wanted"),
    [
        (None, True),
        ({}, True),
        ({"os": "linux"}, True),
        ({"os": "linux", "pool": "b"}, False),
        ({"x": ""}, False),
    ],
)
def test_the_node_selector(selector: dict[str, str] | None, wanted: bool) -> None:
    assert is_wanted(daemon_set(nodeSelector=selector), NODE) is wanted


BY_NAME = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}
BY_OTHER_NAME = {"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["n1"]}]}


@pytest.mark.parametrize(
    ("terms", "wanted"),
    [
        ([], False),
        ([{}], False),
        ([term("pool", "In", "a", "b")], True),
        ([term("pool", "In", "b")], False),
        ([term("pool", "NotIn", "b")], True),
        ([term("pool", "NotIn", "a")], False),
        ([term("none", "NotIn", "a")], True),
        ([term("none", "In", "a")], False),
        ([term("pool", "Exists")], True),
        ([term("none", "Exists")], False),
        ([term("none", "DoesNotExist")], True),
        ([term("pool", "DoesNotExist")], False),
        ([term("cores", "Gt", "7")], True),
        ([term("cores", "Gt", "8")], False),
        ([term("cores", "Lt", "9")], True),
        ([term("pool", "Lt", "9")], False),
        ([term("none", "Gt", "0")], False),
        ([term("cores", "Gt")], False),
        ([term("pool", "In", "b"), term("os", "In", "linux")], True),
        ([{**term("pool", "In", "a"), **BY_NAME}], True),
        ([{**term("pool", "In", "a"), **BY_OTHER_NAME}], False),
        ([BY_NAME], True),
        ([term("pool", "Newer", "b")], True),  # what is not known here takes nobody away
    ],
)
def test_the_affinity(terms: list[dict[str, Any]], wanted: bool) -> None:
    assert is_wanted(daemon_set(affinity=affine(*terms)), NODE) is wanted
    assert is_wanted(daemon_set(affinity=affine(*terms), nodeSelector={"pool": "b"}), NODE) is False


@pytest.mark.parametrize(
    "value",
    [{}, {"spec": None}, daemon_set(), daemon_set(nodeSelector=7), daemon_set(affinity={"nodeAffinity": []})],
)
def test_where_nothing_is_asked_every_node_is_wanted(value: dict[str, Any]) -> None:
    assert is_wanted(value, NODE)
    assert is_wanted(value, {})


def test_what_is_only_preferred_decides_nothing() -> None:
    preferred = {"preferredDuringSchedulingIgnoredDuringExecution": [{"preference": term("pool", "In", "b")}]}
    assert is_wanted(daemon_set(affinity={"nodeAffinity": preferred}), NODE)
