"""Calls between pods of two nodes: HBONE, with every byte, half-close and reset as without a mesh."""

from __future__ import annotations

import functools
import hashlib
import random
import select
import socket

import pytest
import trio

from tests.mesh import lab
from tests.mesh.lab import Family, Mesh, account, endpoint_of, read_all, read_exactly, wait_until

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

MANIFESTS = (
    lab.NODES
    + lab.namespace("shop")
    + lab.pod("shop/caller", "node-1")
    + lab.pod("shop/called", "node-2")
    + lab.pod("shop/spare", "node-2", labels="tier: web")
    + lab.service("shop/called", "called", 80, "http")
)

CALLER, CALLED = account("shop/caller"), account("shop/called")
TLS = {
    "source_workload": "caller",
    "destination_workload": "called",
    "source_principal": CALLER,
    "destination_principal": CALLED,
    "connection_security_policy": "mutual_tls",
}
BULK_BYTES = 50_000_000


@pytest.mark.parametrize("family", lab.TCP_FAMILIES)
def test_both_nodes_report_one_mutual_tls_connection_with_all_its_bytes(mesh: Mesh, family: Family) -> None:
    listener = mesh.listen("shop/called")
    client, server = mesh.join("shop/caller", listener, mesh.address("shop/called", family))
    own, target = endpoint_of(client.getsockname()), endpoint_of(client.getpeername())
    assert endpoint_of(server.getpeername()).ip == own.ip
    assert endpoint_of(server.getsockname()) == target
    client.sendall(b"hello world")
    assert read_exactly(server, 11) == b"hello world"
    server.sendall(b"hello world, and again")
    assert read_exactly(client, 22) == b"hello world, and again"
    client.close()
    assert server.recv(1) == b""
    server.close()
    out = mesh.line("node-1", src_addr=own, direction="outbound")
    inbound = mesh.line("node-2", dst_hbone_addr=target, direction="inbound")
    assert (out["bytes_sent"], out["bytes_recv"]) == ("11", "22")
    assert (inbound["bytes_sent"], inbound["bytes_recv"]) == ("22", "11")
    for line in (out, inbound):
        assert line["level"] == "info"
        assert line["dst.addr"] == str(lab.Endpoint(target.ip, 15008))
        assert line["dst.hbone_addr"] == str(target)
        assert (line["src.workload"], line["src.namespace"]) == ("caller", "shop")
        assert (line["dst.workload"], line["dst.namespace"]) == ("called", "shop")
        assert (line["src.identity"], line["dst.identity"]) == (CALLER, CALLED)
        assert "error" not in line
    mesh.expect_flow("node-1", 11, 22, reporter="source", **TLS)
    mesh.expect_flow("node-2", 11, 22, reporter="destination", **TLS)
    mesh.expect("node-1", 0, "istio_tcp_connections_opened_total", reporter="destination")


def _are_kept_alive(mesh: Mesh, pod: str, ends: str) -> bool:
    command = ["ss", "-Htno", "state", "established", ends]
    shown = mesh.laboratory.exec(pod, command, check=True).stdout.splitlines()
    return bool(shown) and all("keepalive" in line for line in shown)


def test_the_kernel_asks_silent_peers_and_callers_whether_they_are_still_there(mesh: Mesh) -> None:
    listener = mesh.listen("shop/called")
    client, server = mesh.join("shop/caller", listener, mesh.address("shop/called"))
    for pod, ends in (
        ("shop/caller", "( dport = :15008 or sport >= :61440 )"),
        ("shop/called", "( sport = :15008 )"),
    ):
        # the timer shown is the one for unacknowledged bytes while there are any
        wait_until(functools.partial(_are_kept_alive, mesh, pod, ends), f"{pod} kept alive")
    client.close()
    server.close()


@pytest.mark.parametrize("called_as", ["vip4", "vip6", "mapped vip", "mapped"])
def test_the_caller_is_connected_to_what_it_asked_for(mesh: Mesh, called_as: str) -> None:
    vip4, vip6 = mesh.laboratory.service("shop/called").addresses
    pod = mesh.address("shop/called")
    address, port, reached = {
        "vip4": (str(vip4), 80, f"{pod}:8080"),
        "vip6": (str(vip6), 80, f"[{mesh.address('shop/called', lab.IPv6Address)}]:8080"),
        "mapped vip": (lab.mapped(vip4), 80, f"{pod}:8080"),
        "mapped": (f"::ffff:{pod}", 8080, f"{pod}:8080"),
    }[called_as]
    client = mesh.connect("shop/caller", address, port)
    assert client.getpeername()[:2] == (address, port)
    own = endpoint_of(client.getsockname())
    client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = read_all(client).decode()
    client.close()
    assert f'"called": "{reached}"' in answer
    assert f'"caller": "{"[" if own.ip.version == 6 else ""}{own.ip}' in answer
    line = mesh.line("node-1", src_addr=own)
    assert line["dst.hbone_addr"] == reached
    assert line.get("dst.service") == ("called.shop.svc.cluster.local" if port == 80 else None)
    name = "called.shop.svc.cluster.local" if port == 80 else "unknown"
    for node in ("node-1", "node-2"):
        mesh.expect(node, 1, "istio_tcp_connections_closed_total", destination_service=name, **TLS)


