"""Sockets that call from a chosen address and port, on real namespaces."""

from __future__ import annotations

import errno
import itertools
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.kernel.lab import PATIENCE_SECONDS, Kernel, Lab, endpoint, local_of
from tests.kernel.test_sockets import KEEPALIVE, keepalive_of
from ztunnel.kernel import sockets
from ztunnel.kernel.dial import (
    Source,
    connect_from,
    dial_socket,
    hold_little,
    keep_source,
    receive_all,
    spoof,
)
from ztunnel.kernel.sockets import TcpState
from ztunnel.model.address import Endpoint

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

RESET = struct.pack("ii", 1, 0)
BOTH = pytest.mark.parametrize(("own", "host"), [("10.77.0.2", "10.77.0.3"), ("fd77::2", "fd77::3")])
EPHEMERAL = 32768, 60999
fresh = itertools.count(41000, 2)
"""Ports that no other test of this file has left in TIME_WAIT: the namespaces are shared."""

low = itertools.count(600)
ANY_PORT = pytest.mark.parametrize("ports", [fresh, low], ids=["ephemeral", "privileged"])


@pytest.fixture(name="server")
def server_(kernel: Kernel) -> socket.socket:
    return kernel.listen(kernel.lab.b, 8080)


def call(kernel: Kernel, source: Source, host: str, port: int = 8080) -> tuple[socket.socket, int]:
    """From pod a; the socket, and what connect() said in the end."""
    sock = kernel.keep(dial_socket(kernel.lab.a, endpoint(host, port).ip))
    code = connect_from(sock, (host, port), source)
    if code == errno.EINPROGRESS:
        sock.setblocking(True)
        sock.settimeout(3)
        sock.send(b"?")
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return sock, code


def from_port(own: str, *ports: int) -> Source:
    return Source(own, ports, EPHEMERAL)


def test_what_is_dialled_is_kept_alive_where_that_is_wanted(lab: Lab) -> None:
    towards = endpoint("10.77.0.9", 1).ip
    with dial_socket(lab.a, towards, KEEPALIVE) as kept, dial_socket(lab.a, towards) as other:
        assert keepalive_of(kept) == (1, *KEEPALIVE)
        assert keepalive_of(other)[0] == 0


def test_a_dialler_does_not_wait(lab: Lab) -> None:
    with dial_socket(lab.a, endpoint("10.77.0.9", 1).ip) as dialler:
        assert dialler.connect_ex(("10.77.0.9", 1)) == errno.EINPROGRESS
        [dialling] = sockets.connections(lab.a, [TcpState.SYN_SENT])
        assert (dialling.local, dialling.remote) == (local_of(dialler), endpoint("10.77.0.9", 1))


@pytest.mark.parametrize("source", ["10.78.0.2", "fd78::2"])
@pytest.mark.parametrize("port", [41000, 700])
def test_a_spoofed_socket_has_the_clients_address_the_port_and_the_mark(lab: Lab, source, port) -> None:
    ip = endpoint(source, 0).ip
    with dial_socket(lab.b, ip) as dialler:
        spoof(dialler, ip)
        target = ("10.77.0.9" if ip.version == 4 else "fd77::9", 1)
        assert connect_from(dialler, target, from_port(source, port)) == errno.EINPROGRESS
        assert local_of(dialler) == endpoint(source, port)
        assert dialler.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) == 0x111


@BOTH
@pytest.mark.parametrize("port", [EPHEMERAL[0], 41000, EPHEMERAL[1], 1, 700, 8080, 65535])
def test_the_server_sees_the_port_that_was_asked_for(kernel: Kernel, server, own, host, port) -> None:
    _, code = call(kernel, from_port(own, port), host)
    assert code == 0
    assert kernel.accept(server)[1] == endpoint(own, port)


@BOTH
@ANY_PORT
def test_a_port_in_time_wait_is_used_again(kernel: Kernel, server, own, host, ports) -> None:
    port = next(ports)
    for _ in range(3):
        sock, code = call(kernel, from_port(own, port), host)
        assert code == 0
        accepted, peer = kernel.accept(server)
        assert peer == endpoint(own, port)
        sock.close()
        assert accepted.recv(9) == b"?"
        accepted.close()
    found = sockets.connections(kernel.lab.a, list(TcpState))
    states = [each.state for each in found if each.local == endpoint(own, port)]
    assert states == [TcpState.TIME_WAIT]


@contextmanager
def taken(kernel: Kernel, how: str, own: str, host: str, port: int) -> Iterator[None]:
    """The pod's application has the port, and does not set SO_REUSEADDR."""
    app = kernel.socket(kernel.lab.a, host)
    app.bind(("::" if ":" in own else "0.0.0.0", port))
    if how == "listens":
        app.listen(1)
    elif how == "calls another port":
        kernel.listen(kernel.lab.b, 8081)
        app.connect((host, 8081))
    yield
    app.close()


@BOTH
@pytest.mark.parametrize("how", ["is bound", "listens", "calls another port"])
@ANY_PORT
def test_a_port_that_an_application_has_is_shared(kernel: Kernel, server, own, host, how, ports) -> None:
    port = next(ports)
    with taken(kernel, how, own, host, port):
        _, code = call(kernel, from_port(own, port), host)
        assert code == 0
        assert kernel.accept(server)[1] == endpoint(own, port)


