"""The ways in which programs connect: each behaves in the mesh as it does without one."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import mmap
import os
import select
import socket
import struct
import time

import pytest

from tests.mesh import lab
from tests.mesh.lab import Family, Listener, Mesh, read_exactly, wait_until
from ztunnel.kernel.netns import NetworkNamespace

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

ENVIRONMENT = {"ZTUNNEL_CONNECT_TIMEOUT": "2s"}
MANIFESTS = (
    lab.SHOP
    + lab.pod("shop/near", "node-1")
    + lab.pod("shop/far", "node-2")
    + lab.pod("out/plain", "node-2")
    + lab.pod("out/other", "node-1")
)
PODS = pytest.mark.parametrize("where", ["shop/near", "shop/far"])
FAMILIES = pytest.mark.parametrize("family", lab.TCP_FAMILIES)
NOBODY = 9
_NUMBERS = {lab.IPv4Address: socket.AF_INET, lab.IPv6Address: socket.AF_INET6}
libc = ctypes.CDLL(None, use_errno=True)


def fresh(mesh: Mesh, family: Family, where: str = "shop/caller") -> socket.socket:
    return mesh.socket(where, _NUMBERS[family])


def echoes(client: socket.socket, to: Listener) -> bool:
    """Whether both ends hear each other; the server's end is closed."""
    client.settimeout(lab.SOCKET_SECONDS)
    server = to.accept()
    client.sendall(b"ping")
    server.sendall(read_exactly(server, 4))
    answered = read_exactly(client, 4) == b"ping"
    server.close()
    return answered


def outcomes_of(sock: socket.socket, address: tuple[str, int]) -> list[int]:
    """What a program sees that connects without blocking, polls, asks SO_ERROR, and connects again."""
    sock.setblocking(False)
    seen = [sock.connect_ex(address)]
    poller = select.poll()
    poller.register(sock, select.POLLOUT)
    ((_, mask),) = poller.poll(5000)
    seen.append(mask)
    seen += [sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) for _ in range(2)]
    return [*seen, sock.connect_ex(address)]


@PODS
@FAMILIES
@pytest.mark.parametrize("listens", [True, False])
def test_a_poll_and_so_error_say_the_same_as_without_a_mesh(
    mesh: Mesh, where: str, family: Family, listens: bool
) -> None:
    plain, to = mesh.listen("out/plain"), mesh.listen(where)
    port = {True: (plain.port, to.port), False: (NOBODY, NOBODY)}[listens]
    outside = mesh.socket("out/other", _NUMBERS[family])
    expected = outcomes_of(outside, (mesh.address("out/plain", family), port[0]))
    for _ in range(3):
        assert outcomes_of(fresh(mesh, family), (mesh.address(where, family), port[1])) == expected


@PODS
@FAMILIES
def test_a_socket_that_was_refused_may_be_connected_again(mesh: Mesh, where: str, family: Family) -> None:
    to = mesh.listen(where)
    address = mesh.address(where, family)
    for _ in range(3):
        sock = fresh(mesh, family)
        sock.settimeout(None)  # of a socket that does not block, Linux says ECONNABORTED first
        assert sock.connect_ex((address, NOBODY)) == errno.ECONNREFUSED
        sock.connect((address, to.port))
        assert echoes(sock, to)


@PODS
@FAMILIES
def test_a_socket_that_was_disconnected_may_be_connected_to_another(
    mesh: Mesh, where: str, family: Family
) -> None:
    """connect() with AF_UNSPEC takes a connection back."""
    to, plain = mesh.listen(where), mesh.listen("out/plain")
    sock = fresh(mesh, family)
    for listener, pod in ((to, where), (plain, "out/plain"), (to, where)):
        sock.connect((mesh.address(pod, family), listener.port))
        assert echoes(sock, listener)
        unspecified = ctypes.create_string_buffer(28)  # family 0
        assert libc.connect(sock.fileno(), unspecified, 28) == 0, ctypes.get_errno()


@PODS
@FAMILIES
def test_a_health_check_that_resets_at_once_harms_nobody(mesh: Mesh, where: str, family: Family) -> None:
    """SO_LINGER of 0 after connect, as HAProxy's and keepalived's checks do it, a hundred times."""
    to = mesh.listen(where)
    address = mesh.address(where, family)
    stays = mesh.connect("shop/caller", address, to.port)
    far = to.accept()
    for _ in range(100):
        check = fresh(mesh, family)
        check.connect((address, to.port))
        lab.reset(check)
        to.accept().close()
    far.sendall(b"still here")
    assert read_exactly(stays, 10) == b"still here"
    lab.reset(stays)
    wait_until(lambda: mesh.figures("node-1").total("ztunnel_hbone_tunnels") == 0, "nothing is left")