async def send_all(sock: socket.socket, size: int, seed: int) -> str:
    """Send so many random bytes, then close that direction; their hash."""
    block = random.Random(seed).randbytes(1_000_003)
    digest, stream = hashlib.sha256(), trio.SocketStream(trio.socket.from_stdlib_socket(sock))
    while size:
        part = block[:size]
        digest.update(part)
        await stream.send_all(part)
        size -= len(part)
    await stream.send_eof()
    return digest.hexdigest()


async def hash_all(sock: socket.socket) -> tuple[str, int]:
    """The hash and number of the bytes until the end."""
    digest, size = hashlib.sha256(), 0
    plain = trio.socket.from_stdlib_socket(sock)
    while part := await plain.recv(1 << 18):
        digest.update(part)
        size += len(part)
    return digest.hexdigest(), size


async def test_fifty_megabytes_each_way_at_once_arrive_as_they_were_sent(mesh: Mesh) -> None:
    client, server = mesh.join("shop/caller", mesh.listen("shop/called"), mesh.address("shop/called"))
    found: dict[str, object] = {}

    async def note(name: str, step, *args: object) -> None:
        found[name] = await step(*args)

    for sock in (client, server):
        sock.setblocking(False)
    with trio.fail_after(40):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(note, "up", send_all, client, BULK_BYTES, 1)
            nursery.start_soon(note, "down", send_all, server, BULK_BYTES, 2)
            nursery.start_soon(note, "got up", hash_all, server)
            nursery.start_soon(note, "got down", hash_all, client)
    assert found["got up"] == (found["up"], BULK_BYTES)
    assert found["got down"] == (found["down"], BULK_BYTES)
    client.close()
    server.close()
    for node, reporter in (("node-1", "source"), ("node-2", "destination")):
        mesh.expect_flow(node, BULK_BYTES, BULK_BYTES, reporter=reporter, **TLS)
        mesh.expect(node, 0, "ztunnel_hbone_buffered_bytes")


@pytest.mark.parametrize("first", ["client", "server"])
def test_half_closed_one_direction_goes_on(mesh: Mesh, first: str) -> None:
    client, server = mesh.join("shop/caller", mesh.listen("shop/called"), mesh.address("shop/called"))
    one, other = (client, server) if first == "client" else (server, client)
    one.sendall(b"last words")
    one.shutdown(socket.SHUT_WR)
    assert read_all(other) == b"last words"
    for _ in range(3):
        other.sendall(b"x" * 100_000)
        assert read_exactly(one, 100_000) == b"x" * 100_000
    assert not mesh.find_lines("node-1", message="connection complete")
    other.shutdown(socket.SHUT_WR)
    assert read_all(one) == b""
    up, down = (10, 300_000) if first == "client" else (300_000, 10)
    for node, reporter in (("node-1", "source"), ("node-2", "destination")):
        mesh.expect_flow(node, up, down, reporter=reporter, response_flags="-", **TLS)


@pytest.mark.parametrize("first", ["client", "server"])
def test_a_reset_is_a_reset_at_the_other_end(mesh: Mesh, first: str) -> None:
    client, server = mesh.join("shop/caller", mesh.listen("shop/called"), mesh.address("shop/called"))
    client.sendall(b"ping")
    assert read_exactly(server, 4) == b"ping"
    one, other = (client, server) if first == "client" else (server, client)
    lab.reset(one)
    with pytest.raises(ConnectionResetError):
        other.recv(1)
    for node in ("node-1", "node-2"):
        assert "error" not in mesh.line(node)  # as Istio's ztunnel has it: the application's own affair
        mesh.expect(node, 1, "istio_tcp_connections_closed_total", **TLS)
        mesh.expect(node, 0, "ztunnel_hbone_tunnels")


def fill(sock: socket.socket) -> int:
    """Send until there is no room for a third of a second; how many bytes went."""
    sock.setblocking(False)
    sent, block, ready = 0, random.Random(3).randbytes(1 << 20), [sock]
    while ready:
        try:
            sent += sock.send(block)
        except BlockingIOError:
            _, ready, _ = select.select([], [sock], [], 0.3)
        assert sent < 256 << 20, "nobody stops the writer"
    sock.settimeout(lab.SOCKET_SECONDS)
    return sent


