"""Node proxies and control planes in tables, with what there is to look at."""

from __future__ import annotations

import json
from typing import Any

from ztunnel.analyze.nodes import ControlState, NodeState, as_text, as_values, control_state, node_state

DUMP: dict[str, Any] = {
    "version": {"version": "1.2.3"},
    "workloads": [{}, {}, {}],
    "workloadState": {
        "Kubernetes//Pod/shop/a": {"state": "Up"},
        "Kubernetes//Pod/shop/b": {"state": "Pending", "reason": "no namespace yet"},
        "Kubernetes//Pod/shop/c": {"state": "Draining"},
    },
}


def pod(ready: str = "True", restarts: int = 0) -> dict[str, Any]:
    return {
        "metadata": {"name": "zt-a"},
        "spec": {"nodeName": "n1"},
        "status": {
            "conditions": [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": ready}],
            "containerStatuses": [{"restartCount": restarts}],
        },
    }


def test_a_node_proxy_is_what_both_say_of_it() -> None:
    found = node_state(pod(restarts=2), DUMP, ["slow"])
    assert found == NodeState("n1", "zt-a", True, 2, "1.2.3", 1, {"shop/b": "no namespace yet"}, 3, ("slow",))
    assert not found.good
    assert node_state(pod(), {**DUMP, "workloadState": {}}, []).good
    assert not node_state(pod("False"), {**DUMP, "workloadState": {}}, []).good


def test_one_that_does_not_answer_is_shown_all_the_same() -> None:
    found = node_state(pod(), None, ["refused"])
    assert (found.version, found.detail, found.good) == ("", ("refused",), False)
    assert control_state({"metadata": {"name": "c"}}) == ControlState("c", "", False, 0)


def test_two_tables_and_what_there_is_to_look_at() -> None:
    nodes = [node_state(pod(), DUMP, ["the stream has ended"])]
    assert as_text(nodes, [control_state(pod("False", 3))]).splitlines() == [
        "CONTROL PLANE READY RESTARTS NODE",
        "zt-a          no    3        n1",
        "",
        "NODE PROXY READY RESTARTS VERSION PODS PENDING WORKLOADS",
        "n1   zt-a  yes   0        1.2.3   1    1       3",
        "",
        "n1: the stream has ended",
        "n1: shop/b is not in the mesh: no namespace yet",
    ]


def test_what_is_not_wrong_with_a_pod_and_should_be_known_is_said() -> None:
    states = {
        "Kubernetes//Pod/shop/a": {"state": "Up", "unenrolledSeconds": 12.5},
        "Kubernetes//Pod/shop/b": {"state": "Up", "hidden": "it forwards"},
        "Kubernetes//Pod/shop/c": {"state": "LeftAlone", "reason": "it has a sidecar"},
        "Kubernetes//Pod/shop/d": {"state": "Up"},
    }
    found = node_state(pod(), {**DUMP, "workloadState": states}, [])
    assert found.good
    assert as_text([found], []).splitlines()[-3:] == [
        "n1: shop/a ran outside of the mesh for up to 12.5 s, until it was enrolled",
        "n1: shop/b is not shown as enrolled: it forwards",
        "n1: shop/c is left alone: it has a sidecar",
    ]
    assert as_values([found], [])["nodes"][0]["remarks"]["shop/c"] == "is left alone: it has a sidecar"


def test_values_are_plain() -> None:
    values = as_values([node_state(pod(), DUMP, [])], [control_state(pod())])
    assert json.loads(json.dumps(values)) == values
    assert values["nodes"][0]["pending"] == {"shop/b": "no namespace yet"}
