"""Connections whose other side is gone, or silent: what ends, what lives on, and when."""

from __future__ import annotations

import socket
from dataclasses import dataclass

import pytest

from tests.mesh import lab
from tests.mesh.lab import Mesh, endpoint_of, read_exactly, steadily
from ztunnel.flow.probe import SWEEP_SECONDS
from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.kernel.sockets import TcpState, connections, cookie_of
from ztunnel.model.address import Endpoint

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

ENVIRONMENT = {
    "ZTUNNEL_HALF_CLOSED_TIMEOUT": "2s",
    "ZTUNNEL_PING_INTERVAL": "1s",
    "ZTUNNEL_PING_TIMEOUT": "1s",
}
MANIFESTS = (
    lab.SHOP + lab.pod("shop/near", "node-1") + lab.pod("shop/far", "node-2") + lab.pod("out/plain", "node-1")
)
WAYS = [
    (where, family, first)
    for where in ("shop/caller", "out/plain")
    for family in lab.TCP_FAMILIES
    for first in ("client", "server")
]


@dataclass(frozen=True)
class HalfClosed:
    """A connection to shop/far. `one` closes its side, in the pod `where`; `other` does nothing."""

    where: str
    one: socket.socket
    other: socket.socket
    called: Endpoint

    def stands(self, mesh: Mesh) -> bool:
        """Whether the kernel of `one` still waits for the other side."""
        with NetworkNamespace.open(mesh.netns(self.where)) as pod:
            found = {each.cookie: each.state for each in connections(pod)}
        return found.get(cookie_of(self.one)) in (TcpState.FIN_WAIT1, TcpState.FIN_WAIT2)


def half_closed(mesh: Mesh) -> list[HalfClosed]:
    """One on each way: over a tunnel and in plaintext, of both families, either side first."""
    made = []
    for where, family, first in WAYS:
        client, server = mesh.join(where, mesh.listen("shop/far"), mesh.address("shop/far", family))
        called = endpoint_of(server.getsockname())
        if first == "client":
            made.append(HalfClosed(where, client, server, called))
        else:
            made.append(HalfClosed("shop/far", server, client, called))
    return made


def test_half_closed_connections_whose_other_side_is_gone_end(mesh: Mesh) -> None:
    """A kernel forgets what is closed after tcp_fin_timeout: here after a second."""
    for each in half_closed(mesh):
        each.one.setsockopt(socket.IPPROTO_TCP, socket.TCP_LINGER2, 1)
        each.one.close()
        assert each.other.recv(1) == b""
    for figure in ("opened", "closed"):
        mesh.expect_by(
            "node-2", len(WAYS), f"istio_tcp_connections_{figure}_total", 30, reporter="destination"
        )
    lab.wait_until(lambda: len(mesh.find_lines("node-2", direction="inbound")) == len(WAYS), "the lines")
    assert {line.get("error") for line in mesh.find_lines("node-2", direction="inbound")} == {None}
    for node in ("node-1", "node-2"):
        mesh.expect(node, 0, "ztunnel_hbone_tunnels")


def test_half_closed_connections_that_only_wait_live_on(mesh: Mesh) -> None:
    made = half_closed(mesh)
    for each in made:
        each.one.shutdown(socket.SHUT_WR)
        assert each.other.recv(1) == b""
    # Two sweeps of the proxy, and probes after that.
    steadily(lambda: all(each.stands(mesh) for each in made), "none is ended", 2 * SWEEP_SECONDS + 5)
    for each in made:
        each.other.sendall(b"still")
        assert read_exactly(each.one, 5) == b"still"


@pytest.mark.parametrize("under_way", [False, True])
def test_a_node_that_vanishes_is_noticed_within_the_pings_time_and_the_application_is_reset(
    mesh: Mesh, under_way: bool
) -> None:
    listener = mesh.listen("shop/far")
    client, server = mesh.join("shop/caller", listener, mesh.address("shop/far"))
    client.sendall(b"hello")
    assert read_exactly(server, 5) == b"hello"
    with mesh.filtered("shop/far", 'type filter hook input priority 0; iifname "eth0" drop;'):
        if under_way:
            client.sendall(b"into the void")
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    line = mesh.line("node-1", src_addr=endpoint_of(client.getsockname()))
    assert "ping" in line["error"]


def test_a_client_that_vanishes_is_noticed_at_the_server(mesh: Mesh) -> None:
    listener = mesh.listen("shop/far")
    client, server = mesh.join("shop/caller", listener, mesh.address("shop/far"))
    server.sendall(b"hello")
    assert read_exactly(client, 5) == b"hello"
    with (
        mesh.filtered("shop/far", 'type filter hook input priority 0; iifname "eth0" drop;'),
        pytest.raises(ConnectionResetError),
    ):
        server.recv(1)