@PODS
@FAMILIES
def test_a_server_that_defers_its_accept_is_connected(mesh: Mesh, where: str, family: Family) -> None:
    """TCP_DEFER_ACCEPT: the server hears of a connection with its first bytes."""
    to = mesh.listen(where)
    to.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 5)
    for _ in range(2):
        sock = fresh(mesh, family)
        sock.connect((mesh.address(where, family), to.port))
        sock.sendall(b"ping")
        assert read_exactly(to.accept(), 4) == b"ping"


@pytest.mark.parametrize("caller", ["shop/caller", "out/plain"])
@PODS
@FAMILIES
def test_a_server_that_listens_on_an_interface_is_connected(
    mesh: Mesh, where: str, family: Family, caller: str
) -> None:
    """SO_BINDTODEVICE: what it sends follows no route but those of the interface."""
    listener, address = mesh.listen(where), mesh.address(where, family)
    listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
    for _ in range(2):
        client, server = mesh.join(caller, listener, address)
        assert lab.endpoint_of(server.getpeername()).ip == lab.ip_address(mesh.address(caller, family))
        server.sendall(b"many bytes" * 50_000)
        assert read_exactly(client, 500_000) == b"many bytes" * 50_000
        client.shutdown(socket.SHUT_WR)
        assert server.recv(1) == b""
        server.close()
        assert client.recv(1) == b""


@PODS
@FAMILIES
def test_data_with_the_syn_arrives_once(mesh: Mesh, where: str, family: Family) -> None:
    """TCP Fast Open at both ends, by both ways of asking for it."""
    with mesh.sysctl(["shop/caller", where], "net.ipv4.tcp_fastopen", "3"):
        to = mesh.listen(where)
        to.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 16)
        address = mesh.address(where, family), to.port
        for number in range(4):
            sock = fresh(mesh, family)
            sock.settimeout(None)
            if number % 2:
                sock.sendto(b"early", socket.MSG_FASTOPEN, address)
            else:
                sock.setsockopt(socket.IPPROTO_TCP, 30, 1)  # TCP_FASTOPEN_CONNECT
                sock.connect(address)
                sock.sendall(b"early")
            server = to.accept()
            assert read_exactly(server, 5) == b"early"
            server.sendall(b"late")
            assert read_exactly(sock, 4) == b"late"
            sock.shutdown(socket.SHUT_WR)
            assert server.recv(9) == b""


@PODS
@FAMILIES
def test_listeners_that_answer_with_cookies_take_every_call(mesh: Mesh, where: str, family: Family) -> None:
    """`tcp_syncookies=2`: no request is remembered until the last packet of the handshake."""
    with mesh.sysctl(["shop/caller", where], "net.ipv4.tcp_syncookies", "2"):
        to = mesh.listen(where)
        for _ in range(3):
            sock = fresh(mesh, family)
            sock.connect((mesh.address(where, family), to.port))
            assert echoes(sock, to)
        plain = fresh(mesh, family, "out/plain")
        plain.connect((mesh.address(where, family), to.port))
        assert echoes(plain, to)


def test_a_dialer_with_a_short_deadline_of_its_own_leaves_nothing(mesh: Mesh) -> None:
    """Two hundred at once give up after a tenth of a second; the next call stands at once."""
    with mesh.filtered("shop/far", "type filter hook input priority 0; tcp dport 15008 drop;"):
        lab.reset(mesh.call("shop/caller", mesh.address("shop/far"), 8080).sock)
        waiting = []
        for _ in range(200):
            sock = fresh(mesh, lab.IPv4Address)
            sock.setblocking(False)
            assert sock.connect_ex((mesh.address("shop/far"), 8080)) == errno.EINPROGRESS
            waiting.append(sock)
        select.select([], [], [], 0.1)
        for sock in waiting:
            sock.close()
        gone = "the application closed before"
        wait_until(
            lambda: sum(gone in line.get("error", "") for line in mesh.lines("node-1")) >= 1, "it is told"
        )
    begun = time.monotonic()
    wait_until(lambda: mesh.call("shop/caller", mesh.address("shop/far"), 8080).answers(), "it stands")
    assert time.monotonic() - begun < 5


def test_a_send_timeout_bounds_connect(mesh: Mesh) -> None:
    """SO_SNDTIMEO: connect gives up with EINPROGRESS, as libpq and the like rely on."""
    with mesh.filtered("shop/far", "type filter hook input priority 0; tcp dport 15008 drop;"):
        sock = fresh(mesh, lab.IPv4Address)
        sock.settimeout(None)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 300_000))
        begun = time.monotonic()
        assert sock.connect_ex((mesh.address("shop/far"), 8080)) == errno.EINPROGRESS
        assert 0.25 < time.monotonic() - begun < 1.5


