"""A node proxy that is replaced only when it has ended: what comes meanwhile waits, in no plaintext and not
for ever; and pods that are let go where no proxy can do it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mesh import lab
from tests.mesh.holder import ApiServer, api_server, holding
from tests.mesh.lab import Mesh, wait_until
from tests.mesh.test_handover import CANARY, Storm, open_flows, pass_through, proxies
from tests.mesh.test_handover import MANIFESTS as MANIFESTS
from tests.mesh.test_leaving import crash_loop, is_free, is_in_the_mesh
from ztunnel.demo import run, wait
from ztunnel.run.handover import socket_of
from ztunnel.run.successor import serving

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

ENVIRONMENT = {"CONNECTION_TERMINATION_DEADLINE": "4s"}
FREED_SECONDS = 10.0


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with api_server() as server:
        yield server


def end_proxy(mesh: Mesh, node: str = "node-1") -> None:
    """As the kubelet ends it: SIGTERM, and it is waited for."""
    cgroup = mesh.laboratory.names.proxy_cgroup(node)
    before = proxies(mesh, node)
    run.end_processes(before)
    wait.until_ended(cgroup, before)


def holder_serves(mesh: Mesh, process: int, node: str = "node-1") -> bool:
    """Whether who is asked for the listeners is the holder."""
    names = mesh.laboratory.names
    return serving(socket_of(names.node_directory(node), names.pins(node))) == process


def test_one_that_starts_when_the_other_has_ended_fails_no_new_connection(
    mesh: Mesh, tmp_path: Path, server: ApiServer
) -> None:
    flows, storm = open_flows(mesh), Storm(mesh)
    [before] = proxies(mesh, "node-1")
    with holding(mesh, "node-1", tmp_path, server) as holder, storm.raging():
        wait_until(lambda: storm.made > 1000, "the storm rages", 30)
        end_proxy(mesh)
        assert holder_serves(mesh, holder.process.pid)
        time.sleep(2.5)  # longer than the lease of a proxy that is dead: pulling an image takes its time
        mesh.laboratory.start_node("node-1")
        made = storm.made
        wait_until(lambda: storm.made > made + 2000, "it rages on", 40)
        assert holder.said("keeps")
        assert holder.said("handed over")
    assert storm.failed == []
    assert [before] != proxies(mesh, "node-1")
    print(f"{storm.made} connections, the longest took {storm.longest_seconds:.2f} s")
    for way in ("direct", "a call that leaves the mesh"):
        pass_through(*flows[way])
    assert mesh.figures("node-1").total("ztunnel_internal_errors_total") == 0


@pytest.mark.parametrize("way", ["out", "in", "outside", "same node"])
@pytest.mark.parametrize("family", lab.TCP_FAMILIES)
def test_meanwhile_nothing_passes_and_all_is_made_up_for(
    mesh: Mesh, tmp_path: Path, server: ApiServer, way: str, family: lab.Family
) -> None:
    where, to = {
        "out": ("shop/caller", "shop/called"),
        "in": ("out/plain", "shop/near"),
        "outside": ("shop/caller", "out/plain"),
        "same node": ("shop/caller", "shop/near"),
    }[way]
    assert mesh.call(where, mesh.address(to, family), 8080).answers()  # what is taught and known by now
    answered: list[bool] = []

    def call() -> None:
        answered.append(mesh.call(where, mesh.address(to, family), 8080).answers(CANARY))

    with holding(mesh, "node-1", tmp_path, server) as holder:
        with mesh.laboratory.capture() as link:
            end_proxy(mesh)
            assert holder_serves(mesh, holder.process.pid)
            thread = threading.Thread(target=call)
            thread.start()
            thread.join(3)
            assert answered == []
            assert way == "in" or not link.holds(CANARY)
        mesh.laboratory.start_node("node-1")
        thread.join(lab.SOCKET_SECONDS)
    assert answered == [True]


def test_where_no_proxy_comes_they_are_refused_after_a_while(
    mesh: Mesh, tmp_path: Path, server: ApiServer
) -> None:
    with holding(mesh, "node-1", tmp_path, server, ZTUNNEL_HOLD_TIMEOUT="2s") as holder:
        end_proxy(mesh)
        begun = time.monotonic()
        wait_until(lambda: holder.said("no proxy has come"), "its time is up")
        assert 1.5 < time.monotonic() - begun < 5
        for where, to in (
            ("shop/caller", "shop/called"),
            ("shop/caller", "shop/near"),
            ("out/plain", "shop/near"),
        ):
            for family in lab.TCP_FAMILIES:
                assert mesh.call(where, mesh.address(to, family), 8080).refused
        mesh.laboratory.start_node("node-1")
    assert is_in_the_mesh(mesh, "shop/caller")


def test_with_a_proxy_that_crashes_again_and_again_pods_go_with_the_daemon_set(
    mesh: Mesh, tmp_path: Path, server: ApiServer
) -> None:
    with holding(mesh, "node-1", tmp_path, server) as holder:
        with crash_loop(mesh):
            begun = time.monotonic()
            while time.monotonic() - begun < 5:  # the DaemonSet is there: a crash is a crash
                with mesh.laboratory.capture() as link:
                    mesh.call("shop/caller", mesh.address("shop/called"), 8080).answers(CANARY)
                    assert not link.holds(CANARY)
            assert not holder.said("uninstalled")
        wait_until(lambda: is_in_the_mesh(mesh, "shop/caller"), "it serves")
        mesh.laboratory.kill_node("node-1")
        assert not is_free(mesh, "shop/caller")
        server.there = False
        begun = time.monotonic()
        wait_until(lambda: is_free(mesh, "shop/caller") and is_free(mesh, "shop/near"), "free", FREED_SECONDS)
        print(f"free after {time.monotonic() - begun:.1f} s")
        wait_until(lambda: holder.said("uninstalled: pods leave the mesh"), "it says so")
        assert not mesh.laboratory.names.pins("node-1").exists()
        server.there = True
        mesh.laboratory.start_node("node-1")
    wait_until(lambda: is_in_the_mesh(mesh, "shop/caller"), "it is in the mesh again")


def test_told_to_end_with_the_mesh_it_frees_at_once(mesh: Mesh, tmp_path: Path, server: ApiServer) -> None:
    with holding(mesh, "node-1", tmp_path, server) as holder:
        mesh.laboratory.kill_node("node-1")
        server.there = False
        holder.process.send_signal(signal.SIGTERM)
        wait_until(lambda: is_free(mesh, "shop/caller") and is_free(mesh, "shop/near"), "free", FREED_SECONDS)
        wait_until(lambda: holder.process.poll() is not None, "it has ended")
        assert holder.process.returncode == 0
        assert os.listdir(tmp_path / ".kube") == ["config"]
        mesh.laboratory.start_node("node-1")
    wait_until(lambda: is_in_the_mesh(mesh, "shop/caller"), "it is in the mesh again")


def test_nothing_unexpected_was_logged(mesh: Mesh) -> None:
    for node in ("node-1", "node-2"):
        assert "Traceback" not in mesh.laboratory.node_log(node)
        assert mesh.figures(node).total("ztunnel_internal_errors_total") == 0
