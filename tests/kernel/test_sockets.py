from __future__ import annotations

import errno
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernel.lab import Kernel, Lab, endpoint, local_of, wait_until
from ztunnel.kernel import sockets
from ztunnel.kernel.sockets import Keepalive, LiveSocket, TcpState, keep_syns, kept_syn
from ztunnel.redirect.syn import ends_of

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

ROOT = Path(__file__).parents[2]


def talk(kernel: Kernel, host: str) -> tuple[socket.socket, socket.socket, socket.socket]:
    """A connection from pod a to pod b; (client, server, listener)."""
    listener = kernel.keep(sockets.listen_in(kernel.lab.b, 0, 16))
    listener.settimeout(3)
    client = kernel.connect(kernel.lab.a, host, listener.getsockname()[1])
    return client, kernel.accept(listener)[0], listener


def test_our_own_cgroup_is_known_without_proc(lab: Lab) -> None:
    for name in ("proxy", "app"):
        with lab.in_cgroup(name):
            assert sockets.own_cgroup_id() == lab.cgroup_id(name)


def test_our_own_cgroup_is_known_without_any_capability(lab: Lab) -> None:
    ask = "from ztunnel.kernel.sockets import own_cgroup_id; print(own_cgroup_id())"
    words = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-c", ask]
    with lab.in_cgroup("proxy"):
        done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT)
    assert int(done.stdout) == lab.cgroup_id("proxy")


@pytest.mark.parametrize("host", ["10.77.0.3", "fd77::3"])
def test_one_listener_serves_both_families_without_nagles_delay(kernel: Kernel, host) -> None:
    _, server, _ = talk(kernel, host)
    assert server.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