def test_the_second_family_is_tried_while_the_first_waits(mesh: Mesh) -> None:
    """Happy eyeballs (RFC 8305) by asyncio: IPv6 is silent, IPv4 answers."""
    to = mesh.listen("shop/near")
    silent = f"meta nfproto ipv6 tcp dport {{ 15008, {to.port} }} drop;"
    rule = f"type filter hook input priority 0; {silent}"

    async def dial() -> str:
        infos = [
            (number, socket.SOCK_STREAM, 6, "", (mesh.address("shop/near", family), to.port))
            for family, number in reversed(_NUMBERS.items())
        ]
        loop = asyncio.get_running_loop()
        tasks = []
        for number, kind, _, _, address in infos:
            with NetworkNamespace.open(mesh.netns("shop/caller")) as netns:
                sock = netns.socket(number, kind)
            mesh.keep(sock)
            sock.setblocking(False)
            tasks.append(asyncio.ensure_future(connected(loop, sock, address)))
            done, _ = await asyncio.wait(tasks, timeout=0.25, return_when=asyncio.FIRST_COMPLETED)
            if done:
                break
        done, pending = await asyncio.wait(tasks, timeout=5, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        return done.pop().result()

    with mesh.filtered("shop/near", rule):
        begun = time.monotonic()
        assert asyncio.run(dial()) == mesh.address("shop/near")
        assert time.monotonic() - begun < 1


async def connected(loop: asyncio.AbstractEventLoop, sock: socket.socket, address: tuple[str, int]) -> str:
    await loop.sock_connect(sock, address)
    return address[0]


class Ring:
    """io_uring with one entry at a time, by its system calls."""

    SETUP, ENTER, CONNECT = 425, 426, 16

    def __init__(self) -> None:
        self.parameters = ctypes.create_string_buffer(120)
        self.fd = libc.syscall(self.SETUP, 2, self.parameters)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "io_uring_setup")
        words = struct.unpack("30I", self.parameters.raw)
        self.sq, self.cq = words[10:20], words[20:30]
        size = max(self.sq[6] + words[0] * 4, self.cq[5] + words[1] * 16)
        self.rings = mmap.mmap(self.fd, size, mmap.MAP_SHARED)
        self.entries = mmap.mmap(self.fd, words[0] * 64, mmap.MAP_SHARED, offset=0x10000000)

    def close(self) -> None:
        self.rings.close()
        self.entries.close()
        os.close(self.fd)

    def connect(self, sock: socket.socket, address: bytes) -> int:
        """The result of IORING_OP_CONNECT: 0, or the negative errno."""
        buffer = ctypes.create_string_buffer(address)
        what = self.CONNECT, 0, 0, sock.fileno(), len(address), ctypes.addressof(buffer), 0, 0, 7
        entry = struct.pack("=BBHiQQIIQ24x", *what)
        tail = struct.unpack_from("I", self.rings, self.sq[1])[0]
        mask = struct.unpack_from("I", self.rings, self.sq[2])[0]
        self.entries[(tail & mask) * 64 : (tail & mask) * 64 + 64] = entry
        struct.pack_into("I", self.rings, self.sq[6] + (tail & mask) * 4, tail & mask)
        struct.pack_into("I", self.rings, self.sq[1], tail + 1)
        assert libc.syscall(self.ENTER, self.fd, 1, 1, 1, None, 0) == 1
        head = struct.unpack_from("I", self.rings, self.cq[0])[0]
        at = self.cq[5] + (head & struct.unpack_from("I", self.rings, self.cq[2])[0]) * 16
        _, result = struct.unpack_from("=Qi", self.rings, at)
        struct.pack_into("I", self.rings, self.cq[0], head + 1)
        return int(result)


def sockaddr(family: Family, host: str, port: int) -> bytes:
    if family is lab.IPv4Address:
        return struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", port, socket.inet_aton(host))
    packed = socket.inet_pton(socket.AF_INET6, host)
    return struct.pack("=H", socket.AF_INET6) + struct.pack("!HI16sI", port, 0, packed, 0)


@PODS
@FAMILIES
@pytest.mark.parametrize("blocking", [True, False])
def test_io_uring_connects_and_is_told_the_truth(
    mesh: Mesh, where: str, family: Family, blocking: bool
) -> None:
    ring = Ring()
    to = mesh.listen(where)
    outside = fresh(mesh, family, "out/other")
    outside.setblocking(blocking)
    expected = ring.connect(outside, sockaddr(family, mesh.address("out/plain", family), NOBODY))
    for _ in range(3):
        refused, stands = fresh(mesh, family), fresh(mesh, family)
        for sock in (refused, stands):
            sock.setblocking(blocking)
        assert ring.connect(refused, sockaddr(family, mesh.address(where, family), NOBODY)) == expected
        assert ring.connect(stands, sockaddr(family, mesh.address(where, family), to.port)) == 0
        assert echoes(stands, to)
    ring.close()
