"""Too little or too much: descriptors, memory, the network, connections. What is honest goes on."""

from __future__ import annotations

import resource
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.mesh import lab
from tests.mesh.lab import Mesh, read_exactly, wait_until
from ztunnel.demo import run
from ztunnel.http2.limits import Limits

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

LIMIT_MIB = 8
ENVIRONMENT = {"ZTUNNEL_BUFFER_LIMIT": f"{LIMIT_MIB}Mi"}
MANIFESTS = (
    lab.SHOP
    + lab.pod("shop/near", "node-1")
    + lab.pod("shop/called", "node-2")
    + lab.pod("shop/other", "node-2")
    + lab.pod("out/plain", "node-1")
)
MIB = 1 << 20
LIMITS = Limits()
SHARE_BYTES = LIMITS.first_window_bytes(LIMITS.open_streams)
"""What each stream may be sent at first."""

SPARE_BYTES = LIMITS.session_window_bytes - LIMITS.open_streams * SHARE_BYTES
"""What the windows of a session's streams may grow by, all together."""


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
    place = names.netns(names.node(node))
    # It looks after its pods every two seconds, and could not.
    wait_until(lambda: lab.fetch(place, 15021, "/healthz/ready", {})[0] == 200, "it is ready", 5)


@contextmanager
def cut(mesh: Mesh) -> Iterator[None]:
    """Nothing passes between the nodes."""
    with mesh.filtered("node-2", "type filter hook prerouting priority -300; tcp dport 15008 drop;"):
        yield


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


def download(mesh: Mesh, count: int, who: str = "shop/caller") -> list[socket.socket]:
    """So many connections on which 100 MB come that nobody reads; fewer, where the limit is reached."""
    slow: list[socket.socket] = []
    with suppress(ConnectionRefusedError):
        slow.extend(mesh.connect(who, mesh.address("shop/called"), 8080) for _ in range(count))
    for sock in slow:
        sock.sendall(b"GET /bytes/100000000 HTTP/1.1\r\nHost: x\r\n\r\n")
    return slow


def wait_held(mesh: Mesh, count: float) -> None:
    """Until so many bytes are held."""
    wait_until(lambda: held_bytes(mesh) >= count, f"{count:.0f} bytes are held", 20)


def held_bytes(mesh: Mesh) -> float:
    """What the slow readers have not taken."""
    return mesh.figures("node-1").total("ztunnel_hbone_buffered_bytes")


