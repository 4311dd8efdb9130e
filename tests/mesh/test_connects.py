"""What connect() tells an application in the mesh: the same as without one, once the far end has answered."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address

import pytest

from tests.mesh import lab
from tests.mesh.lab import Family, Mesh, endpoint_of, read_exactly, wait_until
from ztunnel.demo import run

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

ENVIRONMENT = {"ZTUNNEL_CONNECT_TIMEOUT": "2s"}
MANIFESTS = (
    lab.NODES
    + lab.namespace("shop")
    + lab.pod("shop/caller", "node-1")
    + lab.pod("shop/near", "node-1")
    + lab.pod("shop/far", "node-2")
    + lab.pod("shop/silent", "node-2")
    + lab.pod("shop/slow", "node-2")
    + lab.service("shop/empty", "nobody", 80, "8080")
    + lab.service("shop/near", "near", 80, "8080")
)
PODS = pytest.mark.parametrize("where", ["shop/near", "shop/far"])
FAMILIES = pytest.mark.parametrize("family", lab.TCP_FAMILIES)
NOBODY = 9  # the port that nobody listens on
DENY = lab.policy("shop/none-there", "DENY", '[{to: [{operation: {ports: ["8080"]}}]}]')
ROUNDS = 3
"""The first call of a pair is made by the proxy, the later ones may be the kernel's."""


@PODS
@FAMILIES
def test_nobody_listens(mesh: Mesh, where: str, family: Family) -> None:
    for _ in range(ROUNDS):
        call = mesh.call("shop/caller", mesh.address(where, family), NOBODY)
        assert call.error is not None
        assert call.error.errno == errno.ECONNREFUSED
        wait_until(lambda own=call.own: mesh.find_lines("node-1", src_addr=own), "a line")
        assert all("error" in line for line in mesh.find_lines("node-1", src_addr=call.own))


@pytest.mark.parametrize(
    ("service", "port"), [("empty", 80), ("near", 81)], ids=["no endpoint", "no such port"]
)
@FAMILIES
def test_nobody_serves(mesh: Mesh, service: str, port: int, family: Family) -> None:
    vip = next(ip for ip in mesh.laboratory.service(f"shop/{service}").addresses if isinstance(ip, family))
    for _ in range(ROUNDS):
        call = mesh.call("shop/caller", vip, port)
        assert call.error is not None
        assert call.error.errno == errno.ECONNREFUSED
        wait_until(lambda own=call.own: mesh.find_lines("node-1", src_addr=own), "a line")
        assert all(
            "no healthy upstream" in line["error"] for line in mesh.find_lines("node-1", src_addr=call.own)
        )


@PODS
@FAMILIES
def test_a_policy_denies(mesh: Mesh, applied, where: str, family: Family) -> None:
    applied(DENY)
    for _ in range(ROUNDS):
        call = mesh.call("shop/caller", mesh.address(where, family), 8080)
        assert call.error is not None
        assert call.error.errno == errno.ECONNREFUSED


@PODS
@FAMILIES
def test_a_server_that_speaks_first_and_closes_is_read(mesh: Mesh, where: str, family: Family) -> None:
    listener = mesh.listen(where)
    for _ in range(ROUNDS):
        sock = mesh.socket("shop/caller", socket.AF_INET6 if family is lab.IPv6Address else socket.AF_INET)
        sock.setblocking(False)
        sock.connect_ex((mesh.address(where, family), listener.port))
        server = listener.accept()
        server.sendall(b"220 ready")
        server.shutdown(socket.SHUT_WR)
        select.select([], [sock], [], 5)
        sock.settimeout(lab.SOCKET_SECONDS)
        assert lab.read_all(sock) == b"220 ready"
        sock.sendall(b"QUIT")
        assert read_exactly(server, 4) == b"QUIT"
        sock.close()
        server.close()


@PODS
@FAMILIES
def test_two_that_connect_to_each_other_are_both_refused(mesh: Mesh, where: str, family: Family) -> None:
    """Simultaneous open (RFC 9293 3.5): nobody listens."""
    kind = socket.AF_INET if family is IPv4Address else socket.AF_INET6
    names = [mesh.socket("shop/caller", kind), mesh.socket(where, kind)]
    for sock, pod in zip(names, ("shop/caller", where), strict=True):
        sock.bind((mesh.address(pod, family), 0))
        sock.setblocking(False)
    ends = [sock.getsockname()[:2] for sock in names]
    for sock, other in zip(names, reversed(ends), strict=True):
        assert sock.connect_ex(other) in (errno.EINPROGRESS, errno.ECONNREFUSED)
    for sock in names:
        wait_until(lambda sock=sock: select.select([], [sock], [], 0)[1], "an answer")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in (0, errno.ECONNREFUSED)
        with pytest.raises(OSError, match="not connected"):
            sock.getpeername()


def test_a_node_that_does_not_answer(mesh: Mesh) -> None:
    """As a host that has gone: an error in bounded time, and its reason in the log."""
    with mesh.filtered("shop/silent", "type filter hook input priority 0; tcp dport 15008 drop;"):
        call = mesh.call("shop/caller", mesh.address("shop/silent"), 8080)
        assert call.error is not None
        assert call.error.errno == errno.EHOSTUNREACH
        line = mesh.line("node-1", src_addr=call.own)
        assert "15008" in line["error"]


def test_an_application_that_does_not_wait_leaves_nothing(mesh: Mesh) -> None:
    with mesh.filtered("shop/slow", "type filter hook input priority 0; tcp dport 15008 drop;"):
        sock = mesh.socket("shop/caller")
        sock.setblocking(False)
        assert sock.connect_ex((mesh.address("shop/slow"), 8080)) == errno.EINPROGRESS
        own = endpoint_of(sock.getsockname())
        assert select.select([], [sock], [], 0.2)[1] == []
        sock.close()
        line = mesh.line("node-1", src_addr=own)
        assert "the application closed before" in line["error"]


@contextmanager
def standing_still(mesh: Mesh, node: str) -> Iterator[None]:
    """Its proxy is alive and does nothing."""
    processes = run.processes(mesh.laboratory.names.proxy_cgroup(node))
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in processes:
            os.kill(pid, signal.SIGCONT)


def test_a_proxy_that_stands_still_refuses_in_bounded_time(mesh: Mesh) -> None:
    """Within the two seconds of its lease a call waits; after that it is refused at once."""
    target = mesh.address("shop/far")
    with standing_still(mesh, "node-1"):
        waits = mesh.socket("shop/caller")
        waits.settimeout(10)
        began = time.monotonic()
        with pytest.raises(ConnectionRefusedError):
            waits.connect((target, 8080))
        assert time.monotonic() - began < 8
        began = time.monotonic()
        call = mesh.call("shop/caller", target, 8080)
        assert call.error is not None
        assert call.error.errno == errno.ECONNREFUSED
        assert time.monotonic() - began < 1
    wait_until(lambda: mesh.call("shop/caller", target, 8080).answers(), "the proxy goes on")
    wait_until(lambda: mesh.figures("node-1").total("ztunnel_hbone_tunnels") <= 1, "nobody is waited for")


def test_a_process_that_is_told_the_truth_falls_back(mesh: Mesh) -> None:
    """Happy eyeballs: the first address refuses, the second answers."""
    addresses = [(mesh.address("shop/far", lab.IPv6Address), NOBODY), (mesh.address("shop/far"), 8080)]
    for address in addresses:
        call = mesh.call("shop/caller", *address)
        if call.error is None:
            break
    assert call.answers()
    assert str(endpoint_of(call.sock.getpeername()).ip) == mesh.address("shop/far")
