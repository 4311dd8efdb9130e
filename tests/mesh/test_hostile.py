"""What hostile or broken peers do to 15008: refused in time, counted, logged, and nobody else notices."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import h2.errors
import h2.events
import pytest

from tests.identity import builders
from tests.mesh import lab
from tests.mesh.lab import Mesh, account
from tests.mesh.peers import Paper, Peer, authority, client_hello, closed_within, issue, strange

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

MANIFESTS = (
    lab.SHOP
    + lab.pod("shop/called", "node-2")
    + lab.pod("shop/other", "node-2")
    + lab.pod("out/peer", "node-1")
)
Apply = Callable[[str], None]
PEER, CALLED = "out/peer", "shop/called"


@pytest.fixture(autouse=True)
def neighbour(mesh: Mesh) -> Iterator[None]:
    """Whatever a test does, an honest call works afterwards, and nothing was logged as a bug."""
    yield
    assert mesh.call("shop/caller", mesh.address(CALLED), 8080).answers()
    for node in ("node-1", "node-2"):
        assert "Traceback" not in mesh.laboratory.node_log(node)
        assert mesh.figures(node).total("ztunnel_internal_errors_total") == 0


def refused(mesh: Mesh, count: int = 1) -> None:
    """So many handshakes failed, and lines say so: one for several where their second had many."""
    mesh.expect("node-2", count, "ztunnel_hbone_handshakes_failed_total")

    def said() -> int:
        lines = mesh.find_lines("node-2", message="connection failed", level="warn")
        return sum(int(line.get("count", 1)) for line in lines)

    lab.wait_until(lambda: said() >= count, "the lines")


# --- before TLS ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        b"\x00" * 100,
        b"\xff" * 20_000,
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x16\x03\x01\x40\x00" + b"\x01" * 0x4000,
        client_hello(ssl.TLSVersion.TLSv1_2, ["h2"]),
        client_hello(ssl.TLSVersion.TLSv1_3, ["h2"])[:-7] + b"garbage",
    ],
    ids=["zeros", "ones", "http1", "h2c", "ssh", "long record", "tls12", "broken hello"],
)
def test_garbage_instead_of_a_handshake_is_closed_at_once_and_counted(mesh: Mesh, said: bytes) -> None:
    sock = mesh.connect(PEER, mesh.address(CALLED), 15008)
    with suppress(OSError):  # it may be closed by then
        sock.sendall(said)
        sock.shutdown(socket.SHUT_WR)
    assert closed_within([sock], 2) == [sock]
    refused(mesh)


def test_a_peer_that_leaves_during_the_handshake_is_counted(mesh: Mesh) -> None:
    for how in ("fin", "rst"):
        sock = mesh.connect(PEER, mesh.address(CALLED), 15008)
        sock.sendall(client_hello(ssl.TLSVersion.TLSv1_3, ["h2"]))
        assert sock.recv(1, socket.MSG_PEEK)  # it was accepted, and answered
        sock.close() if how == "fin" else lab.reset(sock)
    refused(mesh, 2)


def test_six_hundred_silent_connections_do_not_keep_an_honest_one_waiting(mesh: Mesh) -> None:
    target = mesh.address("shop/other")
    silent = [mesh.connect(PEER, target, 15008) for _ in range(600)]
    begun = time.monotonic()
    assert mesh.call("shop/caller", target, 8080).answers()
    assert time.monotonic() - begun < 2
    assert len(silent) == 600


# --- certificates --------------------------------------------------------------------


def leaf(identity: str = account("shop/caller")) -> builders.Leaf:
    now = datetime.now(UTC).replace(microsecond=0)
    return builders.Leaf(begin=now - timedelta(minutes=2), end=now + timedelta(hours=1)).named(identity)


HOUR = timedelta(hours=1)
STRANGE = {
    "expired": lambda it: it.but(begin=it.begin - 2 * HOUR, end=it.begin - HOUR),
    "not yet valid": lambda it: it.but(begin=it.end, end=it.end + HOUR),
    "other trust domain": lambda it: it.named("spiffe://other.domain/ns/shop/sa/caller"),
    "a CA": lambda it: it.but(ca=True, usage=builders.key_usage("digital_signature", "key_cert_sign")),
    "two names": lambda it: it.named(account("shop/caller"), account("shop/called")),
    "no name": lambda it: it.but(names=None),
    "a nul in its name": lambda it: it.named("spiffe://cluster.local/ns/shop/sa/caller\0x"),
    "not a spiffe id": lambda it: it.named("https://cluster.local/ns/shop/sa/caller"),
    "no account": lambda it: it.named("spiffe://cluster.local/ns/shop"),
}


@pytest.mark.parametrize("what", STRANGE)
def test_a_client_certificate_that_is_wrong_is_refused(mesh: Mesh, what: str) -> None:
    assert not is_welcome(mesh, strange(mesh, STRANGE[what](leaf())))
    refused(mesh)


def is_welcome(mesh: Mesh, paper: Paper, with_leaf: bool = True) -> bool:
    """Whether a client with this gets a tunnel; a refusal may come as late as the first read."""
    try:
        peer = Peer.dial(mesh, PEER, mesh.address(CALLED), paper, with_leaf)
        return peer.connect(f"{mesh.address(CALLED)}:8080")[1] == 200
    except OSError:
        return False


def test_the_same_way_of_asking_with_a_good_certificate_is_welcome(mesh: Mesh) -> None:
    assert is_welcome(mesh, strange(mesh, leaf()))
    mesh.expect("node-2", 0, "ztunnel_hbone_handshakes_failed_total")


def test_a_client_of_another_authority_or_without_a_certificate_is_refused(mesh: Mesh) -> None:
    assert not is_welcome(mesh, strange(mesh, leaf(), builders.Authority.root()))
    assert not is_welcome(mesh, issue(authority(mesh), account("shop/caller")), with_leaf=False)
    refused(mesh, 2)


# --- requests ------------------------------------------------------------------------


@pytest.fixture
def peer(mesh: Mesh) -> Peer:
    """A valid client of the account shop/caller."""
    return Peer.dial(mesh, PEER, mesh.address(CALLED), issue(authority(mesh), account("shop/caller")))


def test_a_tunnel_of_a_foreign_client_carries_bytes_and_is_reported_by_its_certificate(
    mesh: Mesh, peer: Peer
) -> None:
    forged = (
        ("baggage", "k8s.namespace.name=bank,k8s.pod.name=boss,service.name=boss"),
        ("forwarded", f'for="{mesh.address("shop/other")}:1";host=other.shop.svc.cluster.local'),
        ("x-forwarded-client-cert", "By=spiffe://cluster.local/ns/bank/sa/boss"),
    )
    stream, status = peer.connect(f"{mesh.address(CALLED)}:8080", forged)
    assert status == 200
    peer.send(stream, b"\0hello", end=True)
    assert peer.read(stream, 6) == b"\0hello"
    line = mesh.line("node-2", direction="inbound")
    assert line["src.identity"] == account("shop/caller")
    assert line["src.addr"].startswith(f"{mesh.address(PEER)}:")
    assert "src.workload" not in line  # the pod at that address is somebody else's
    assert "boss" not in line["text"]
    labels = {"source_principal": account("shop/caller"), "source_workload": "unknown"}
    mesh.expect_flow("node-2", 6, 6, reporter="destination", destination_workload="called", **labels)


@pytest.mark.parametrize(
    ("wanted", "status"),
    [
        ("{other}:8080", 400),
        ("127.0.0.1:8080", 400),
        ("[::1]:8080", 400),
        ("169.254.169.254:80", 400),
        ("[fe80::1%25eth0]:80", 400),
        ("0.0.0.0:8080", 400),
        ("{called}:0", 400),
        ("{called}:65536", 400),
        ("{called}", 400),
        ("{called}:15001", 503),
        ("{called}:15006", 503),
        ("{called}:15008", 503),
        ("called.shop.svc.cluster.local:8080", 503),
        ("localhost:8080", 503),
        ("user@{called}:8080", 400),
        ("{called}:8080, {called}:8081", 400),
        ("", 400),
    ],
)
def test_an_authority_that_is_not_this_pods_application_is_refused(
    mesh: Mesh, peer: Peer, wanted: str, status: int
) -> None:
    text = wanted.format(other=mesh.address("shop/other"), called=mesh.address(CALLED))
    _, got = peer.connect(text)
    assert got == status
    assert peer.connect(f"{mesh.address(CALLED)}:8080")[1] == 200


def test_other_methods_are_refused_and_the_session_goes_on(mesh: Mesh, peer: Peer) -> None:
    here = f"{mesh.address(CALLED)}:8080"
    ordinary = ((":scheme", "https"), (":path", "/"))
    assert peer.status(peer.ask(here, ordinary, "GET")) in (400, 404, 405)
    assert peer.connect(here)[1] == 200


def test_a_policy_refuses_a_valid_certificate_with_401(mesh: Mesh, applied: Apply) -> None:
    rule = "[{from: [{source: {principals: [cluster.local/ns/shop/sa/other]}}]}]"
    applied(lab.policy("shop/not-other", "DENY", rule))
    here = f"{mesh.address(CALLED)}:8080"
    for who, status in (("shop/caller", 200), ("shop/other", 401)):
        paper = issue(authority(mesh), account(who))
        assert Peer.dial(mesh, PEER, mesh.address(CALLED), paper).connect(here)[1] == status
    mesh.expect("node-2", 1, "ztunnel_policy_denials_total", policy="shop/not-other")


def test_the_stream_beyond_two_hundred_is_refused_alone(mesh: Mesh, peer: Peer) -> None:
    listener = mesh.listen(CALLED)
    here = f"{mesh.address(CALLED)}:{listener.port}"
    first = peer.connect(here)
    assert first[1] == 200
    peer.http.remote_settings.max_concurrent_streams = 1000  # as if it did not know better
    peer.http.remote_settings.acknowledge()
    streams = [peer.ask(here) for _ in range(199)]
    assert {peer.status(stream) for stream in streams} == {200}
    beyond = peer.ask(here)
    reset = peer.wait(h2.events.StreamReset, beyond)
    assert reset.error_code == h2.errors.ErrorCodes.REFUSED_STREAM
    server = listener.accept()
    peer.send(first[0], b"still here")
    assert lab.read_exactly(server, 10) == b"still here"


# --- floods --------------------------------------------------------------------------

ENDED = (ConnectionError, ssl.SSLError)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"
PING = b"\0\0\x08\x06\0\0\0\0\0" + b"12345678"
SETTINGS = b"\0\0\0\x04\0\0\0\0\0"
UPDATE = b"\0\0\x04\x08\0\0\0\0\0\0\0\0\1"
UNKNOWN = b"\0\0\0\xfa\0\0\0\0\1"
PRIORITY = b"\0\0\x05\x02\0\0\0\0\1" + bytes(5)


def flood(tls: ssl.SSLSocket, send: Callable[[], None]) -> bytes:
    """Two hundred writes of many frames, or until the other side has had enough; what it said."""
    said = b""
    tls.settimeout(5)
    try:
        for _ in range(200):
            send()
    except ENDED:
        pass
    try:
        while part := tls.recv(1 << 16):
            said += part
    except ENDED:
        pass
    return said


@pytest.mark.parametrize(
    "frame",
    [PING, SETTINGS, UPDATE, UNKNOWN, PRIORITY],
    ids=["ping", "settings", "update", "unknown", "priority"],
)
def test_a_flood_of_frames_ends_the_session_and_is_counted(mesh: Mesh, frame: bytes) -> None:
    paper = issue(authority(mesh), account("shop/caller"))
    tls = paper.context(ssl.PROTOCOL_TLS_CLIENT).wrap_socket(mesh.connect(PEER, mesh.address(CALLED), 15008))
    mesh.keep(tls)
    tls.sendall(PREFACE)
    flood(tls, lambda: tls.sendall(frame * 500))
    mesh.expect("node-2", 1, "ztunnel_hbone_calmed_total")
    assert mesh.grown("node-2", "ztunnel_hbone_glitches_total") < 5000


def test_rapid_resets_open_few_connections_and_the_sessions_other_tunnels_go_on(
    mesh: Mesh, peer: Peer
) -> None:
    here = f"{mesh.address(CALLED)}:8080"
    quiet, status = peer.connect(here)
    assert status == 200

    def open_and_reset() -> None:
        for _ in range(100):
            stream = peer.http.get_next_available_stream_id()
            peer.http.send_headers(stream, [(":method", "CONNECT"), (":authority", here)])
            peer.http.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
        peer.flush()

    begun = time.monotonic()
    for _ in range(30):
        open_and_reset()
    lab.wait_until(lambda: mesh.grown("node-2", "ztunnel_hbone_slowed_total"), "new tunnels are slowed")
    peer.send(quiet, b"\0still here")
    assert peer.read(quiet, 11) == b"\0still here"
    opened = mesh.grown("node-2", "istio_tcp_connections_opened_total", reporter="destination")
    assert opened <= 1100 + 200 * (time.monotonic() - begun)
    assert mesh.grown("node-2", "ztunnel_hbone_calmed_total") == 0
    assert mesh.grown("node-2", "ztunnel_hbone_glitches_total") == 0
    lab.wait_until(lambda: mesh.figures("node-2").total("ztunnel_hbone_tunnels") == 1, "one tunnel is left")


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + b"x" * 100,
        PREFACE + b"\0\0\x01\x01\x05\0\0\0\1\xff" + b"\xff" * 50,
        PREFACE + b"\0\0\x04\0\0\0\0\0\1DATA",
        PREFACE + b"\xff\xff\xff\0\0\0\0\0\1" + bytes(1000),
        PREFACE + b"\0\0\x04\x08\0\0\0\0\0\0\0\0\0",
        PREFACE + b"\0\0\x05\x06\0\0\0\0\0short",
        PREFACE + b"\0\0\x06\x04\0\0\0\0\0\0\x05\0\0\0\1",
    ],
    ids=["http1", "hpack", "data on idle", "huge frame", "zero update", "short ping", "frame size"],
)
def test_garbage_after_the_handshake_ends_the_session(mesh: Mesh, said: bytes) -> None:
    paper = issue(authority(mesh), account("shop/caller"))
    tls = paper.context(ssl.PROTOCOL_TLS_CLIENT).wrap_socket(mesh.connect(PEER, mesh.address(CALLED), 15008))
    mesh.keep(tls)
    tls.sendall(said)
    tls.settimeout(5)
    try:
        while tls.recv(1 << 16):
            pass
    except ENDED:
        pass
    lab.wait_until(lambda: mesh.figures("node-2").total("ztunnel_hbone_sessions") <= 2, "the session is gone")
