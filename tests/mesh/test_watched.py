"""What others change under a running mesh: it is repaired, counted and told, and calls go on."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mesh import lab
from tests.mesh.lab import TCP_FAMILIES, Family, Mesh, wait_until
from ztunnel.demo.run import processes
from ztunnel.kernel import bpf

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

REPAIRS = "ztunnel_repairs_total"
MANIFESTS = (
    lab.NODES
    + lab.namespace("shop")
    + lab.namespace("outside", ambient=False)
    + lab.pod("shop/caller", "node-1")
    + lab.pod("shop/near", "node-1")
    + lab.pod("shop/called", "node-2")
    + lab.pod("outside/legacy", "node-2")
    + lab.peer_authentication("shop/default", "STRICT")
)


def ready(mesh: Mesh, node: str) -> str:
    return mesh.laboratory.node_get(node, "/healthz/ready", 15021)


def repaired(mesh: Mesh, node: str, what: str) -> bool:
    """Whether that has been counted once more since the test began."""
    return mesh.grown(node, REPAIRS, what=what) > 0


def run(mesh: Mesh, pod: str, command: str) -> str:
    done = mesh.laboratory.exec(pod, ["sh", "-c", command])
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- the node --------------------------------------------------------------------------


def probe(mesh: Mesh) -> bool:
    """Whether a probe of node-2's kubelet reaches a pod under STRICT."""
    target = mesh.address("shop/called")
    script = f"import socket; s = socket.create_connection(('{target}', 8080), 3); s.send(b'?'); s.recv(1)"
    return mesh.laboratory.exec_node("node-2", ["python3", "-c", script]).returncode == 0


def test_probes_pass_again_when_the_kubelets_cgroup_was_made_anew(mesh: Mesh) -> None:
    assert probe(mesh)
    kubelet = mesh.laboratory.names.node_cgroup("node-2")
    kubelet.rmdir()
    kubelet.mkdir()
    wait_until(lambda: probe(mesh), "the new cgroup is known")
    assert repaired(mesh, "node-2", "node clients")
    assert ready(mesh, "node-2").startswith("ready")


@pytest.fixture
def proxy(mesh: Mesh) -> Iterator[int]:
    """The process of node-1, which is back in its cgroup afterwards."""
    cgroup = mesh.laboratory.names.proxy_cgroup("node-1")
    (pid,) = processes(cgroup)
    yield pid
    (cgroup / "cgroup.procs").write_text(str(pid))
    wait_until(lambda: ready(mesh, "node-1").startswith("ready"), "node-1 is ready again")


@pytest.fixture
def elsewhere(mesh: Mesh) -> Iterator[Path]:
    """A cgroup that no proxy knows; empty when it is removed."""
    place = mesh.laboratory.names.cgroup / "elsewhere"
    place.mkdir()
    yield place
    wait_until(lambda: not (place / "cgroup.procs").read_text(), "nobody is there any more")
    place.rmdir()


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


@pytest.mark.parametrize("family", TCP_FAMILIES)
def test_a_proxy_that_is_moved_to_another_cgroup_does_not_capture_itself(
    mesh: Mesh, elsewhere: Path, proxy: int, family: Family
) -> None:
    before = descriptors(proxy)
    (elsewhere / "cgroup.procs").write_text(str(proxy))
    for target in ("outside/legacy", "shop/called", "shop/near"):
        assert mesh.call("shop/caller", mesh.address(target, family), 8080).answers(), target
    assert descriptors(proxy) < before + 100
    assert repaired(mesh, "node-1", "own cgroup")
    assert ready(mesh, "node-1").startswith("ready")


def test_a_proxy_in_the_root_cgroup_refuses_calls_and_says_why(mesh: Mesh, proxy: int) -> None:
    before = descriptors(proxy)
    (mesh.laboratory.names.cgroup2 / "cgroup.procs").write_text(str(proxy))
    assert mesh.call("shop/caller", mesh.address("shop/called"), 8080).refused
    wait_until(lambda: "the proxy is in the root cgroup" in mesh.laboratory.node_log("node-1"), "it says why")
    wait_until(lambda: "not ready, pending: own cgroup" in ready(mesh, "node-1"), "the node is not ready")
    assert descriptors(proxy) < before + 100
    (mesh.laboratory.names.proxy_cgroup("node-1") / "cgroup.procs").write_text(str(proxy))
    wait_until(lambda: ready(mesh, "node-1").startswith("ready"), "the node is ready again")
    assert mesh.call("shop/caller", mesh.address("shop/called"), 8080).answers()


