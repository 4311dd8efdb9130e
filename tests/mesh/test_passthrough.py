"""Calls of pods in the mesh to whoever is not: redirected, decided, and carried as plain TCP."""

from __future__ import annotations

import socket

import pytest

from tests.mesh import lab
from tests.mesh.lab import Family, Mesh, endpoint_of, read_all

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

MANIFESTS = (
    lab.NODES
    + lab.namespace("shop")
    + lab.namespace("out", ambient=False)
    + lab.pod("shop/caller", "node-1")
    + lab.pod("out/near", "node-1")
    + lab.pod("out/far", "node-2")
    + lab.service("out/far", "far", 80, "8080")
)

SOURCE = {"reporter": "source", "source_workload": "caller", "connection_security_policy": "unknown"}


def talk(client: socket.socket, server: socket.socket) -> None:
    """11 bytes up, 22 down, both ends closed in turn."""
    client.sendall(b"hello world")
    client.shutdown(socket.SHUT_WR)
    assert read_all(server) == b"hello world"
    server.sendall(b"hello world, and again")
    server.close()
    assert read_all(client) == b"hello world, and again"
    client.close()


@pytest.mark.parametrize("family", lab.TCP_FAMILIES)
@pytest.mark.parametrize("where", ["out/near", "out/far"])
def test_a_plain_pod_is_called_in_plaintext_with_the_callers_address(
    mesh: Mesh, where: str, family: Family
) -> None:
    listener = mesh.listen(where)
    target = mesh.address(where, family)
    client, server = mesh.join("shop/caller", listener, target)
    own, called = endpoint_of(client.getsockname()), endpoint_of(client.getpeername())
    assert str(called.ip) == target
    assert called.port == listener.port
    assert str(own.ip) == mesh.address("shop/caller", family)
    assert endpoint_of(server.getpeername()).ip == own.ip
    talk(client, server)
    line = mesh.line("node-1", src_addr=own)
    assert line["level"] == "info"
    assert line["dst.addr"] == str(called)
    assert line["src.workload"] == "caller"
    assert line["dst.workload"] == where[4:]
    assert (line["direction"], line["bytes_sent"], line["bytes_recv"]) == ("outbound", "11", "22")
    assert not {"src.identity", "dst.identity", "dst.hbone_addr", "error"} & line.keys()
    mesh.expect_flow("node-1", 11, 22, **SOURCE, destination_workload=where[4:], response_flags="-")
    assert not [one for one in mesh.lines("node-2") if one["scope"] == "access"]


@pytest.mark.parametrize("family", lab.TCP_FAMILIES)
def test_an_address_that_nobody_knows_is_called_as_it_is(mesh: Mesh, family: Family) -> None:
    listener = mesh.listen("node-2")
    client, server = mesh.join("shop/caller", listener, mesh.address("node-2", family))
    own = endpoint_of(client.getsockname())
    talk(client, server)
    line = mesh.line("node-1", src_addr=own)
    assert line["dst.addr"] == str(
        lab.Endpoint(lab.ip_address(mesh.address("node-2", family)), listener.port)
    )
    assert "dst.workload" not in line
    mesh.expect_flow("node-1", 11, 22, **SOURCE, destination_workload="unknown")


def test_a_mapped_address_goes_as_ipv4_and_looks_like_itself_to_the_caller(mesh: Mesh) -> None:
    listener = mesh.listen("out/far")
    target = mesh.address("out/far")
    client, server = mesh.join("shop/caller", listener, f"::ffff:{target}")
    assert client.getpeername()[0] == f"::ffff:{target}"
    assert client.getsockname()[0] == f"::ffff:{mesh.address('shop/caller')}"
    own = endpoint_of(client.getsockname())
    talk(client, server)
    assert mesh.line("node-1", src_addr=own)["dst.addr"] == f"{target}:{listener.port}"


@pytest.mark.parametrize("number", [0, 1])
def test_a_service_of_plain_pods_is_resolved_here_and_named(mesh: Mesh, number: int) -> None:
    address = mesh.laboratory.service("out/far").addresses[number]
    client = mesh.connect("shop/caller", address, 80)
    assert endpoint_of(client.getpeername()) == lab.Endpoint(address, 80)
    client.sendall(b"raw and echoed")
    assert lab.read_exactly(client, 14) == b"raw and echoed"
    own = endpoint_of(client.getsockname())
    client.close()
    line = mesh.line("node-1", src_addr=own)
    assert line["dst.service"] == "far.out.svc.cluster.local"
    family = type(address)
    assert line["dst.addr"] == str(lab.Endpoint(lab.ip_address(mesh.address("out/far", family)), 8080))
    mesh.expect_flow("node-1", 14, 14, **SOURCE, destination_service="far.out.svc.cluster.local")


def test_a_destination_that_refuses_ends_the_call_and_says_so(mesh: Mesh) -> None:
    listener = mesh.listen("out/far")
    listener.sock.close()
    call = mesh.call("shop/caller", mesh.address("out/far"), listener.port)
    assert call.refused
    line = mesh.line("node-1", src_addr=call.own)
    assert line["level"] == "error"
    assert "Connection refused" in line["error"]
    mesh.expect("node-1", 1, "istio_tcp_connections_closed_total", **SOURCE, response_flags="CONNECT")


def test_a_service_without_endpoints_is_refused(mesh: Mesh) -> None:
    mesh.apply(lab.service("out/none", "nobody"))
    call = mesh.call("shop/caller", mesh.laboratory.service("out/none").addresses[0], 80)
    assert call.refused
    line = mesh.line("node-1", src_addr=call.own)
    assert line["error"].startswith("no healthy upstream")
    mesh.expect("node-1", 1, "istio_tcp_connections_failed_total", **SOURCE)


def test_loopback_and_the_pods_own_address_stay_in_the_pod(mesh: Mesh) -> None:
    listener = mesh.listen("shop/caller")
    for target in ("127.0.0.1", "::1", "::ffff:127.0.0.1", mesh.address("shop/caller")):
        client, server = mesh.join("shop/caller", listener, target)
        client.sendall(b"x")
        assert server.recv(1) == b"x"
    assert not [one for one in mesh.lines("node-1") if one["scope"] == "access"]


def test_what_is_not_tcp_is_left_alone(mesh: Mesh) -> None:
    server = mesh.socket("out/far", kind=socket.SOCK_DGRAM)
    server.bind(("0.0.0.0", 0))
    client = mesh.socket("shop/caller", kind=socket.SOCK_DGRAM)
    client.connect((mesh.address("out/far"), server.getsockname()[1]))
    client.send(b"datagram")
    octets, source = server.recvfrom(100)
    assert (octets, source[0]) == (b"datagram", mesh.address("shop/caller"))


def test_half_close_and_reset_pass_through(mesh: Mesh) -> None:
    listener = mesh.listen("out/far")
    client, server = mesh.join("shop/caller", listener, mesh.address("out/far"))
    server.shutdown(socket.SHUT_WR)
    assert client.recv(1) == b""
    client.sendall(b"still open")
    assert lab.read_exactly(server, 10) == b"still open"
    lab.reset(client)
    with pytest.raises(ConnectionResetError):
        server.recv(1)
