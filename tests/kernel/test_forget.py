"""Connections in TIME_WAIT that are forgotten, and others that are not."""

from __future__ import annotations

import socket
import struct

import pytest
from pyroute2.netlink import NLM_F_REQUEST
from pyroute2.netlink.diag import SOCK_DESTROY, inet_diag_req

from tests.kernel.lab import Kernel, local_of, wait_until
from ztunnel.kernel.forget import Forgettable, forget
from ztunnel.kernel.netlink import encoded
from ztunnel.kernel.sockets import TcpState, connections, cookie_of
from ztunnel.model.address import Endpoint, parse_ip

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]
HOSTS = pytest.mark.parametrize("host", ["10.77.0.3", "fd77::3"])


def call(kernel: Kernel, host: str, server: socket.socket) -> tuple[socket.socket, socket.socket]:
    client = kernel.connect(kernel.lab.a, host, 8080)
    return client, kernel.accept(server)[0]


def in_time_wait(kernel: Kernel, *locals_: Endpoint) -> set[Endpoint]:
    found = {each.local for each in connections(kernel.lab.a, [TcpState.TIME_WAIT])}
    return found & set(locals_)


def requests(*clients: socket.socket) -> list[bytes]:
    made = []
    for client in clients:
        host, port = client.getpeername()[:2]
        own = local_of(client)
        made.append(
            Forgettable(own.ip, Endpoint(type(own.ip)(host), port)).request(client, own.port)  # type: ignore[arg-type]
        )
    return made


@pytest.mark.parametrize(("source", "app"), [("10.77.0.2", "10.77.0.3"), ("fd77::2", "fd77::3")])
def test_a_request_is_what_the_library_writes(source: str, app: str) -> None:
    """It takes the library 50 us to write one, and one is written for each connection."""
    own, far = parse_ip(source), parse_ip(app)
    wanted = inet_diag_req()
    wanted["sdiag_family"] = int(socket.AF_INET if own.version == 4 else socket.AF_INET6)
    wanted["sdiag_protocol"], wanted["idiag_states"] = int(socket.IPPROTO_TCP), 0xFFFFFFFF
    wanted["idiag_sport"], wanted["idiag_dport"] = 4711, 8080
    for name, ip in (("idiag_src", own), ("idiag_dst", far)):
        wanted[name] = struct.unpack(">4I", ip.packed.ljust(16, b"\0"))
    with socket.socket() as sock:
        made = Forgettable(own, Endpoint(far, 8080)).request(sock, 4711)
        wanted["idiag_cookie"] = cookie_of(sock)
    head = struct.pack("=IHHII", len(made), SOCK_DESTROY, NLM_F_REQUEST, 0, 0)
    assert made == head + encoded(wanted)


@HOSTS
def test_what_is_in_time_wait_is_forgotten_and_its_neighbours_are_not(kernel: Kernel, host: str) -> None:
    server = kernel.listen(kernel.lab.b, 8080)
    pairs = [call(kernel, host, server) for _ in range(3)]
    ends = [local_of(client) for client, _ in pairs]
    asked = requests(pairs[0][0], pairs[1][0])
    for client, accepted in pairs:
        client.close()
        accepted.close()
    wait_until(lambda: in_time_wait(kernel, *ends) == set(ends))
    forget(kernel.lab.a, asked)
    assert in_time_wait(kernel, *ends) == {ends[2]}
    forget(kernel.lab.a, asked)


@HOSTS
def test_a_later_connection_on_the_same_ports_is_not_meant(kernel: Kernel, host: str) -> None:
    server = kernel.listen(kernel.lab.b, 8080)
    client, accepted = call(kernel, host, server)
    own, asked = local_of(client), requests(client)
    accepted.close()  # the server first: the client's port is free at once
    assert client.recv(1) == b""
    client.close()
    later = kernel.socket(kernel.lab.a, host)
    later.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    later.bind((str(own.ip), own.port))
    later.connect((host, 8080))
    other, _ = kernel.accept(server)
    forget(kernel.lab.a, asked)
    later.sendall(b"still here")
    assert other.recv(10) == b"still here"


def test_a_namespace_that_was_let_go_is_an_error(kernel: Kernel) -> None:
    with type(kernel.lab.a).open(kernel.lab.a.path) as gone:
        pass
    with pytest.raises(OSError, match="Bad file descriptor"):
        forget(gone, [])