@pytest.mark.parametrize("reader", ["client", "server"])
def test_a_reader_that_does_not_read_stops_the_writer(mesh: Mesh, reader: str) -> None:
    client, server = mesh.join("shop/caller", mesh.listen("shop/called"), mesh.address("shop/called"))
    slow, writer = (client, server) if reader == "client" else (server, client)
    sent = fill(writer)
    held = [mesh.figures(node).total("ztunnel_hbone_buffered_bytes") for node in ("node-1", "node-2")]
    assert max(held) <= 8 << 20, held
    writer.shutdown(socket.SHUT_WR)
    assert len(read_all(slow)) == sent
    slow.close()
    writer.close()
    up, down = (sent, 0) if reader == "server" else (0, sent)
    for node in ("node-1", "node-2"):
        mesh.expect_flow(node, up, down, **TLS)
        wait_zero(mesh, node, "ztunnel_hbone_buffered_bytes")


def wait_zero(mesh: Mesh, node: str, name: str) -> None:
    lab.wait_until(lambda: mesh.figures(node).total(name) == 0, f"{name} of {node} is 0")


async def test_one_stalled_tunnel_does_not_hold_up_the_others_of_its_session(mesh: Mesh) -> None:
    listener = mesh.listen("shop/called")
    target = mesh.address("shop/called")
    stalled, _ = mesh.join("shop/caller", listener, target)
    fill(stalled)
    for _ in range(20):
        client, server = mesh.join("shop/caller", listener, target)
        client.sendall(b"x" * 50_000)
        assert read_exactly(server, 50_000) == b"x" * 50_000
        client.close()
        server.close()


async def test_two_hundred_connections_at_once_each_get_their_own_answer(mesh: Mesh) -> None:
    count, target = 200, mesh.address("shop/called")
    answered: list[int] = []

    async def call(number: int) -> None:
        sock = mesh.socket("shop/caller")
        sock.setblocking(False)
        plain = trio.socket.from_stdlib_socket(sock)
        await plain.connect((target, 8080))
        stream = trio.SocketStream(plain)
        said = f"\x00{number}|".encode() * 500
        await stream.send_all(said)
        await stream.send_eof()
        got = b""
        while part := await stream.receive_some():
            got += part
        assert got == said
        answered.append(number)

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for number in range(count):
                nursery.start_soon(call, number)
    assert len(answered) == count
    mesh.expect("node-1", count, "istio_tcp_connections_closed_total", response_flags="-", **TLS)
    mesh.expect("node-2", count, "istio_tcp_connections_closed_total", response_flags="-", **TLS)
    size = sum(len(f"\x00{number}|") * 500 for number in range(count))
    mesh.expect("node-2", size, "istio_tcp_received_bytes_total", **TLS)
    lab.wait_until(
        lambda: len(mesh.find_lines("node-1", message="connection complete", level="info")) == count,
        "the lines",
    )
    assert 1 <= mesh.figures("node-1").total("ztunnel_hbone_sessions") <= 4


def test_one_session_is_shared_and_kept(mesh: Mesh) -> None:
    for _ in range(5):
        assert mesh.call("shop/caller", mesh.address("shop/called"), 8080).answers()
    before = mesh.figures("node-2").total("ztunnel_redirect_outcomes_total", outcome="inbound_own")
    for _ in range(20):
        assert mesh.call("shop/caller", mesh.address("shop/called"), 8080).answers()
    after = mesh.figures("node-2").total("ztunnel_redirect_outcomes_total", outcome="inbound_own")
    assert after == before


def test_an_application_that_refuses_is_said_at_both_ends(mesh: Mesh) -> None:
    listener = mesh.listen("shop/called")
    listener.sock.close()
    call = mesh.call("shop/caller", mesh.address("shop/called"), listener.port)
    assert call.refused
    assert mesh.line("node-1", src_addr=call.own)["error"] == "http status: 503"
    assert "Connection refused" in mesh.line("node-2", direction="inbound")["error"]
    for node in ("node-1", "node-2"):
        mesh.expect(node, 1, "istio_tcp_connections_closed_total", source_workload="caller")
        mesh.expect(node, 0, "istio_tcp_connections_closed_total", response_flags="-")


def test_a_client_that_says_nothing_and_goes_leaves_nothing(mesh: Mesh) -> None:
    for _ in range(10):
        mesh.connect("shop/caller", mesh.address("shop/called"), 8080).close()
    for node in ("node-1", "node-2"):
        wait_zero(mesh, node, "ztunnel_hbone_tunnels")
        wait_zero(mesh, node, "istio_tcp_sockets_open")


def test_a_server_that_speaks_first_is_heard(mesh: Mesh) -> None:
    client, server = mesh.join("shop/caller", mesh.listen("shop/called"), mesh.address("shop/called"))
    server.sendall(b"220 welcome\r\n")
    assert read_exactly(client, 13) == b"220 welcome\r\n"


def test_nothing_unexpected_was_logged(mesh: Mesh) -> None:
    for node in ("node-1", "node-2"):
        text = mesh.laboratory.node_log(node)
        assert "Traceback" not in text
        assert mesh.figures(node).total("ztunnel_internal_errors_total") == 0
