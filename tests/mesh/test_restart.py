"""A node proxy that is killed, stopped, restarted, uninstalled: what is enforced meanwhile and afterwards."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from tests.mesh import lab
from tests.mesh.lab import Mesh, endpoint_of, read_exactly, wait_until
from ztunnel.demo import run
from ztunnel.kernel import bpf
from ztunnel.kernel.netns import NetworkNamespace

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

ENVIRONMENT = {"CONNECTION_TERMINATION_DEADLINE": "1s"}
CANARY = b"a canary that nobody on the link may read"
MANIFESTS = (
    lab.SHOP
    + lab.pod("shop/near", "node-1")
    + lab.pod("shop/called", "node-2")
    + lab.pod("out/plain", "node-2")
    + lab.service("shop/near", "near")
)
ONLY_NOBODY = lab.policy("shop/nobody", "ALLOW", "[]")


def link_ids(mesh: Mesh, node: str) -> Mapping[str, int]:
    """The ids of all pinned links of a node, by the name of the pin."""
    pins = mesh.laboratory.names.pins(node)
    found = {}
    for path in (*(pins / "links").iterdir(), *(pins / "pods").iterdir()):
        fd = bpf.open_pinned(path)
        found[str(path.relative_to(pins))] = bpf.link_info(fd).id
        bpf.close(fd)
    return found


@contextmanager
def killed(mesh: Mesh, node: str, how: signal.Signals = signal.SIGKILL) -> Iterator[float]:
    """The node's proxy does not run inside the block; since when."""
    mesh.laboratory.kill_node(node, how)
    cgroup = mesh.laboratory.names.proxy_cgroup(node)
    wait_until(lambda: not run.processes(cgroup), "the proxy has ended")
    try:
        yield time.monotonic()
    finally:
        mesh.laboratory.start_node(node)


def open_direct(mesh: Mesh) -> tuple[socket.socket, socket.socket]:
    """A direct flow from caller to near: client, server."""
    listener, address = mesh.listen("shop/near"), mesh.address("shop/near")
    client, server = mesh.join("shop/caller", listener, address)
    client.sendall(b"x")
    assert server.recv(1) == b"x"
    lab.reset(client)
    client, server = mesh.join("shop/caller", listener, address)
    assert endpoint_of(client.getsockname()) == endpoint_of(server.getpeername())
    return client, server


def pass_through(client: socket.socket, server: socket.socket) -> None:
    for one, other in ((client, server), (server, client)):
        one.sendall(CANARY)
        assert read_exactly(other, len(CANARY)) == CANARY


@pytest.mark.parametrize("family", lab.TCP_FAMILIES)
def test_while_it_is_dead_nothing_new_goes_out_or_comes_in_and_nothing_in_plaintext(
    mesh: Mesh, family: lab.Family
) -> None:
    near, called, plain, caller = (
        mesh.address(where, family) for where in ("shop/near", "shop/called", "out/plain", "shop/caller")
    )
    others = plain, mesh.address("node-2", family)
    assert mesh.call("shop/caller", near, 8080).answers()
    with killed(mesh, "node-1") as since, mesh.laboratory.capture() as link:
        for where, address in [
            ("shop/caller", called),
            ("out/plain", caller),
            ("node-2", caller),
            ("shop/called", caller),
        ]:
            call = mesh.call(where, address, 8080)
            assert not call.answers(CANARY), (where, address)
        # What is not the mesh's may have become so meanwhile: nobody would know.
        wait_until(lambda: not mesh.call("shop/caller", plain, 8080).answers(b""), "refused", 4)
        assert time.monotonic() - since < 2.5
        for address in others:
            assert not mesh.call("shop/caller", address, 8080).answers(CANARY), address
        assert not link.holds(CANARY)
        assert not any(segment.payload for segment in link.segments if segment.destination.port == 8080)


def test_a_cached_verdict_counts_for_two_seconds_at_most_and_a_live_direct_flow_goes_on(mesh: Mesh) -> None:
    client, server = open_direct(mesh)
    target = mesh.address("shop/near")
    with killed(mesh, "node-1") as since:
        wait_until(lambda: not mesh.call("shop/caller", target, 8080).answers(), "refused", 4)
        assert time.monotonic() - since < 2.5
        pass_through(client, server)
        assert not mesh.call("shop/caller", target, 8080).answers()
    pass_through(client, server)


