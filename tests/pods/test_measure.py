"""Figures of the pods of a node."""

from __future__ import annotations

import os
import subprocess

from tests.builders import workload, world_of
from ztunnel.pods.kubelet import Place
from ztunnel.pods.lifecycle import NO_NAMESPACE
from ztunnel.pods.measure import outside, pending, waited

WEB = workload("web", "shop").on("n1").hbone()


def test_pods_that_wait_are_told_with_the_cause() -> None:
    reasons = {WEB.uid: f"{NO_NAMESPACE}: nothing runs", "gone": "port 15008 is taken by nginx"}
    assert pending(reasons, world_of(WEB)) == [(("shop", "web", "no namespace"), 1.0)]


def test_nobody_is_outside_where_nobody_is_enrolled() -> None:
    assert list(outside({}, world_of)) == []


def test_the_wait_is_that_of_the_first_process() -> None:
    with subprocess.Popen(["sleep", "9"]) as process:
        path = f"/proc/{process.pid}/ns/net"
        ran = waited(Place(path, 7, "u1"), 1e9)
        assert ran is not None
        assert 0 <= ran < 3
        assert waited(Place(path, 7, "u1"), -1.0) is None  # it is older than we are
        assert waited(Place(path, 7), 1e9) is None  # the laboratory's
        process.kill()
    assert waited(Place(path, 7, "u1"), 1e9) is None
    ours = waited(Place(f"/proc/{os.getpid()}/ns/net", 7, "u1"), 1e9)
    assert ours is not None
    assert ours > ran - 3
