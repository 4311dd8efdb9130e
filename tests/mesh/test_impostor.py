"""Calls to a pod that speaks HBONE and is served by somebody else, who has to prove to be that pod."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta

import h2.config
import h2.connection
import h2.events
import pytest

from tests.identity import builders
from tests.mesh import lab
from tests.mesh.lab import Mesh, account
from tests.mesh.peers import Paper, authority, client_hello, closed_within, issue, strange, without_proxy

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

MANIFESTS = (
    lab.NODES
    + "apiVersion: v1\nkind: Node\nmetadata: {name: node-3}\n---\n"
    + lab.namespace("shop")
    + lab.pod("shop/caller", "node-1")
    + lab.pod("shop/foreign", "node-3")
    + lab.pod("shop/honest", "node-2")
)
CALLER, FOREIGN = account("shop/caller"), account("shop/foreign")
LABELS = {"reporter": "source", "source_workload": "caller", "destination_workload": "foreign"}
SECRET = b"for the account of foreign only"
Answer = Callable[[socket.socket, threading.Event], None]


@pytest.fixture(scope="module", autouse=True)
def _nobody_serves_node_3(module_mesh: Mesh) -> None:
    """The third node's pods stay in the mesh as the world has it, but no proxy of ours is theirs."""
    without_proxy(module_mesh, "node-3")


@contextmanager
def served(mesh: Mesh, answer: Answer) -> Iterator[list[BaseException]]:
    """Somebody serves 15008 in the foreign pod, one connection after the other; what went wrong.

    The event that `answer` is given is set when it is over.
    """
    listener = mesh.listen("shop/foreign", port=15008)
    failures: list[BaseException] = []
    over = threading.Event()

    def serve() -> None:
        while True:
            try:
                sock, _ = listener.sock.accept()
            except OSError:
                return
            try:
                sock.settimeout(lab.SOCKET_SECONDS)
                answer(sock, over)
            except (OSError, AssertionError) as error:
                failures.append(error)
            finally:
                sock.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield failures
    finally:
        over.set()
        listener.sock.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.sock.close()


def tunnel_end(paper: Paper, got: list[bytes]) -> Answer:
    """An HBONE server that echoes, and notes what it read after the handshake."""

    def answer(sock: socket.socket, over: threading.Event) -> None:
        context = paper.context(ssl.PROTOCOL_TLS_SERVER)
        with context.wrap_socket(sock, server_side=True) as tls:
            http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
            http.initiate_connection()
            tls.sendall(http.data_to_send())
            while octets := read_until(tls, over):
                got.append(octets)
                for event in http.receive_data(octets):
                    if isinstance(event, h2.events.RequestReceived):
                        http.send_headers(event.stream_id, [(":status", "200")])
                    elif isinstance(event, h2.events.DataReceived) and event.data:
                        http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                        http.send_data(event.stream_id, event.data)
                tls.sendall(http.data_to_send())

    return answer


@contextmanager
def tunnels_at(mesh: Mesh, pod: str, paper: Paper, got: list[bytes]) -> Iterator[None]:
    """`tunnel_end` on port 15008 of a pod that is in no mesh, one connection after the other."""
    listener, over = mesh.listen(pod, port=15008), threading.Event()
    listener.sock.settimeout(0.05)
    answer = tunnel_end(paper, got)

    def serve() -> None:
        while not over.is_set():
            with suppress(TimeoutError, ssl.SSLError, ConnectionError):
                sock, _ = listener.sock.accept()
                with sock:
                    answer(sock, over)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def read_until(tls: ssl.SSLSocket, over: threading.Event) -> bytes:
    """What comes next; nothing if it is over."""
    tls.settimeout(0.05)
    while not over.is_set():
        try:
            return tls.recv(1 << 16)
        except TimeoutError:
            continue
    return b""


def call_with(mesh: Mesh, paper: Paper) -> tuple[bool, list[bytes], lab.Call]:
    """Call the foreign pod while it has that paper: whether it echoes, what its server read, the call."""
    got: list[bytes] = []
    with served(mesh, tunnel_end(paper, got)):
        call = mesh.call("shop/caller", mesh.address("shop/foreign"), 8080)
        answered = call.answers(SECRET)
        lab.reset(call.sock)
    return answered, got, call


def test_whoever_proves_to_be_the_pod_is_spoken_to(mesh: Mesh) -> None:
    answered, got, call = call_with(mesh, issue(authority(mesh), FOREIGN))
    assert answered
    assert any(SECRET in octets for octets in got)
    line = mesh.line("node-1", src_addr=call.own)
    assert line["dst.identity"] == FOREIGN
    assert line["bytes_sent"] == line["bytes_recv"] == str(len(SECRET))
    close_sessions(mesh)


def close_sessions(mesh: Mesh) -> None:
    """The next test is to find none with the pod."""
    lab.wait_until(lambda: mesh.grown("node-1", "ztunnel_hbone_sessions") <= 0, "no session")


