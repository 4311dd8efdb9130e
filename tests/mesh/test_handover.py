"""A node proxy that is replaced while connections come and go: none fails, and what is open lives on."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

import pytest
import trio

from tests.mesh import lab
from tests.mesh.lab import Mesh, endpoint_of, read_exactly, wait_until
from ztunnel.demo import run
from ztunnel.demo.failure import LaboratoryFailed
from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.run.handover import socket_of
from ztunnel.run.successor import take_over

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

DEADLINE_SECONDS = 4.0
ENVIRONMENT = {"CONNECTION_TERMINATION_DEADLINE": f"{DEADLINE_SECONDS:.0f}s"}
MANIFESTS = (
    lab.SHOP
    + lab.pod("shop/near", "node-1")
    + lab.pod("shop/called", "node-2")
    + lab.pod("out/plain", "node-2")
)
WAYS = {
    "direct": ("shop/caller", "shop/near"),
    "a tunnel from the node": ("shop/caller", "shop/called"),
    "a tunnel to the node": ("shop/called", "shop/caller"),
    "plaintext from outside": ("out/plain", "shop/near"),
    "a call that leaves the mesh": ("shop/caller", "out/plain"),
}
EVERY_SECONDS = 0.02
BURST, BURST_SECONDS = 200, 0.5
CANARY = b"said before, during and after"


@dataclass
class Storm:
    """New connections on each way, IPv4 and IPv6, every 20 ms; and 200 at once every half second from outside
    to one pod, so that its backlog is full whenever the switch comes. Each is echoed to once."""

    mesh: Mesh
    made: int = 0
    longest_seconds: float = 0.0
    failed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        # Looked up once: whoever changes objects meanwhile holds a lock on them.
        self._ends = [
            (way, self.mesh.netns(where), self.mesh.address(to, family))
            for way, (where, to) in WAYS.items()
            for family in (IPv4Address, IPv6Address)
        ]

    @contextmanager
    def raging(self) -> Iterator[Storm]:
        outside = next(end for end in self._ends if end[0] == "plaintext from outside")
        threads = [threading.Thread(target=self._call_often, args=end) for end in self._ends]
        threads.append(threading.Thread(target=self._burst_often, args=outside))
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def _call_often(self, way: str, netns: str, address: str) -> None:
        with NetworkNamespace.open(netns) as there:
            while not self._stop.wait(EVERY_SECONDS):
                self._call(way, there, address)

    def _call(self, way: str, there: NetworkNamespace, address: str) -> None:
        begun, step = time.monotonic(), "connect"
        with there.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.settimeout(lab.SOCKET_SECONDS)
            try:
                sock.connect((address, 8080))
                step = "echo"
                sock.sendall(CANARY)
                assert read_exactly(sock, len(CANARY)) == CANARY
            except (OSError, AssertionError) as error:
                self.failed.append(f"{way}, {address}, {step}: {error!r}")
        self.made += 1
        self.longest_seconds = max(self.longest_seconds, time.monotonic() - begun)

    def _burst_often(self, way: str, netns: str, address: str) -> None:
        with NetworkNamespace.open(netns) as there:
            while not self._stop.wait(BURST_SECONDS):
                self._burst(way, there, address)

    def _burst(self, way: str, there: NetworkNamespace, address: str) -> None:
        with ExitStack() as stack:
            callers = []
            for _ in range(BURST):
                sock = stack.enter_context(there.socket(socket.AF_INET, socket.SOCK_STREAM))
                sock.connect_ex((address, 8080))
                callers.append(sock)
            for sock in callers:
                sock.settimeout(lab.SOCKET_SECONDS)
                try:
                    sock.sendall(CANARY)
                    assert read_exactly(sock, len(CANARY)) == CANARY
                except (OSError, AssertionError) as error:
                    self.failed.append(f"one of {BURST} at once, {way}: {error!r}")
            self.made += BURST


def pass_through(client: socket.socket, server: socket.socket) -> None:
    for one, other in ((client, server), (server, client)):
        one.sendall(CANARY)
        assert read_exactly(other, len(CANARY)) == CANARY


def open_flows(mesh: Mesh) -> dict[str, tuple[socket.socket, socket.socket]]:
    """One connection of each kind that stays: client, server."""
    found = {}
    for way, (where, to) in WAYS.items():
        listener = mesh.listen(to)
        if way == "direct":  # the first is carried by the proxy, and teaches the kernel
            client, server = mesh.join(where, listener, mesh.address(to))
            pass_through(client, server)
            client.close()
            server.close()
        found[way] = mesh.join(where, listener, mesh.address(to))
        pass_through(*found[way])
    return found


def proxies(mesh: Mesh, node: str) -> list[int]:
    return run.processes(mesh.laboratory.names.proxy_cgroup(node))


def test_a_replacement_fails_no_new_connection_and_cuts_none_before_the_drain_is_over(mesh: Mesh) -> None:
    flows = open_flows(mesh)
    direct, outside = (flows.pop(way) for way in ("direct", "a call that leaves the mesh"))
    client, server = (endpoint_of(sock.getsockname()) for sock in flows["a tunnel from the node"])
    storm, [before] = Storm(mesh), proxies(mesh, "node-1")
    started = threading.Event()

    def replace() -> None:
        mesh.laboratory.restart_node("node-1")
        started.set()

    with storm.raging():
        wait_until(lambda: storm.made > 1000, "the storm rages", 30)
        thread = threading.Thread(target=replace)
        thread.start()
        # Both run: what was open is carried by the old one for its drain period.
        wait_until(lambda: mesh.find_lines("node-1", message="handed over"), "handed over", 40)
        begun = time.monotonic()
        while time.monotonic() - begun < DEADLINE_SECONDS / 2:
            for flow in (*flows.values(), direct, outside):
                pass_through(*flow)
        thread.join(60)
        assert started.is_set()
        wait_until(lambda: storm.made > 3000, "it raged on", 30)
    assert storm.failed == []
    assert [before] != proxies(mesh, "node-1")
    print(f"{storm.made} connections, the longest took {storm.longest_seconds:.2f} s")
    # Tunnels and plaintext ended with the old process, and said why; what the kernel carries lives on.
    for flow in flows.values():
        assert all(lab.is_refused(sock) for sock in flow)
    # One port of a client serves calls to several destinations: the storm's as well.
    line = mesh.line("node-1", src_addr=client, dst_hbone_addr=server, direction="outbound")
    assert line["error"] == "connection closed due to connection drain"
    assert int(line["bytes_sent"]) >= 2 * len(CANARY)
    for flow in (direct, outside):
        pass_through(*flow)
        client, server = (endpoint_of(sock.getsockname()) for sock in flow)
        for sock in flow:
            sock.close()
        line = mesh.line("node-1", src_addr=client, dst_addr=server, direction="outbound")
        assert int(line["bytes_sent"]) >= 3 * len(CANARY)
    assert mesh.figures("node-1").total("ztunnel_internal_errors_total") == 0


def test_one_that_ends_at_once_again_and_again_takes_nothing_over(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    [before] = proxies(mesh, "node-1")
    storm = Storm(mesh)
    monkeypatch.setenv("CONNECTION_TERMINATION_DEADLINE", "soon")
    with storm.raging():
        for _ in range(3):
            with pytest.raises(LaboratoryFailed, match="the new proxy of node-1 ended with 1"):
                mesh.laboratory.restart_node("node-1")
    assert storm.failed == []
    assert proxies(mesh, "node-1") == [before]


def test_one_that_dies_while_it_takes_over_leaves_the_other_serving(mesh: Mesh) -> None:
    names = mesh.laboratory.names
    pins = names.pins("node-1")
    place = socket_of(names.node_directory("node-1"), pins)
    [before] = proxies(mesh, "node-1")
    flows, storm = open_flows(mesh), Storm(mesh)

    async def take_and_die() -> int:
        inherited = await take_over(place, pins, True)
        await trio.sleep(0.3)
        inherited.close()
        return len(inherited.listeners)

    with storm.raging():
        for number in range(1, 4):
            assert trio.run(take_and_die) == 2
            wait_until(
                lambda number=number: len(mesh.find_lines("node-1", message="handover failed")) == number,
                "the old one goes on",
            )
            made = storm.made
            wait_until(lambda made=made: storm.made > made + 300, "it serves", 30)
            for flow in flows.values():
                pass_through(*flow)
    assert storm.failed == []
    assert proxies(mesh, "node-1") == [before]


def test_after_a_crash_the_next_one_takes_all_up_and_hands_over_again(mesh: Mesh) -> None:
    mesh.laboratory.kill_node("node-1")
    mesh.laboratory.restart_node("node-1")
    mesh.laboratory.restart_node("node-1")
    [one] = proxies(mesh, "node-1")
    assert mesh.find_lines("node-1", message="handed over")
    for where, to in WAYS.values():
        assert mesh.call(where, mesh.address(to), 8080).answers()
    assert one


def test_nothing_unexpected_was_logged(mesh: Mesh) -> None:
    for node in ("node-1", "node-2"):
        assert "Traceback" not in mesh.laboratory.node_log(node)
        assert mesh.figures(node).total("ztunnel_internal_errors_total") == 0