def test_after_its_restart_all_is_as_before_and_no_pod_was_touched(mesh: Mesh) -> None:
    names, pods = mesh.laboratory.names, mesh.laboratory.cluster().pods
    processes = {pod.name: run.processes(names.pod_cgroup(pod.node.name, pod.uid)) for pod in pods}
    links = link_ids(mesh, "node-1")
    assert len(links) >= 7
    client, server = open_direct(mesh)
    own = endpoint_of(client.getsockname())
    with killed(mesh, "node-1"):
        pass_through(client, server)
    assert link_ids(mesh, "node-1") == links
    now = {pod.name: run.processes(names.pod_cgroup(pod.node.name, pod.uid)) for pod in pods}
    assert now == processes
    assert mesh.call("shop/caller", mesh.address("shop/called"), 8080).answers()
    assert mesh.call("shop/called", mesh.address("shop/caller"), 8080).answers()
    assert mesh.call("shop/caller", mesh.address("out/plain"), 8080).answers()
    assert mesh.call("out/plain", mesh.address("shop/caller"), 8080).answers()
    pass_through(client, server)
    assert mesh.figures("node-1").total("ztunnel_direct_flows") >= 1
    client.close()
    server.close()
    line = mesh.line("node-1", src_addr=own, direction="outbound")
    assert (line["bytes_sent"], line["bytes_recv"]) == (str(2 * len(CANARY)), str(2 * len(CANARY)))


def test_tunnels_of_a_killed_proxy_end_at_both_ends(mesh: Mesh) -> None:
    out = mesh.join("shop/caller", mesh.listen("shop/called"), mesh.address("shop/called"))
    pass_through(*out)
    with killed(mesh, "node-1"):
        for sock in out:
            assert lab.is_refused(sock)
        line = mesh.line("node-2", direction="inbound", src_workload="caller")
        assert line["bytes_recv"] == str(len(CANARY))
        wait_until(lambda: mesh.figures("node-2").total("ztunnel_hbone_tunnels") == 0, "no tunnel")


def test_a_call_to_a_proxy_that_is_being_restarted_waits_for_it(mesh: Mesh) -> None:
    """Its 15008 refuses for a moment; the caller's side tries again for a second."""
    assert mesh.call("shop/caller", mesh.address("shop/called"), 8080).answers()
    with killed(mesh, "node-2"):
        call = mesh.call("shop/caller", mesh.address("shop/called"), 8080)
        assert call.refused
    wait_until(lambda: mesh.call("shop/caller", mesh.address("shop/called"), 8080).answers(), "answers")


def test_a_policy_that_changed_meanwhile_ends_a_direct_flow_that_lived_on(mesh: Mesh) -> None:
    client, server = open_direct(mesh)
    try:
        with killed(mesh, "node-1"):
            mesh.laboratory.apply(ONLY_NOBODY)
            pass_through(client, server)
        wait_until(lambda: lab.is_refused(client), "ended")
        assert lab.is_refused(server)
    finally:
        mesh.apply(ONLY_NOBODY, delete=True)


def test_what_left_or_joined_meanwhile_is_removed_and_enrolled(mesh: Mesh) -> None:
    new, gone = lab.pod("shop/new", "node-1"), lab.pod("shop/gone", "node-1")
    mesh.apply(gone)
    wait_until(lambda: mesh.figures("node-1").total("workload_manager_active_proxy_count") == 3, "3 pods")
    with killed(mesh, "node-1"):
        mesh.laboratory.apply(new)
        mesh.laboratory.apply(gone, delete=True)
        mesh.laboratory.label("pod", "shop/near", {"istio.io/dataplane-mode": "none"})
    try:
        assert mesh.figures("node-1").total("workload_manager_active_proxy_count") == 2
        assert len([name for name in link_ids(mesh, "node-1") if name.startswith("pods/")]) == 2
        assert mesh.call("shop/near", mesh.address("out/plain"), 8080).answers()
        assert not mesh.find_lines("node-1", src_workload="near")
        call = mesh.call("shop/new", mesh.address("shop/called"), 8080)
        assert call.answers()
        call.sock.close()
        assert mesh.line("node-1", src_addr=call.own)["dst.addr"].endswith(":15008")
    finally:
        mesh.apply(new, delete=True)
        mesh.label("pod", "shop/near", {"istio.io/dataplane-mode": None})
        wait_until(lambda: mesh.figures("node-1").total("workload_manager_active_proxy_count") == 2, "2 pods")


