"""Sockets that are used in unusual ways: captured as any other, or refused; none gets around the mesh."""

from __future__ import annotations

import ctypes
import errno
import select
import socket
from collections.abc import Callable

import pytest

from tests.mesh import lab
from tests.mesh.lab import Mesh, account, endpoint_of, read_exactly

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

MANIFESTS = (
    lab.SHOP
    + lab.pod("shop/called", "node-2")
    + lab.pod("shop/near", "node-1")
    + lab.pod("out/plain", "node-2")
    + lab.service("shop/caller", "caller")
)
CANARY = b"a canary that nobody on the link may read"
SO_MARK, IPPROTO_MPTCP, IP_TRANSPARENT = 36, 262, 19
Prepare = Callable[[Mesh, socket.socket], None]


def marked(_mesh: Mesh, sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, SO_MARK, 0x111)


def marked_like_istio(_mesh: Mesh, sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, SO_MARK, 0x539)


def bound(mesh: Mesh, sock: socket.socket) -> None:
    sock.bind((mesh.address("shop/caller"), 0))


def nonblocking(_mesh: Mesh, sock: socket.socket) -> None:
    sock.setblocking(False)


def refused_before(mesh: Mesh, sock: socket.socket) -> None:
    """A first connect on the same socket fails in the pod itself."""
    sock.setblocking(True)
    with pytest.raises(ConnectionRefusedError):
        sock.connect(("127.0.0.1", 9))


def connect(sock: socket.socket, target: tuple[str, int]) -> None:
    try:
        sock.connect(target)
    except BlockingIOError:
        select.select([], [sock], [], 5)
    sock.settimeout(lab.SOCKET_SECONDS)


@pytest.mark.parametrize(
    "prepare", [marked, marked_like_istio, bound, nonblocking, refused_before], ids=lambda it: it.__name__
)
def test_it_is_tunnelled_all_the_same(mesh: Mesh, prepare: Prepare) -> None:
    listener = mesh.listen("shop/called")
    sock = mesh.socket("shop/caller")
    prepare(mesh, sock)
    with mesh.laboratory.capture() as link:
        connect(sock, (mesh.address("shop/called"), listener.port))
        server = listener.accept()
        sock.sendall(CANARY)
        assert read_exactly(server, len(CANARY)) == CANARY
        assert not link.holds(CANARY)
    own = endpoint_of(sock.getsockname())
    sock.close()
    server.close()
    assert mesh.line("node-1", src_addr=own)["src.identity"] == account("shop/caller")


def test_data_with_the_syn_is_tunnelled(mesh: Mesh) -> None:
    """TCP fast open: sendto() on a socket that is not connected."""
    listener = mesh.listen("shop/called")
    for _ in range(2):  # the second time there could be a cookie
        sock = mesh.socket("shop/caller")
        with mesh.laboratory.capture() as link:
            sock.setblocking(True)
            sock.sendto(CANARY, socket.MSG_FASTOPEN, (mesh.address("shop/called"), listener.port))
            server = listener.accept()
            assert read_exactly(server, len(CANARY)) == CANARY
            assert not link.holds(CANARY)


