"""Calls of pods in the mesh to whoever is not: left as the application made them, and reported all the same.
Those to a service of such pods are decided, and carried as plain TCP."""

from __future__ import annotations

import errno
import socket

import pytest

from tests.mesh import lab
from tests.mesh.lab import Family, Mesh, endpoint_of, read_all

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

MANIFESTS = (
    lab.SHOP
    + lab.pod("out/near", "node-1")
    + lab.pod("out/far", "node-2")
    + lab.service("out/far", "far", 80, "8080")
)

SOCKETS = {lab.IPv4Address: socket.AF_INET, lab.IPv6Address: socket.AF_INET6}
NOWHERE = {lab.IPv4Address: "192.0.2.1", lab.IPv6Address: "2001:db8::1"}
UNREACHABLE = "Network is unreachable"
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
    assert endpoint_of(server.getpeername()) == own
    talk(client, server)
    line = mesh.line("node-1", src_addr=own)
    assert line["level"] == "info"
    assert line["dst.addr"] == str(called)
    assert line["src.workload"] == "caller"
    assert line["dst.workload"] == where[4:]
    assert (line["direction"], line["bytes_sent"], line["bytes_recv"]) == ("outbound", "11", "22")
    assert not {"src.identity", "dst.identity", "dst.hbone_addr", "error"} & line.keys()
    mesh.expect_flow("node-1", 11, 22, **SOURCE, destination_workload=where[4:], response_flags="-")
    mesh.expect("node-1", 1, "ztunnel_redirect_outcomes_total", outcome="connect_outside")
    mesh.expect("node-1", 0, "ztunnel_redirect_outcomes_total", outcome="connect_captured")
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


@pytest.mark.parametrize("family", lab.TCP_FAMILIES)
def test_a_destination_that_refuses_fails_at_connect_and_says_so(mesh: Mesh, family: Family) -> None:
    listener = mesh.listen("out/far")
    listener.sock.close()
    call = mesh.call("shop/caller", mesh.address("out/far", family), listener.port)
    assert isinstance(call.error, ConnectionRefusedError)
    line = mesh.line("node-1", src_addr=call.own)
    assert line["level"] == "error"
    assert "Connection refused" in line["error"]
    assert line["dst.workload"] == "far"
    mesh.expect("node-1", 1, "istio_tcp_connections_closed_total", **SOURCE, response_flags="CONNECT")


@pytest.mark.parametrize("family", lab.TCP_FAMILIES)
def test_a_destination_without_a_route_fails_at_connect_and_is_reported(mesh: Mesh, family: Family) -> None:
    """The pod has a default route, the node none: its answer is the reason."""
    sock = mesh.socket("shop/caller", SOCKETS[family])
    sock.setblocking(True)
    assert sock.connect_ex((NOWHERE[family], 80)) == errno.ENETUNREACH
    line = mesh.line("node-1", level="error", src_workload="caller")
    assert (
        line["error"]
        == f"connection failed: {lab.Endpoint(lab.ip_address(NOWHERE[family]), 80)}: {UNREACHABLE}"
    )
    mesh.expect("node-1", 1, "istio_tcp_connections_failed_total", **SOURCE, response_flags="CONNECT")


@pytest.mark.parametrize("family", lab.TCP_FAMILIES)
def test_what_the_application_chose_for_its_socket_is_kept(mesh: Mesh, family: Family) -> None:
    listener = mesh.listen("node-2")
    sock = mesh.socket("shop/caller", SOCKETS[family])
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
    sock.bind((mesh.address("shop/caller", family), 711))
    sock.connect((mesh.address("node-2", family), listener.port))
    server = listener.accept()
    assert server.getpeername()[1] == 711
    server.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    sock.sendall(b"abc")
    sock.send(b"!", socket.MSG_OOB)
    sock.sendall(b"def")
    assert lab.read_exactly(server, 7) == b"abc!def"


def test_a_pod_that_joins_the_mesh_is_called_through_it_next_and_alone_once_it_leaves(mesh: Mesh) -> None:
    def called(outcome: str) -> None:
        client, server = mesh.join("shop/caller", listener, mesh.address("out/far"))
        own = endpoint_of(client.getsockname())
        talk(client, server)
        line = mesh.line("node-1", src_addr=own)
        assert ("dst.identity" in line) == (outcome == "connect_captured")
        mesh.expect("node-1", 1, "ztunnel_redirect_outcomes_total", outcome=outcome)
        mesh.begin()

    listener = mesh.listen("out/far")
    called("connect_outside")
    mesh.label("pod", "out/far", {"istio.io/dataplane-mode": "ambient"})
    called("connect_captured")
    mesh.label("pod", "out/far", {"istio.io/dataplane-mode": None})
    called("connect_outside")


def test_bytes_of_a_live_call_show_while_it_lives(mesh: Mesh) -> None:
    listener = mesh.listen("out/far")
    client, server = mesh.join("shop/caller", listener, mesh.address("out/far"))
    client.sendall(b"x" * 1000)
    assert lab.read_exactly(server, 1000)
    mesh.expect("node-1", 1, "istio_tcp_connections_opened_total", **SOURCE)
    lab.wait_until(
        lambda: mesh.grown("node-1", "istio_tcp_received_bytes_total", **SOURCE) == 1000, "counted", 32.0
    )
    assert mesh.figures("node-1").total("ztunnel_outside_calls") == 1
    assert mesh.figures("node-1").total("ztunnel_outside_left_alone") == 1


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