def test_sigterm_lets_connections_end_within_the_deadline_and_leaves_enforcement(mesh: Mesh) -> None:
    listener = mesh.listen("shop/called")
    served = mesh.join("shop/caller", listener, mesh.address("shop/called"))
    direct = open_direct(mesh)
    child = next(child for child in mesh.laboratory._children if is_proxy(mesh, "node-1", child.pid))
    mesh.laboratory.kill_node("node-1", signal.SIGTERM)
    wait_until(lambda: mesh.find_lines("node-1", message="serving on"), "it drains")
    pass_through(*served)
    # Nobody has taken over: whoever is to come begins only when this one has ended.
    assert mesh.call("shop/caller", mesh.address("shop/called"), 8080).answers()
    wait_until(lambda: mesh.find_lines("node-1", message="draining"), "nothing new")
    assert not mesh.call("shop/caller", mesh.address("shop/called"), 8080).answers()
    begun = time.monotonic()
    assert child.wait(10) == 0
    assert time.monotonic() - begun < 5
    try:
        for sock in served:
            assert lab.is_refused(sock)
        pass_through(*direct)
        with mesh.laboratory.capture() as link:
            assert not mesh.call("shop/caller", mesh.address("shop/called"), 8080).answers(CANARY)
            assert not mesh.call("shop/caller", mesh.address("shop/near"), 8080).answers(CANARY)
            assert not mesh.call("out/plain", mesh.address("shop/near"), 8080).answers(CANARY)
            assert not any(segment.payload for segment in link.segments if segment.destination.port == 8080)
    finally:
        mesh.laboratory.start_node("node-1")
    assert mesh.call("shop/caller", mesh.address("shop/called"), 8080).answers()
    assert "Traceback" not in mesh.laboratory.node_log("node-1")


def is_proxy(mesh: Mesh, node: str, pid: int) -> bool:
    return pid in run.processes(mesh.laboratory.names.proxy_cgroup(node))


def test_clean_takes_everything_away_and_the_pods_are_plain(mesh: Mesh) -> None:
    names = mesh.laboratory.names
    direct = open_direct(mesh)
    with killed(mesh, "node-1", signal.SIGTERM):
        done = subprocess.run(
            [sys.executable, "-m", "ztunnel", "clean", "--pins", str(names.pins("node-1"))],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert not names.pins("node-1").exists()
        pass_through(*direct)
        for where in ("shop/caller", "shop/near"):
            assert_untouched(mesh, where)
        with mesh.laboratory.capture() as link:
            client, server = mesh.join("shop/caller", mesh.listen("out/plain"), mesh.address("out/plain"))
            pass_through(client, server)
            assert link.holds(CANARY)
    assert mesh.call("shop/caller", mesh.address("shop/called"), 8080).answers()
    assert len(link_ids(mesh, "node-1")) >= 7


def assert_untouched(mesh: Mesh, where: str) -> None:
    """No rule, no route and no switch of ours is left in a pod."""
    for family in ("-4", "-6"):
        shown = [
            subprocess.run(
                ["nsenter", f"--net={mesh.netns(where)}", "ip", family, *what],
                capture_output=True,
                text=True,
                check=False,
            ).stdout
            for what in (("rule", "show"), ("route", "show", "table", "100"))
        ]
        assert "fwmark" not in shown[0]
        assert shown[1] == ""
    with NetworkNamespace.open(mesh.netns(where)) as there:
        for name in ("net.ipv4.tcp_fwmark_accept", "net.ipv4.tcp_migrate_req", "net.ipv4.fwmark_reflect"):
            assert there.read_sysctl(name) == "0", name


def test_nothing_unexpected_was_logged(mesh: Mesh) -> None:
    for node in ("node-1", "node-2"):
        assert "Traceback" not in mesh.laboratory.node_log(node)
        assert mesh.figures(node).total("ztunnel_internal_errors_total") == 0