@pytest.mark.parametrize(
    "who",
    [
        account("shop/other"),
        account("shop/caller"),
        account("bank/foreign"),
        account("shop/foreign", "other.domain"),
    ],
)
def test_a_valid_certificate_of_somebody_else_is_refused_before_a_byte(mesh: Mesh, who: str) -> None:
    answered, got, call = call_with(mesh, issue(authority(mesh), who))
    assert not answered
    assert not got
    line = mesh.line("node-1", src_addr=call.own)
    assert line["level"] == "error"
    assert line["error"]
    mesh.expect("node-1", 1, "istio_tcp_connections_closed_total", response_flags="IDENTITY_ERROR", **LABELS)
    mesh.expect("node-1", 0, "istio_tcp_received_bytes_total", **LABELS)
    close_sessions(mesh)


@pytest.mark.parametrize("what", ["expired", "another authority", "a CA", "two names"])
def test_a_certificate_that_is_wrong_is_refused_before_a_byte(mesh: Mesh, what: str) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    hour = timedelta(hours=1)
    leaf = builders.Leaf(begin=now - hour, end=now + hour).named(FOREIGN)
    paper = {
        "expired": lambda: strange(mesh, leaf.but(begin=now - 2 * hour, end=now - hour)),
        "another authority": lambda: strange(mesh, leaf, builders.Authority.root()),
        "a CA": lambda: strange(mesh, leaf.but(ca=True)),
        "two names": lambda: strange(mesh, leaf.named(FOREIGN, CALLER)),
    }[what]()
    answered, got, call = call_with(mesh, paper)
    assert not answered
    assert not got
    assert mesh.line("node-1", src_addr=call.own)["error"]

    def flagged() -> float:
        closed, flags = "istio_tcp_connections_closed_total", ("IDENTITY_ERROR", "TLS_FAILURE")
        return sum(mesh.grown("node-1", closed, response_flags=flag, **LABELS) for flag in flags)

    lab.wait_until(lambda: flagged() == 1, "it is counted")
    close_sessions(mesh)


def test_a_server_that_speaks_no_tls_or_hangs_up_is_refused_at_once(mesh: Mesh) -> None:
    for said in (
        b"220 welcome\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"",
        b"\x15\x03\x03\x00\x02\x02\x28",
    ):

        def answer(sock: socket.socket, _over: threading.Event, said: bytes = said) -> None:
            sock.sendall(said)

        with served(mesh, answer):
            begun = time.monotonic()
            call = mesh.call("shop/caller", mesh.address("shop/foreign"), 8080)
            assert call.refused
            assert time.monotonic() - begun < 3
            assert mesh.line("node-1", src_addr=call.own)["level"] == "error"
            lab.reset(call.sock)


def test_nobody_on_15008_is_refused_after_a_second(mesh: Mesh) -> None:
    call = mesh.call("shop/caller", mesh.address("shop/foreign"), 8080)
    assert call.refused
    line = mesh.line("node-1", src_addr=call.own)
    assert "Connection refused" in line["error"]
    mesh.expect("node-1", 1, "istio_tcp_connections_closed_total", response_flags="CONNECT", **LABELS)


def silent_clients(mesh: Mesh, target: str) -> list[socket.socket]:
    """Five connections to 15008 that fall silent, each at another point: three during the handshake."""
    hello = client_hello(ssl.TLSVersion.TLSv1_3, ["h2"])
    socks = [mesh.connect("shop/foreign", target, 15008) for _ in range(5)]
    socks[1].sendall(hello[:40])
    socks[2].sendall(hello)
    paper = issue(authority(mesh), CALLER)
    for number, said in ((3, b""), (4, b"PRI * HT")):
        socks[number] = paper.context(ssl.PROTOCOL_TLS_CLIENT).wrap_socket(socks[number])
        mesh.keep(socks[number])
        socks[number].sendall(said)
    return socks


def test_silence_is_given_up_in_ten_seconds_by_either_side_and_nobody_else_waits(mesh: Mesh) -> None:
    with served(mesh, lambda _sock, over: over.wait(20) and None):
        begun = time.monotonic()
        sock = mesh.socket("shop/caller")
        sock.setblocking(False)
        sock.connect_ex((mesh.address("shop/foreign"), 8080))
        own = lab.endpoint_of(sock.getsockname())
        clients = silent_clients(mesh, mesh.address("shop/honest"))
        assert mesh.call("shop/caller", mesh.address("shop/honest"), 8080).answers()
        assert time.monotonic() - begun < 2
        assert set(closed_within([*clients, sock], 14)) == {*clients, sock}
        assert time.monotonic() - begun > 8
    mesh.expect("node-2", 3, "ztunnel_hbone_handshakes_failed_total")
    assert mesh.line("node-1", src_addr=own)["error"] == (
        "connection timed out, maybe a NetworkPolicy is blocking HBONE port 15008: deadline has elapsed"
    )
    flagged = {**LABELS, "response_flags": "NETWORK_POLICY"}
    mesh.expect("node-1", 1, "istio_tcp_connections_closed_total", **flagged)


def test_nothing_unexpected_was_logged(mesh: Mesh) -> None:
    for node in ("node-1", "node-2"):
        assert "Traceback" not in mesh.laboratory.node_log(node)
        assert mesh.figures(node).total("ztunnel_internal_errors_total") == 0