@pytest.mark.parametrize("where", ["shop/called", "shop/near", "out/plain"])
def test_multipath_tcp_does_not_get_around(mesh: Mesh, where: str) -> None:
    """It may be carried or refused; it is never seen by anybody but the proxy, unless it leaves the mesh."""
    listener = mesh.listen(where)
    try:
        with lab.NetworkNamespace.open(mesh.netns("shop/caller")) as there:
            sock = mesh.keep(there.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP))
    except OSError as error:
        assert error.errno in (errno.EPROTONOSUPPORT, errno.ENOPROTOOPT)  # noqa: PT017
        pytest.skip("this kernel has no multipath TCP")
    with mesh.laboratory.capture() as link:
        sock.connect((mesh.address(where), listener.port))
        sock.sendall(CANARY)
        if listener.sock in select.select([sock, listener.sock], [], [], 5)[0]:
            assert read_exactly(listener.accept(), len(CANARY)) == CANARY
        assert where == "out/plain" or not link.holds(CANARY)
    lab.wait_until(
        lambda: mesh.grown(
            "node-1",
            "ztunnel_redirect_outcomes_total",
            outcome="connect_outside" if where == "out/plain" else "connect_captured",
        ),
        "captured, or seen as it left the mesh",
    )


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        (lab.IPv4Address, IPPROTO_MPTCP),
        (lab.IPv6Address, IPPROTO_MPTCP),
        (lab.IPv4Address, socket.IPPROTO_TCP),
    ],
)
def test_a_policy_ends_what_is_multipath_at_the_server_or_at_both_ends(
    mesh: Mesh, applied, family: lab.Family, kind: int
) -> None:
    """Servers in Go listen so by default (golang/go#56539). A socket of it outlives its last connection."""
    number = socket.AF_INET if family is lab.IPv4Address else socket.AF_INET6
    target = mesh.address("shop/near", family)
    try:
        with lab.NetworkNamespace.open(mesh.netns("shop/near")) as there:
            listening = mesh.keep(there.socket(number, socket.SOCK_STREAM, IPPROTO_MPTCP))
    except OSError as error:
        pytest.skip(f"this kernel has no multipath TCP: {error}")
    listening.bind((target, 0))
    listening.listen()
    ends = []
    for _ in range(2):  # of TCP the second is the kernel's
        with lab.NetworkNamespace.open(mesh.netns("shop/caller")) as there:
            client = mesh.keep(there.socket(number, socket.SOCK_STREAM, kind))
        client.connect((target, listening.getsockname()[1]))
        server = mesh.keep(listening.accept()[0])
        client.sendall(b"x")
        assert server.recv(1) == b"x"
        assert server.getpeername()[:2] == (mesh.address("shop/caller", family), client.getsockname()[1])
        ends += [client, server]
    applied(lab.policy("shop/nobody", "DENY", "[{}]", "app: near"))
    assert all(map(lab.is_refused, ends))


def test_a_connected_socket_that_is_connected_again_is_captured_again(mesh: Mesh) -> None:
    """AF_UNSPEC dissolves a connection; the next one goes elsewhere."""
    first, second = mesh.listen("shop/called"), mesh.listen("out/plain")
    sock = mesh.socket("shop/caller")
    sock.connect((mesh.address("shop/called"), first.port))
    first.accept()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.connect(sock.fileno(), b"\0" * 16, 16) == 0, ctypes.get_errno()
    sock.connect((mesh.address("out/plain"), second.port))
    assert sock.getpeername() == (mesh.address("out/plain"), second.port)
    server = second.accept()
    sock.sendall(b"x")
    assert server.recv(1) == b"x"


def test_a_pod_that_calls_its_own_service_reaches_itself(mesh: Mesh) -> None:
    for address in mesh.laboratory.service("shop/caller").addresses:
        for _ in range(3):
            assert mesh.call("shop/caller", address, 80).answers()
        for _ in range(2):
            assert mesh.call("shop/near", address, 80).answers()


def test_many_sockets_that_are_closed_while_they_connect_leave_nothing(mesh: Mesh) -> None:
    target = mesh.address("shop/called")
    for number in range(200):
        sock = mesh.socket("shop/caller")
        sock.setblocking(False)
        sock.connect_ex((target, 8080))
        sock.close() if number % 2 else lab.reset(sock)
    for node in ("node-1", "node-2"):
        lab.wait_until(lambda node=node: mesh.figures(node).total("ztunnel_hbone_tunnels") == 0, "no tunnel")
    assert mesh.call("shop/caller", target, 8080).answers()


def test_nothing_unexpected_was_logged(mesh: Mesh) -> None:
    for node in ("node-1", "node-2"):
        assert "Traceback" not in mesh.laboratory.node_log(node)
        assert mesh.figures(node).total("ztunnel_internal_errors_total") == 0
