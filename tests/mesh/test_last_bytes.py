"""Bytes in unusual places, on every way: urgent ones, last ones before a reset; by unusual calls; and what is
below them."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv4Address

import pytest

from tests.mesh import lab
from tests.mesh.lab import Family, Mesh, read_exactly, reset, wait_until

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


@contextmanager
def beside(work: Callable[[], None]) -> Iterator[None]:
    """Something that is done while the block runs."""
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join()


BULK = os.urandom(1 << 16) * 24
SPLICE_F_MORE = 4


@WITH_FAMILIES
@EVERY_WAY
def test_what_is_spliced_in_and_out_is_whole_and_has_an_end(
    mesh: Mesh, family: Family, where: str, to: str
) -> None:
    """As Go's io.Copy does it between connections; nothing is waited for that does not come."""
    listener, address = mesh.listen(to), mesh.address(to, family)
    for _ in range(2):  # on one node the kernel makes the second
        client, server = mesh.join(where, listener, address)
        for sock in (client, server):
            sock.settimeout(None)
        pipes = os.pipe(), os.pipe()

        def write(server: socket.socket = server, pipes: tuple[tuple[int, int], ...] = pipes) -> None:
            for at in range(0, len(BULK), 1 << 16):
                left = os.write(pipes[0][1], BULK[at : at + (1 << 16)])
                while left:
                    left -= os.splice(pipes[0][0], server.fileno(), left, flags=SPLICE_F_MORE)
            server.shutdown(socket.SHUT_WR)

        got = bytearray()
        with beside(write):
            while count := os.splice(client.fileno(), pipes[1][1], 1 << 16):
                got += os.read(pipes[1][0], count)
        assert got == BULK
        for end in (*pipes[0], *pipes[1]):
            os.close(end)


@WITH_FAMILIES
@EVERY_WAY
def test_a_file_behind_a_corked_head_is_whole(mesh: Mesh, family: Family, where: str, to: str) -> None:
    """nginx's sendfile and tcp_nopush."""
    listener, address = mesh.listen(to), mesh.address(to, family)
    with os.fdopen(os.memfd_create("body"), "r+b") as body:
        body.write(BULK)
        body.flush()
        for _ in range(2):
            client, server = mesh.join(where, listener, address)
            server.settimeout(None)

            def write(server: socket.socket = server) -> None:
                server.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
                server.send(b"head")
                at = 0
                while at < len(BULK):
                    at += os.sendfile(server.fileno(), body.fileno(), at, len(BULK) - at)
                server.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)

            with beside(write):
                assert read_exactly(client, 4 + len(BULK)) == b"head" + BULK


TCP_NOTSENT_LOWAT = 25


@WITH_FAMILIES
@EVERY_WAY
def test_a_writer_that_is_told_once_is_told_when_there_is_room(
    mesh: Mesh, family: Family, where: str, to: str
) -> None:
    """Edge-triggered, with TCP_NOTSENT_LOWAT; the reader begins when the writer waits."""
    listener, address = mesh.listen(to), mesh.address(to, family)
    data = BULK * 16
    for _ in range(2):
        client, server = mesh.join(where, listener, address)
        server.setblocking(False)
        server.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, 1 << 14)
        waits = threading.Event()

        def write(server: socket.socket = server, waits: threading.Event = waits) -> None:
            at = 0
            with select.epoll() as told:
                told.register(server, select.EPOLLOUT | select.EPOLLET)
                while at < len(data) and told.poll(lab.SOCKET_SECONDS):
                    with suppress(BlockingIOError):
                        while at < len(data):
                            at += server.send(data[at : at + (1 << 18)])
                    waits.set()
            server.shutdown(socket.SHUT_WR)

        with beside(write):
            assert waits.wait(lab.SOCKET_SECONDS)
            assert lab.read_all(client) == data


FIONREAD, SO_ZEROCOPY, MSG_ZEROCOPY = 0x541B, 60, 0x4000000


def unread(sock: socket.socket) -> int:
    return int(struct.unpack("i", fcntl.ioctl(sock, FIONREAD, bytes(4)))[0])


@WITH_FAMILIES
@EVERY_WAY
def test_what_has_come_is_told_and_waited_for_as_it_was_asked(
    mesh: Mesh, family: Family, where: str, to: str
) -> None:
    """FIONREAD (Java's available()), SO_RCVLOWAT, MSG_WAITALL, and the notices of MSG_ZEROCOPY."""
    listener, address = mesh.listen(to), mesh.address(to, family)
    for _ in range(2):
        client, server = mesh.join(where, listener, address)
        server.setsockopt(socket.SOL_SOCKET, SO_ZEROCOPY, 1)
        server.send(bytes(5000), MSG_ZEROCOPY)
        wait_until(lambda sock=client: unread(sock) == 5000, "it has come")
        assert len(client.recv(1200)) == 1200
        assert unread(client) == 3800
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 4000)
        assert not select.select([client], [], [], 0)[0]
        server.sendall(bytes(200))
        assert select.select([client], [], [], lab.SOCKET_SECONDS)[0]
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        client.settimeout(None)  # else it does not wait in the kernel
        with beside(lambda sock=server: sock.sendall(bytes(1000))):
            assert len(client.recv(5000, socket.MSG_WAITALL)) == 5000
        server.setblocking(False)
        assert server.recvmsg(0, 100, socket.MSG_ERRQUEUE)[1], "a notice"


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