@BOTH
def test_the_same_connection_twice_is_refused_and_the_next_port_serves(
    kernel: Kernel, server, own, host
) -> None:
    port, other = next(fresh), next(fresh)
    first, _ = call(kernel, from_port(own, port), host)
    accepted, _ = kernel.accept(server)
    assert call(kernel, from_port(own, port), host)[1] == errno.EADDRNOTAVAIL
    _, code = call(kernel, from_port(own, port, other, next(fresh)), host)
    assert code == 0
    assert kernel.accept(server)[1] == endpoint(own, other)
    first.send(b"still here")
    assert accepted.recv(1) + accepted.recv(99) == b"?still here"


@BOTH
@ANY_PORT
def test_an_application_that_sets_reuseaddr_gets_the_port_that_we_have(
    kernel: Kernel, server, own, host, ports
) -> None:
    port = next(ports)
    call(kernel, from_port(own, port), host)
    kernel.accept(server)
    kernel.listen(kernel.lab.a, port, "::" if ":" in own else "0.0.0.0")


@BOTH
def test_the_pods_own_calls_may_use_an_ephemeral_port_that_we_have(kernel: Kernel, server, own, host) -> None:
    """Bound, it would be skipped: a busy server could not call anybody (one port is its whole range here)."""
    kernel.listen(kernel.lab.b, 8081)
    port = next(fresh)
    before = kernel.lab.a.read_sysctl("net.ipv4.ip_local_port_range")
    kernel.lab.a.write_sysctl("net.ipv4.ip_local_port_range", f"{port} {port}")
    try:
        sock, _ = call(kernel, Source(own, (port,), (port, port)), host)
        assert local_of(sock).port == port
        assert local_of(kernel.connect(kernel.lab.a, host, 8081)).port == port
        kernel.accept(server)
    finally:
        kernel.lab.a.write_sysctl("net.ipv4.ip_local_port_range", before)


def test_the_range_of_a_namespace_is_its_own(lab: Lab) -> None:
    before = lab.b.read_sysctl("net.ipv4.ip_local_port_range")
    lab.b.write_sysctl("net.ipv4.ip_local_port_range", "40000 40099")
    try:
        with type(lab.b).open(lab.b.path) as fresh:
            assert fresh.ephemeral_ports() == (40000, 40099)
        assert lab.a.ephemeral_ports() == EPHEMERAL
    finally:
        lab.b.write_sysctl("net.ipv4.ip_local_port_range", before)


@BOTH
def test_the_thousandth_call_costs_as_much_as_the_first(kernel: Kernel, server, own, host) -> None:
    """3,000 ports, each used again in TIME_WAIT: nothing walks those that are taken."""
    seconds = []
    first_port = 45000 if ":" in own else 49000
    for number in range(9000):
        source = from_port(own, first_port + number % 3000)
        sock = dial_socket(kernel.lab.a, endpoint(host, 8080).ip)
        began = time.perf_counter()
        code = connect_from(sock, (host, 8080), source)
        seconds.append(time.perf_counter() - began)
        assert code in (0, errno.EINPROGRESS)
        accepted, address = server.accept()
        assert Endpoint(endpoint(own, 0).ip, address[1]) == endpoint(own, first_port + number % 3000)
        sock.close()
        accepted.close()
    first, last = sorted(seconds[:1000]), sorted(seconds[-1000:])
    assert last[500] < 4 * first[500]


@pytest.mark.parametrize("source", ["10.77.0.2", "fd77::2"])
def test_a_source_is_kept_and_its_port_is_chosen_at_connect(kernel: Kernel, source) -> None:
    app = kernel.listen(kernel.lab.b, 8080)
    dialler = kernel.socket(kernel.lab.a, source)
    keep_source(dialler, endpoint(source, 0).ip)
    assert dialler.getsockname()[:2] == (source, 0)
    dialler.connect((source.replace("7.0.2", "7.0.3").replace("::2", "::3"), 8080))
    assert kernel.accept(app)[1] == local_of(dialler)


def test_a_dialler_that_receives_all_has_room_for_what_an_application_writes_at_once(lab: Lab) -> None:
    with dial_socket(lab.a, endpoint("10.77.0.9", 1).ip) as dialler:
        receive_all(dialler)
        assert dialler.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 6 << 20


@pytest.mark.parametrize("host", ["10.77.0.2", "fd77::2"])
def test_one_that_holds_little_takes_a_megabyte_for_an_application_that_does_not_read(
    kernel: Kernel, host: str
) -> None:
    listener = kernel.listen(kernel.lab.a, 8080)
    taken = []
    for bounded in (False, True):
        with dial_socket(kernel.lab.a, endpoint(host, 1).ip) as dialler:
            if bounded:
                hold_little(dialler)
                hold_little(listener)
            dialler.settimeout(PATIENCE_SECONDS)
            dialler.connect((host, 8080))
            accepted, _ = kernel.accept(listener)
            taken += [filled(dialler), filled(accepted)]
    assert max(taken[2:]) < 3 << 19 < min(taken[:2])


def filled(sock: socket.socket) -> int:
    """How many bytes it takes."""
    sock.setblocking(False)
    count = 0
    with suppress(BlockingIOError):
        while True:
            count += sock.send(bytes(1 << 18))
    return count
