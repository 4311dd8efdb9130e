"""An upgrade that goes on, or has come to a halt, is told from the pods of node proxies."""

from __future__ import annotations

from typing import Any

import pytest

from ztunnel.analyze.rollout import holder_remarks, refusal_of, rollout_remarks


def pod(node: str, revision: str, made: int, ready: bool = True, **status: Any) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": str(ready)}]
    return {
        "metadata": {
            "name": f"{node}-{revision}",
            "creationTimestamp": f"2026-01-01T00:00:{made:02}Z",
            "labels": {"controller-revision-hash": revision},
        },
        "spec": {"nodeName": node},
        "status": {"conditions": conditions, **status},
    }


def waits(container: str, reason: str, message: str = "") -> dict[str, Any]:
    return {"name": container, "state": {"waiting": {"reason": reason, "message": message}}}


def test_where_all_are_of_one_version_there_is_nothing_to_say() -> None:
    assert rollout_remarks([]) == []
    assert rollout_remarks([pod("n1", "a", 1), pod("n2", "a", 2, ready=False)]) == []
    assert rollout_remarks([{"metadata": {"name": "x"}, "spec": {"nodeName": "n1"}}]) == []


def test_an_upgrade_says_how_far_it_is() -> None:
    first, *rest = rollout_remarks([pod("n1", "a", 1), pod("n2", "b", 5), pod("n3", "a", 3)])
    assert first.startswith("upgrade: 1 of 3 nodes are served by the newest version")
    assert "helm rollback" in first
    assert rest == ["n1: n1-a is of an earlier version", "n3: n3-a is of an earlier version"]


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (
            {"containerStatuses": [waits("proxy", "CrashLoopBackOff", "back-off 10s")]},
            "proxy: CrashLoopBackOff back-off 10s",
        ),
        ({"containerStatuses": [waits("proxy", "ImagePullBackOff")]}, "proxy: ImagePullBackOff"),
        (
            {
                "initContainerStatuses": [{"name": "loader", "state": {"terminated": {"exitCode": 1}}}],
                "containerStatuses": [waits("proxy", "PodInitializing")],
            },
            "loader: ended with 1",
        ),
        ({"containerStatuses": [{"name": "proxy", "state": {"running": {}}}]}, "it is not ready yet"),
        ({}, "it is not ready yet"),
    ],
)
def test_one_that_has_come_to_a_halt_says_where_and_who_serves(status: dict[str, Any], why: str) -> None:
    _, line = rollout_remarks([pod("n1", "b", 5, ready=False, **status), pod("n1", "a", 1)])
    assert line == f"n1: n1-b has not taken over: {why}; n1-a serves"
    _, line = rollout_remarks([pod("n1", "b", 5, ready=False, **status), pod("n1", "a", 1, ready=False)])
    assert line.endswith("; no proxy serves")


def test_after_a_rollback_the_newest_is_the_version_before() -> None:
    """Pods of it that stayed are older than those of the version that was given up."""
    there = [pod("n1", "a", 1), pod("n2", "b", 5), pod("n2", "a", 9, ready=False)]
    first, *rest = rollout_remarks(there)
    assert "1 of 2 nodes" in first
    assert rest == ["n2: n2-a has not taken over: it is not ready yet; n2-b serves"]


def test_holders_that_do_not_run_are_named() -> None:
    crashes = pod("n2", "a", 1, ready=False, containerStatuses=[waits("holder", "CrashLoopBackOff")])
    assert holder_remarks([pod("n1", "a", 1), crashes]) == [
        "n2: no holder runs: n2-a: holder: CrashLoopBackOff"
    ]
    assert holder_remarks([]) == []


def test_a_daemon_set_without_pods_says_why() -> None:
    meta = {"namespace": "zs", "name": "ztunnel"}
    no_node = {"metadata": meta, "status": {"desiredNumberScheduled": 0}}
    wants = {"metadata": meta, "status": {"desiredNumberScheduled": 2}}
    of_another = {"reason": "FailedCreate", "message": "no", "involvedObject": {"name": "holder"}}
    refused = {"reason": "FailedCreate", "message": "quota", "involvedObject": {"name": "ztunnel"}}
    assert refusal_of([], [refused]) == ""
    assert refusal_of([no_node], [of_another]).startswith(
        "DaemonSet zs/ztunnel is for no node of this cluster"
    )
    assert refusal_of([wants], []) == "DaemonSet zs/ztunnel has no pods yet, and wants 2: look again"
    assert refusal_of([wants], [of_another, refused]) == "DaemonSet zs/ztunnel cannot make its pods: quota"
