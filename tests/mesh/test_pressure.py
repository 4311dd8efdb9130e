"""Too little of something, or too much: descriptors, memory, the network, connections. What is honest goes on."""

from __future__ import annotations

import resource
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mesh import lab
from tests.mesh.lab import Mesh, read_exactly, wait_until
from ztunnel.demo import run

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

ENVIRONMENT = {"ZTUNNEL_BUFFER_LIMIT": "8Mi"}
MANIFESTS = (
    lab.NODES
    + lab.namespace("shop")
    + lab.namespace("out", ambient=False)
    + lab.pod("shop/caller", "node-1")
    + lab.pod("shop/near", "node-1")
    + lab.pod("shop/called", "node-2")
    + lab.pod("shop/other", "node-2")
    + lab.pod("out/plain", "node-1")
)
MIB = 1 << 20


def process(mesh: Mesh, node: str) -> int:
    [pid] = run.processes(mesh.laboratory.names.proxy_cgroup(node))
    return pid


def cpu_seconds(pid: int) -> float:
    """What a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def resident_bytes(pid: int) -> int:
    """A process's memory that is its own."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


@contextmanager
def few_descriptors(pid: int, spare: int) -> Iterator[None]:
    """A process may open only so many more."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    count = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (count + spare, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("node", ["node-1", "node-2"])
def test_without_descriptors_it_sheds_does_not_spin_and_recovers(mesh: Mesh, node: str) -> None:
    pid, target = process(mesh, node), mesh.address("shop/called")
    stays = mesh.call("shop/caller", target, 8080)
    assert stays.answers()
    with few_descriptors(pid, 30):
        calls = [mesh.call("shop/caller", target, 8080) for _ in range(200)]
        answered = sum(call.answers() for call in calls[:10])
        begun, used = time.monotonic(), cpu_seconds(pid)
        lab.steadily(stays.answers, "what is open goes on", 1.0)
        assert (cpu_seconds(pid) - used) / (time.monotonic() - begun) < 0.5
        assert answered >= 1
        for call in calls:
            lab.reset(call.sock)
        wait_until(lambda: mesh.call("shop/caller", target, 8080).answers(), "it recovers by itself", 5)
    assert stays.answers()
    wait_until(lambda: mesh.call("shop/caller", target, 8080).answers(), "it recovers", 5)
    names = mesh.laboratory.names
    assert lab.fetch(names.netns(names.node(node)), 15021, "/healthz/ready", {})[0] == 200


@contextmanager
def cut(mesh: Mesh) -> Iterator[None]:
    """Nothing passes between the nodes."""
    fabric = ["nsenter", f"--net={mesh.netns('node-2')}", "nft"]
    rule = "type filter hook prerouting priority -300; tcp dport 15008 drop;"
    subprocess.run([*fabric, f"table inet cut {{ chain in {{ {rule} }}; }}"], check=True)
    try:
        yield
    finally:
        subprocess.run([*fabric, "delete table inet cut"], check=True)


def test_a_tunnel_outlives_three_seconds_without_a_network(mesh: Mesh) -> None:
    client, server = mesh.join("shop/caller", mesh.listen("shop/called"), mesh.address("shop/called"))
    client.sendall(b"before")
    assert read_exactly(server, 6) == b"before"
    with cut(mesh):
        client.sendall(b"during")
        server.settimeout(3)
        with pytest.raises(TimeoutError):
            server.recv(1)
    server.settimeout(lab.SOCKET_SECONDS)
    assert read_exactly(server, 6) == b"during"
    server.sendall(b"after")
    assert read_exactly(client, 5) == b"after"


def test_stalled_tunnels_hold_a_bounded_amount_and_new_ones_are_refused_until_they_move(mesh: Mesh) -> None:
    listener, target = mesh.listen("shop/other"), mesh.address("shop/other")
    pid = process(mesh, "node-2")
    before = resident_bytes(pid)
    pairs = [mesh.join("shop/caller", listener, target) for _ in range(40)]
    block = bytes(MIB)
    for client, _ in pairs:
        client.setblocking(False)
        try:
            while True:
                client.send(block)
        except BlockingIOError:
            continue
    held = mesh.figures("node-2").total("ztunnel_hbone_buffered_bytes")
    assert held <= 24 * MIB, "the limit of 8 MiB and what was under way"
    assert resident_bytes(pid) - before < 128 * MIB
    for client, server in pairs:
        lab.reset(client)
        lab.reset(server)
    wait_until(lambda: mesh.figures("node-2").total("ztunnel_hbone_buffered_bytes") == 0, "nothing is held")
    wait_until(lambda: mesh.call("shop/caller", target, 8080).answers(), "new tunnels are taken")


def test_a_thousand_connections_at_once_each_way_are_all_served(mesh: Mesh) -> None:
    for where, to in [
        ("shop/caller", "shop/called"),
        ("shop/caller", "shop/near"),
        ("out/plain", "shop/near"),
    ]:
        listener, target = mesh.listen(to), mesh.address(to)
        pairs = [mesh.join(where, listener, target) for _ in range(1000)]
        for number, (client, server) in enumerate(pairs):
            client.sendall(f"{number:06}".encode())
            assert read_exactly(server, 6) == f"{number:06}".encode()
        for client, server in pairs:
            lab.reset(client)
            lab.reset(server)


def test_the_accept_queue_of_an_application_that_is_full_is_waited_for_and_said(mesh: Mesh) -> None:
    """As without a mesh the caller's connect succeeds first; here it is told within ten seconds."""
    sock = mesh.socket("shop/called")
    sock.bind(("0.0.0.0", 0))
    sock.listen(0)
    target, port = mesh.address("shop/called"), sock.getsockname()[1]
    calls = [mesh.call("shop/caller", target, port) for _ in range(4)]
    begun = time.monotonic()
    waiting = [call for call in calls if call.error is None]
    for call in waiting:
        call.sock.settimeout(13)
    refused = 0
    for call in waiting[2:]:
        try:
            refused += call.sock.recv(1) == b""
        except ConnectionError:
            refused += 1
    assert refused == 2
    assert time.monotonic() - begun < 12
    errors = [line.get("error", "") for line in mesh.lines("node-2")]
    assert len([error for error in errors if "timed out" in error]) == 2


def test_silent_clients_and_slow_readers_do_not_slow_an_honest_one(mesh: Mesh) -> None:
    target = mesh.address("shop/called")
    for _ in range(300):
        mesh.connect("shop/caller", target, 8080)
    slow = [mesh.connect("shop/caller", target, 8080) for _ in range(20)]
    for sock in slow:
        sock.sendall(b"GET /bytes/100000000 HTTP/1.1\r\nHost: x\r\n\r\n")
    took = []
    for _ in range(50):
        begun = time.monotonic()
        assert mesh.call("shop/caller", target, 8080).answers()
        took.append(time.monotonic() - begun)
    assert sorted(took)[45] < 0.25


def test_nothing_unexpected_was_logged(mesh: Mesh) -> None:
    for node in ("node-1", "node-2"):
        assert "Traceback" not in mesh.laboratory.node_log(node)
        assert mesh.figures(node).total("ztunnel_internal_errors_total") == 0
