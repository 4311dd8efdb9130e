"""The address and port that a server sees of its client, on every way and at every call; and that no number
of calls uses up the ports of the server's pod."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import pytest

from tests.mesh import lab
from tests.mesh.lab import Family, Listener, Mesh, endpoint_of, read_exactly
from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.kernel.sockets import TcpState, connections
from ztunnel.model.address import Endpoint

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

MANIFESTS = (
    lab.SHOP + lab.pod("shop/near", "node-1") + lab.pod("shop/far", "node-2") + lab.pod("out/plain", "node-1")
)
WAYS = [("shop/caller", "shop/far"), ("shop/caller", "shop/near"), ("out/plain", "shop/far")]
WITH_FAMILIES = pytest.mark.parametrize("family", lab.TCP_FAMILIES)
privileged = count(1000, -1)
PORTS_OF_A_SERVER = 100


def call(mesh: Mesh, where: str, to: Listener, address: str, own: Endpoint) -> Endpoint:
    """One call from a port; who the server says has called. The client closes first."""
    client = mesh.socket(where, socket.AF_INET6 if ":" in address else socket.AF_INET)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    client.bind((str(own.ip), own.port))
    client.connect((address, to.port))
    client.sendall(b"?")
    server = to.accept()
    assert read_exactly(server, 1) == b"?"
    client.close()
    assert server.recv(1) == b""
    seen = endpoint_of(server.getpeername())
    server.close()
    return seen


@WITH_FAMILIES
@pytest.mark.parametrize("to", ["shop/far", "shop/near"])
@pytest.mark.parametrize("kind", ["ephemeral", "privileged"])
def test_a_server_sees_the_port_of_its_client_at_every_call(
    mesh: Mesh, family: Family, to: str, kind: str
) -> None:
    listener, address = mesh.listen(to), mesh.address(to, family)
    ip = lab.ip_address(mesh.address("shop/caller", family))
    for _ in range(3):
        own = Endpoint(ip, 0 if kind == "ephemeral" else next(privileged))
        client = mesh.socket("shop/caller", socket.AF_INET6 if ip.version == 6 else socket.AF_INET)
        client.bind((str(ip), own.port))
        client.connect((address, listener.port))
        server = listener.accept()
        assert endpoint_of(server.getpeername()) == endpoint_of(client.getsockname())
        client.close()
        assert server.recv(1) == b""
        server.close()


@WITH_FAMILIES
def test_a_plaintext_clients_port_is_of_the_class_that_it_has(mesh: Mesh, family: Family) -> None:
    """Its own is taken: by the connection that the proxy has with it."""
    listener, address = mesh.listen("shop/far"), mesh.address("shop/far", family)
    ip = lab.ip_address(mesh.address("out/plain", family))
    for port in (next(privileged), next(privileged), 40000, 40002):
        seen = call(mesh, "out/plain", listener, address, Endpoint(ip, port))
        assert (seen.ip, seen.port < 1024) == (ip, port < 1024)


@contextmanager
def few_ports(mesh: Mesh, where: str) -> Iterator[None]:
    name = "net.ipv4.ip_local_port_range"
    with NetworkNamespace.open(mesh.netns(where)) as netns:
        before = netns.read_sysctl(name)
        netns.write_sysctl(name, f"40000 {40000 + PORTS_OF_A_SERVER - 1}")
        yield
        netns.write_sysctl(name, before)


@WITH_FAMILIES
@pytest.mark.parametrize(("where", "to"), WAYS)
@pytest.mark.parametrize("held", [False, True], ids=["one after the other", "all at once"])
def test_calls_of_one_client_do_not_use_up_the_ports_of_the_servers_pod(
    mesh: Mesh, family: Family, where: str, to: str, held: bool
) -> None:
    listener, address = mesh.listen(to), mesh.address(to, family)
    seen = set()
    with few_ports(mesh, to):
        for _ in range(PORTS_OF_A_SERVER + 30):
            client, server = mesh.join(where, listener, address)
            seen.add(endpoint_of(server.getpeername()))
            if not held:
                client.close()
                assert server.recv(1) == b""
                server.close()
        # The pod's own calls have their ports.
        assert mesh.call(to, mesh.address("out/plain"), 8080).answers()
    assert len(seen) == PORTS_OF_A_SERVER + 30 or not held


@pytest.mark.parametrize(("where", "to"), [WAYS[0], WAYS[2]])
def test_nothing_is_left_in_time_wait_in_the_servers_pod(mesh: Mesh, where: str, to: str) -> None:
    """Clients close first: without a mesh it is their pod that remembers."""
    listener, address = mesh.listen(to), mesh.address(to)
    for _ in range(50):
        client, server = mesh.join(where, listener, address)
        client.close()
        assert server.recv(1) == b""
        server.close()
    with NetworkNamespace.open(mesh.netns(to)) as pod:
        lab.wait_until(
            lambda: (
                not [
                    each
                    for each in connections(pod, [TcpState.TIME_WAIT])
                    if each.remote.port == listener.port
                ]
            ),
            "nothing is in TIME_WAIT",
        )


def test_a_client_in_plaintext_and_in_a_tunnel_from_one_port_is_served_both_times(mesh: Mesh) -> None:
    """An application's connection from before its pod was enrolled has the port that a tunnelled call has
    now: the server's kernel takes our SYN for a part of it."""
    listener, address = mesh.listen("shop/far"), mesh.address("shop/far")
    own = Endpoint(lab.ip_address(mesh.address("shop/caller")), 20010)  # which the kernel gives to nobody
    mesh.label("pod", "shop/caller", {"istio.io/dataplane-mode": "none"})
    try:
        early = mesh.socket("shop/caller")
        early.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        early.bind((str(own.ip), own.port))
        early.connect((address, listener.port))
        first = listener.accept()
    finally:
        mesh.label("pod", "shop/caller", {"istio.io/dataplane-mode": None})
    seen = call(mesh, "shop/caller", listener, address, own)
    assert seen.ip == own.ip
    early.sendall(b"still here")
    assert read_exactly(first, 10) == b"still here"
