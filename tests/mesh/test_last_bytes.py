"""Bytes in unusual places, on every way: urgent ones, last ones before a reset; and what is below them."""

from __future__ import annotations

import errno
import select
import socket
from ipaddress import IPv4Address

import pytest

from tests.mesh import lab
from tests.mesh.lab import Family, Mesh, read_exactly, reset

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

MANIFESTS = (
    lab.SHOP + lab.pod("shop/near", "node-1") + lab.pod("shop/far", "node-2") + lab.pod("out/plain", "node-1")
)
EVERY_WAY = pytest.mark.parametrize(
    ("where", "to"), [("shop/caller", "shop/far"), ("shop/caller", "shop/near"), ("out/plain", "shop/far")]
)
WITH_FAMILIES = pytest.mark.parametrize("family", lab.TCP_FAMILIES)
ANSWER = bytes(range(256)) * 400


@WITH_FAMILIES
@EVERY_WAY
def test_an_urgent_byte_is_in_its_place_at_every_call(
    mesh: Mesh, family: Family, where: str, to: str
) -> None:
    listener, address = mesh.listen(to), mesh.address(to, family)
    for _ in range(2):  # on one node the kernel makes the second
        client, server = mesh.join(where, listener, address)
        for one, other in ((client, server), (server, client)):
            other.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
            one.sendall(b"abc")
            one.send(b"!", socket.MSG_OOB)
            one.sendall(b"def")
            assert read_exactly(other, 7) == b"abc!def"
        client.close()
        assert server.recv(1) == b""
        server.close()


@pytest.mark.parametrize(("where", "to"), [("shop/caller", "shop/near"), ("out/plain", "shop/far")])
def test_where_no_tunnel_is_in_the_way_it_is_urgent(mesh: Mesh, where: str, to: str) -> None:
    listener = mesh.listen(to)
    for _ in range(2):
        client, server = mesh.join(where, listener, mesh.address(to))
        client.sendall(b"abc")
        client.send(b"!", socket.MSG_OOB)
        client.sendall(b"def")
        assert read_exactly(server, 3) == b"abc"
        assert server.recv(1, socket.MSG_OOB) == b"!"
        assert read_exactly(server, 3) == b"def"
        client.close()
        assert server.recv(1) == b""
        server.close()


@WITH_FAMILIES
@EVERY_WAY
def test_an_answer_arrives_although_the_server_has_not_read_the_question(
    mesh: Mesh, family: Family, where: str, to: str
) -> None:
    """Its kernel resets the connection (RFC 1122 4.2.2.13); the client gets the answer, and the reset."""
    listener, address = mesh.listen(to), mesh.address(to, family)
    for _ in range(2):
        client, server = mesh.join(where, listener, address)
        client.sendall(b"question" * 1000)
        assert read_exactly(server, 1) == b"q"
        server.sendall(ANSWER)
        server.close()
        assert read_exactly(client, len(ANSWER)) == ANSWER
        with pytest.raises(ConnectionResetError):
            client.recv(1)


@WITH_FAMILIES
@EVERY_WAY
def test_what_a_client_sent_before_its_reset_arrives(mesh: Mesh, family: Family, where: str, to: str) -> None:
    listener, address = mesh.listen(to), mesh.address(to, family)
    for _ in range(2):
        client, server = mesh.join(where, listener, address)
        client.sendall(ANSWER)
        server.sendall(b"unread")
        assert client.recv(1, socket.MSG_PEEK) == b"u"
        client.close()
        assert read_exactly(server, len(ANSWER)) == ANSWER
        with pytest.raises(ConnectionResetError):
            server.recv(1)


@WITH_FAMILIES
@EVERY_WAY
def test_a_reset_behind_a_half_close_is_told_at_once(mesh: Mesh, family: Family, where: str, to: str) -> None:
    """Whoever waits to write, and never does, learns of it as without a mesh."""
    listener, address = mesh.listen(to), mesh.address(to, family)
    for _ in range(2):
        for first in (0, 1):
            ends = mesh.join(where, listener, address)
            one, other = ends[first], ends[1 - first]
            one.sendall(b"last")
            one.shutdown(socket.SHUT_WR)
            assert read_exactly(other, 4) == b"last"
            assert other.recv(1) == b""
            reset(one)
            events = select.poll()
            events.register(other, 0)
            assert [mask for _, mask in events.poll(5000)] == [select.POLLERR | select.POLLHUP]
            assert other.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.EPIPE


IP_RECVTOS, IP_PKTOPTIONS, IPV6_2292PKTOPTIONS = 13, 9, 6
DSCP = 0x28


@WITH_FAMILIES
@EVERY_WAY
def test_a_class_of_traffic_is_seen_where_the_kernel_makes_the_call(
    mesh: Mesh, family: Family, where: str, to: str
) -> None:
    """IP_TOS: through the proxy packets are the proxy's own."""
    if family is IPv4Address:
        kind, level, mark, ask, tell = (
            socket.AF_INET,
            socket.IPPROTO_IP,
            socket.IP_TOS,
            IP_RECVTOS,
            IP_PKTOPTIONS,
        )
    else:
        kind, level = socket.AF_INET6, socket.IPPROTO_IPV6
        mark, ask, tell = socket.IPV6_TCLASS, socket.IPV6_RECVTCLASS, IPV6_2292PKTOPTIONS
    listener = mesh.listen(to, mesh.address(to, family))
    listener.sock.setsockopt(level, ask, 1)
    seen = []
    for _ in range(2):  # on one node the kernel makes the second
        client = mesh.socket(where, kind)
        client.setsockopt(level, mark, DSCP)
        client.connect((mesh.address(to, family), listener.port))
        server = listener.accept()
        client.sendall(b"x")
        assert server.recv(1) == b"x"
        seen.append(DSCP in server.getsockopt(level, tell, 256)[:20])
    assert seen == [False, to == "shop/near"]