@pytest.mark.parametrize("count", [4, 20])
def test_slow_readers_do_not_keep_their_session_from_the_others(mesh: Mesh, count: int) -> None:
    """They hold their own shares and what windows grow by, and will not give it back."""
    live = mesh.call("shop/caller", mesh.address("shop/called"), 8080)
    assert live.answers()
    sessions = mesh.figures("node-1").total("ztunnel_hbone_sessions")
    download(mesh, count)
    wait_held(mesh, count * SHARE_BYTES // 2)  # the other half may be in its socket, and untold
    assert held_bytes(mesh) <= count * SHARE_BYTES + SPARE_BYTES
    for _ in range(100):
        assert live.answers(b"z" * 200_000)
    assert mesh.call("shop/caller", mesh.address("shop/called"), 8080).answers()
    assert mesh.figures("node-1").total("ztunnel_hbone_sessions") == sessions, "all on the same one"


def test_who_does_not_read_is_refused_at_the_limit_and_nobody_else(mesh: Mesh) -> None:
    pid, target = process(mesh, "node-1"), mesh.address("shop/called")
    before = resident_bytes(pid)
    live = mesh.call("shop/caller", target, 8080)
    assert live.answers()
    slow: list[socket.socket] = []
    while (before_these := held_bytes(mesh)) < LIMIT_MIB * MIB * 3 // 4:
        more = download(mesh, 10)
        slow += more
        if len(more) < 10:
            break
        wait_held(mesh, min(before_these + 5 * SHARE_BYTES, LIMIT_MIB * MIB * 3 // 4))
    for _ in range(20):
        call = mesh.call("shop/caller", target, 8080)
        assert call.refused
    assert "ZTUNNEL_BUFFER_LIMIT" in mesh.line("node-1", src_addr=call.own)["error"]
    assert mesh.call("shop/near", target, 8080).answers(), "another pod's calls are taken"
    others = download(mesh, 40, "shop/near")
    wait_until(lambda: mesh.grown("node-1", "ztunnel_buffers_exhausted_total") > 20, "some gave way", 20)
    assert held_bytes(mesh) <= LIMIT_MIB * MIB
    assert resident_bytes(pid) - before < 100 * MIB
    gave_way = mesh.find_lines("node-1", message="connection complete", src_workload="caller")
    assert [line for line in gave_way if "most is this pod's and peer's" in line.get("error", "")]
    assert live.answers(), "what is read goes on"
    assert mesh.grown("node-1", "ztunnel_hbone_sessions") <= 4
    for sock in (*slow, *others):
        lab.reset(sock)
    wait_until(lambda: mesh.call("shop/caller", target, 8080).answers(), "calls are taken again")
    wait_until(lambda: not held_bytes(mesh), "nothing is held")


@pytest.fixture
def small_buffers(mesh: Mesh) -> Iterator[None]:
    """Sockets take little: hundreds of full ones would reach the machine's `tcp_mem`."""
    with mesh.sysctl(["shop/near", "out/plain"], "net.ipv4.tcp_wmem", "4096 16384 131072"):
        yield


@pytest.mark.usefixtures("small_buffers")
def test_plaintext_that_nobody_reads_is_held_within_the_same_limit(mesh: Mesh) -> None:
    """Between pods of which one is not in the mesh; of what is sent both ends' kernels hold most."""
    listener, target = mesh.listen("shop/near"), mesh.address("shop/near")
    live, far = mesh.join("out/plain", listener, target)
    pairs = [mesh.join("out/plain", listener, target) for _ in range(720)]  # some 20 KiB of a read each
    for client, server in pairs:
        client.setblocking(False)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    block = bytes(MIB)

    def gave_way() -> bool:
        for client, _ in pairs:
            with suppress(BlockingIOError, ConnectionResetError, BrokenPipeError):
                while True:
                    client.send(block)
        return mesh.grown("node-1", "ztunnel_buffers_exhausted_total") > 0

    wait_until(gave_way, "some have given way", 20)
    wait_until(lambda: held_bytes(mesh) <= LIMIT_MIB * MIB, "no more is held than may be", 1)
    assert held_bytes(mesh) > 0
    live.sendall(b"still here")
    assert read_exactly(far, 10) == b"still here"
    for client, server in pairs:
        lab.reset(client)
        lab.reset(server)
    wait_until(lambda: not held_bytes(mesh), "nothing is held")


def test_writers_that_nobody_reads_hold_a_bounded_amount(mesh: Mesh) -> None:
    listener, target = mesh.listen("shop/other"), mesh.address("shop/other")
    pid = process(mesh, "node-2")
    before = resident_bytes(pid)
    pairs = [mesh.join("shop/caller", listener, target) for _ in range(40)]
    block = bytes(MIB)
    for client, _ in pairs:
        client.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                client.send(block)
    assert mesh.figures("node-2").total("ztunnel_hbone_buffered_bytes") <= 40 * MIB
    assert resident_bytes(pid) - before < 100 * MIB
    for client, server in pairs:
        lab.reset(client)
        lab.reset(server)
    wait_until(lambda: mesh.call("shop/caller", target, 8080).answers(), "new tunnels are taken")


@pytest.mark.parametrize(
    ("where", "to", "node"),
    [
        ("shop/caller", "shop/called", "node-2"),
        ("shop/caller", "shop/near", "node-1"),
        ("out/plain", "shop/near", "node-1"),
    ],
)
def test_a_thousand_connections_at_once_are_all_served_and_counted(
    mesh: Mesh, where: str, to: str, node: str
) -> None:
    listener, target = mesh.listen(to), mesh.address(to)
    pairs = [mesh.join(where, listener, target) for _ in range(1000)]
    for number, (client, server) in enumerate(pairs):
        client.sendall(f"{number:06}".encode())
        assert read_exactly(server, 6) == f"{number:06}".encode()
    for client, server in pairs:
        lab.reset(client)
        lab.reset(server)
    labels = {
        "reporter": "destination",
        "destination_workload": to[5:],
        "source_workload": where.split("/")[1],
    }
    mesh.expect(node, 1000, "istio_tcp_connections_opened_total", **labels)
    mesh.expect(node, 1000, "istio_tcp_connections_closed_total", **labels)
    mesh.expect(node, 6000, "istio_tcp_received_bytes_total", **labels)
    assert mesh.grown(node, "ztunnel_redirect_outcomes_total", outcome="record_lost") == 0


def test_silent_clients_do_not_slow_an_honest_one(mesh: Mesh) -> None:
    target = mesh.address("shop/called")
    for _ in range(300):
        mesh.connect("shop/caller", target, 8080)
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