class WithoutIpv6:
    """A namespace of a kernel that was started with `ipv6.disable=1`."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return self._lab.a.socket(family, kind, protocol)


def test_listeners_side_by_side_have_one_port_and_nobody_joins_them(kernel: Kernel) -> None:
    made = [kernel.keep(each) for each in sockets.listen_side_by_side(kernel.lab.b, [65535, 65534], 16, 8)]
    assert {each.getsockname()[:2] for each in made} == {("::ffff:192.0.0.8", 65535)}
    assert len({sockets.cookie_of(each) for each in made}) == 8
    more = [kernel.keep(each) for each in sockets.listen_side_by_side(kernel.lab.b, [65535, 65534], 16, 2)]
    assert {each.getsockname()[1] for each in more} <= {65534, 65535}
    for each in (*made, *more):
        assert not each.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)


def test_of_listeners_side_by_side_nothing_is_left_where_one_cannot_be_made(kernel: Kernel) -> None:
    before = len(os.listdir("/proc/self/fd"))
    taken = sockets.listen_nowhere(kernel.lab.b, [65535], 16)
    with pytest.raises(OSError, match="in use"):
        sockets.listen_side_by_side(kernel.lab.b, [65535], 16, 8)
    taken.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_where_the_kernel_has_no_ipv6_a_listener_is_for_ipv4(lab: Lab) -> None:
    namespace = WithoutIpv6(lab)
    with sockets.listen_in(namespace, 0, 1) as listener:
        assert (listener.family, listener.getsockname()[0]) == (socket.AF_INET, "0.0.0.0")
    with sockets.listen_nowhere(namespace, [65535], 1) as listener:
        assert (listener.family, listener.getsockname()) == (socket.AF_INET, ("192.0.0.8", 65535))


def test_a_listener_may_be_for_ipv4_alone_and_says_where_its_port_is_taken(lab: Lab) -> None:
    with sockets.listen_in(lab.a, 0, 1, sockets.Listening(ipv6=False)) as listener:
        assert listener.family == socket.AF_INET
        with pytest.raises(OSError, match="in use"):
            sockets.listen_in(lab.a, listener.getsockname()[1], 1, sockets.Listening(ipv6=False))


KEEPALIVE = Keepalive(11, 12, 13)


def keepalive_of(sock: socket.socket) -> tuple[int, ...]:
    names = socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT
    enabled = sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    return enabled, *(sock.getsockopt(socket.IPPROTO_TCP, name) for name in names)


@pytest.mark.parametrize("ipv6", [True, False])
def test_what_is_accepted_is_kept_alive_as_its_listener_says(kernel: Kernel, ipv6: bool) -> None:
    pod = kernel.lab.b
    with sockets.listen_in(pod, 0, 1, sockets.Listening(ipv6, KEEPALIVE)) as listener:
        client = kernel.connect(pod, "127.0.0.1", listener.getsockname()[1])
        listener.setblocking(True)
        accepted, _ = listener.accept()
        assert keepalive_of(accepted) == (1, *KEEPALIVE)
        assert keepalive_of(client)[0] == 0
        accepted.close()


@pytest.mark.parametrize("host", ["10.77.0.3", "fd77::3"])
def test_both_ends_of_a_connection_are_listed_with_their_bytes(kernel: Kernel, host) -> None:
    client, server, _ = talk(kernel, host)
    client.sendall(b"x" * 1000)
    assert len(server.recv(2000)) == 1000

    def near() -> LiveSocket | None:
        found = {each.cookie: each for each in sockets.connections(kernel.lab.a)}[sockets.cookie_of(client)]
        return found if found.acked_bytes == 1001 else None

    opened = wait_until(near)
    assert opened is not None
    assert (opened.local, opened.remote) == (local_of(client), local_of(server))
    assert (opened.state, opened.retransmits) == (TcpState.ESTABLISHED, 0)
    assert opened.srtt_us > 0
    served = {each.cookie: each for each in sockets.connections(kernel.lab.b)}[sockets.cookie_of(server)]
    assert (served.received_bytes, served.remote) == (1000, local_of(client))


@pytest.mark.parametrize("host", ["10.77.0.3", "fd77::3"])
def test_a_connection_is_found_by_its_ends_and_nothing_else_is(kernel: Kernel, host) -> None:
    client, server, _ = talk(kernel, host)
    near, far = local_of(client), local_of(server)
    found = sockets.find(kernel.lab.b, far, near)
    assert found is not None
    assert found.cookie == sockets.cookie_of(server)
    assert sockets.find(kernel.lab.b, far, endpoint(host, 1)) is None
    assert sockets.find(kernel.lab.a, far, near) is None


@pytest.mark.parametrize("host", ["10.77.0.3", "fd77::3"])
def test_a_destroyed_connection_ends_at_both_ends_and_its_listener_lives(kernel: Kernel, host) -> None:
    client, server, listener = talk(kernel, host)
    near, far = local_of(client), local_of(server)
    assert sockets.destroy(kernel.lab.b, far, near)
    with pytest.raises(ConnectionAbortedError):
        server.recv(1)
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    assert not sockets.destroy(kernel.lab.b, far, near)
    assert not sockets.destroy(kernel.lab.a, near, far)
    kernel.connect(kernel.lab.a, host, far.port)
    kernel.accept(listener)


@pytest.mark.parametrize("host", ["10.77.0.2", "fd77::2"])
def test_the_syn_of_what_was_accepted_is_told_once_where_it_was_kept(kernel: Kernel, host: str) -> None:
    app = kernel.listen(kernel.lab.a, 8080)
    kernel.connect(kernel.lab.b, host, 8080)
    assert kept_syn(kernel.accept(app)[0]) == b""
    keep_syns(app)
    client = kernel.connect(kernel.lab.b, host, 8080)
    accepted, peer = kernel.accept(app)
    here = local_of(accepted)
    ends = b"".join(each.ip.packed for each in (peer, here)) + struct.pack("!HH", peer.port, here.port)
    assert local_of(client) == peer
    assert [ends_of(kept_syn(accepted)) for _ in range(2)] == [ends, b""]
