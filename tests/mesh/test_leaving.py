"""Pods that are let go although the world wants them: with the proxy alive, dead, and starting again and
again."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.mesh import lab
from tests.mesh.lab import Mesh, wait_until
from ztunnel.demo import run

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

MANIFESTS = (
    lab.SHOP
    + lab.pod("shop/near", "node-1")
    + lab.pod("shop/called", "node-2")
    + lab.pod("out/plain", "node-2")
)
CANARY = b"a canary that anybody on the link may read"
FREED_SECONDS = 10.0


def command(mesh: Mesh, *words: str) -> str:
    names = mesh.laboratory.names
    places = ["--pins", str(names.pins("node-1")), "--run-dir", str(names.node_directory("node-1"))]
    done = subprocess.run(
        [sys.executable, "-m", "ztunnel", *words, *places], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def is_free(mesh: Mesh, where: str) -> bool:
    """What it says leaves as it is, and what is said to it reaches it."""
    with mesh.laboratory.capture() as link:
        out = mesh.call(where, mesh.address("out/plain"), 8080).answers(CANARY)
        into = mesh.call("out/plain", mesh.address(where), 8080).answers(CANARY)
        return out and into and link.holds(CANARY)


def is_in_the_mesh(mesh: Mesh, where: str) -> bool:
    with mesh.laboratory.capture() as link:
        answered = mesh.call(where, mesh.address("shop/called"), 8080).answers(CANARY)
        return answered and not link.holds(CANARY)


@contextmanager
def detached(mesh: Mesh, *words: str) -> Iterator[None]:
    begun = time.monotonic()
    command(mesh, "detach", *words)
    assert time.monotonic() - begun < FREED_SECONDS
    try:
        yield
    finally:
        command(mesh, "attach")


@contextmanager
def crash_loop(mesh: Mesh) -> Iterator[None]:
    """The proxy is killed and started again, and again, at whatever point of its start it is."""
    stop = threading.Event()
    names, node = mesh.laboratory.names, mesh.laboratory.node("node-1")
    cgroup = names.proxy_cgroup("node-1")

    def loop() -> None:
        pause = 0.2
        while not stop.is_set():
            started = run.start_node(names, node)
            stop.wait(pause)
            pause = (pause + 0.35) % 2
            started.kill()  # which may not have come to its cgroup yet
            started.wait()
            run.send(cgroup, signal.SIGKILL)
            wait_until(lambda: not run.processes(cgroup), "it is dead")

    mesh.laboratory.kill_node("node-1")
    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        mesh.laboratory.start_node("node-1")


def test_a_proxy_that_runs_lets_one_pod_go_and_takes_it_in_again(mesh: Mesh) -> None:
    client, server = mesh.join("shop/caller", mesh.listen("shop/called"), mesh.address("shop/called"))
    with detached(mesh, "--pod", "shop/caller"):
        wait_until(lambda: is_free(mesh, "shop/caller"), "it is free")
        assert is_in_the_mesh(mesh, "shop/near")
        client.sendall(CANARY)  # what was open goes on
        assert lab.read_exactly(server, len(CANARY)) == CANARY
        ready = mesh.laboratory.node_get("node-1", "/healthz/ready", 15021)
        assert "detached pods: shop/caller: by `ztunnel detach`" in ready
        assert ready.startswith("ready")
        mesh.laboratory.restart_node("node-1")  # a successor obeys as well
        assert is_free(mesh, "shop/caller")
    wait_until(lambda: is_in_the_mesh(mesh, "shop/caller"), "it is in the mesh again")


def test_with_the_proxy_dead_all_pods_are_freed_and_stay_so_when_it_comes_back(mesh: Mesh) -> None:
    mesh.laboratory.kill_node("node-1")
    assert not is_free(mesh, "shop/caller")
    with detached(mesh):
        for where in ("shop/caller", "shop/near"):
            assert is_free(mesh, where)
        mesh.laboratory.start_node("node-1")
        for where in ("shop/caller", "shop/near"):
            assert is_free(mesh, where)
    wait_until(lambda: is_in_the_mesh(mesh, "shop/caller"), "it is in the mesh again")


def test_with_the_proxy_in_a_crash_loop_too(mesh: Mesh) -> None:
    with crash_loop(mesh), detached(mesh):
        begun = time.monotonic()
        wait_until(lambda: is_free(mesh, "shop/caller") and is_free(mesh, "shop/near"), "free", 10)
        while time.monotonic() - begun < 6:
            assert is_free(mesh, "shop/caller")
    wait_until(lambda: is_in_the_mesh(mesh, "shop/caller"), "it is in the mesh again")


def test_clean_sees_a_proxy_that_drains(mesh: Mesh) -> None:
    mesh.join("shop/caller", mesh.listen("shop/called"), mesh.address("shop/called"))
    names = mesh.laboratory.names
    words = [sys.executable, "-m", "ztunnel", "clean", "--pins", str(names.pins("node-1"))]
    mesh.laboratory.node_get("node-1", "/drain", method="POST")
    lines = wait_until(lambda: mesh.find_lines("node-1", message="draining"), "it drains")
    assert lines
    time.sleep(2.1)  # the lease is over
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "it serves, drains or waits for its world" in done.stderr
    mesh.laboratory.restart_node("node-1", kill=True)
    wait_until(lambda: is_in_the_mesh(mesh, "shop/caller"), "it serves")


def test_nothing_unexpected_was_logged(mesh: Mesh) -> None:
    for node in ("node-1", "node-2"):
        assert "Traceback" not in mesh.laboratory.node_log(node)
        assert mesh.figures(node).total("ztunnel_internal_errors_total") == 0