def test_programs_that_somebody_unpins_and_detaches_are_put_back(mesh: Mesh) -> None:
    pins = mesh.laboratory.names.pins("node-1")
    link = bpf.open_pinned(pins / "links/connect4")
    shutil.rmtree(pins)
    assert mesh.call("shop/caller", mesh.address("shop/called"), 8080).answers()  # they are still in force
    bpf.link_detach(link)
    bpf.close(link)
    wait_until(lambda: repaired(mesh, "node-1", "link connect4"), "it is attached again")
    wait_until(lambda: repaired(mesh, "node-1", "pins"), "they are pinned again")
    assert mesh.call("shop/caller", mesh.address("shop/called"), 8080).answers()
    mesh.expect("node-1", 2, "istio_tcp_connections_opened_total", reporter="source")
    mesh.laboratory.kill_node("node-1")
    assert mesh.call("shop/caller", mesh.address("shop/called"), 8080).refused
    mesh.laboratory.start_node("node-1")
    assert mesh.call("shop/caller", mesh.address("shop/called"), 8080).answers()


# --- pods ------------------------------------------------------------------------------

TAKEN = {
    "IPv4 rule": "ip rule del pref 32764",
    "IPv6 rule": "ip -6 rule del pref 32764",
    "IPv4 route": "ip route flush table 100",
    "IPv6 route": "ip -6 route flush table 100",
    "net.ipv4.tcp_fwmark_accept": "echo 0 >/proc/sys/net/ipv4/tcp_fwmark_accept",
}


@pytest.mark.parametrize("what", TAKEN)
def test_what_is_taken_away_in_a_pod_is_made_again(mesh: Mesh, what: str) -> None:
    run(mesh, "shop/called", TAKEN[what])
    wait_until(lambda: repaired(mesh, "node-2", what), f"{what} is repaired")
    for family in TCP_FAMILIES:
        assert mesh.call("shop/caller", mesh.address("shop/called", family), 8080).answers()
    assert ready(mesh, "node-2").startswith("ready")
    wait_until(lambda: f'what="{what}"' in mesh.laboratory.node_log("node-2"), "it is told")


@pytest.mark.parametrize("family", ["4", "6"])
def test_a_rule_that_comes_before_ours_does_not_take_the_replies(mesh: Mesh, family: str) -> None:
    """Without a number the kernel puts a rule before all others, as VPNs have theirs."""
    rule = f"ip -{family} rule {{}} ipproto tcp sport 8080 lookup 51820"
    route = f"ip -{family} route {{}} blackhole default table 51820"
    run(mesh, "shop/called", f"{route.format('add')}; {rule.format('add')}")
    try:
        wait_until(lambda: repaired(mesh, "node-2", f"IPv{family} rule"), "ours goes before it")
        ip = mesh.address("shop/called", TCP_FAMILIES[family == "6"])
        assert mesh.call("shop/near", ip, 8080).answers()
        assert "lookup 51820" in run(mesh, "shop/called", f"ip -{family} rule")
    finally:
        run(mesh, "shop/called", f"{rule.format('del')}; {route.format('del')}")


def test_a_listener_that_is_destroyed_inside_a_pod_is_made_again(mesh: Mesh) -> None:
    subprocess.run(
        ["nsenter", f"--net={mesh.netns('shop/called')}", "ss", "-K", "-tln", "sport = :15008"],
        check=True,
        capture_output=True,
    )
    wait_until(lambda: repaired(mesh, "node-2", "listener hbone"), "it listens again")
    assert mesh.call("shop/caller", mesh.address("shop/called"), 8080).answers()
    assert mesh.call("shop/called", mesh.address("shop/caller"), 8080).answers()
    refused = mesh.call("outside/legacy", mesh.address("shop/called"), 8080)
    assert refused.refused
    assert "policy rejection" in mesh.line("node-2", direction="inbound", src_addr=refused.own)["error"]


def test_nothing_unexpected_was_logged(mesh: Mesh) -> None:
    for node in ("node-1", "node-2"):
        assert "Traceback" not in mesh.laboratory.node_log(node)
        assert mesh.figures(node).total("ztunnel_internal_errors_total") == 0
