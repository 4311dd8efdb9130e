"""Calls that wait: connect() returns what the far end said, once the proxy has sent the SYN on."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator

import pytest

from tests.kernel.lab import Kernel, local_of, original, wait_until
from ztunnel.kernel.bpf import Map
from ztunnel.kernel.inject import Injector
from ztunnel.model.address import Endpoint
from ztunnel.redirect.held import HeldCall
from ztunnel.redirect.syn import answer, whole

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

ASKED = {"10.77.0.2": ("10.96.0.50", 80), "fd77::2": ("fd00:96::50", 80)}
OWN = pytest.mark.parametrize("own", ASKED)


class Holder:
    """The proxy in pod a: it is told of each call, and sends packets there."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.pod = kernel.enroll("a")
        self.listener = kernel.proxy("a")
        self.injector = Injector(self.pod.netns)
        self.hold()

    def hold(self) -> None:
        self.kernel.redirection.renew_lease(time.monotonic_ns())
        self.kernel.redirection.held.hold(time.monotonic_ns())

    def told(self) -> HeldCall:
        [held] = wait_until(lambda: self.kernel.redirection.held.pull(9))
        return held

    def call(self, own: str, place: tuple[str, int] | None = None) -> socket.socket:
        client = self.kernel.socket(self.pod.netns, own)
        client.setblocking(False)
        assert client.connect_ex(place or ASKED[own]) == errno.EINPROGRESS
        return client

    def send(self, held: HeldCall, packet: bytes) -> None:
        with self.kernel.lab.in_cgroup("proxy"):
            self.injector.send(packet, str(held.peer.ip))


@pytest.fixture
def holder(kernel: Kernel) -> Iterator[Holder]:
    made = Holder(kernel)
    yield made
    made.injector.close()


def end_of(held: HeldCall) -> Endpoint:
    return Endpoint(held.peer.ip, held.peer.port)


def outcome(client: socket.socket) -> int | None:
    """The errno of a connect, 0 for success; None while it waits."""
    if not select.select([], [client], [], 0)[1]:
        return None
    return client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def is_known(kernel: Kernel, caller: bytes) -> bool:
    """Whether the kernel knows where that call goes."""
    with Map(os.dup(kernel.redirection.map_descriptors["callers"])) as callers:
        return callers.get(caller) is not None


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


@OWN
def test_a_call_waits_until_its_syn_is_sent_on(holder: Holder, own: str) -> None:
    kernel, place = holder.kernel, ASKED[own]
    client = holder.call(own)
    held = holder.told()
    assert (held.cookie, end_of(held), held.gave_up) == (holder.pod.cookie, local_of(client), False)
    recalled = kernel.redirection.held.destination(held)
    assert (recalled.destination, recalled.picked) == (original(*place), None)
    assert outcome(client) is None
    holder.send(held, whole(held.syn))
    accepted, peer = kernel.accept(holder.listener)
    assert peer == end_of(held)
    assert outcome(client) == 0
    client.setblocking(True)
    client.sendall(b"up")
    accepted.sendall(b"down")
    assert (accepted.recv(9), client.recv(9)) == (b"up", b"down")
    assert client.getpeername()[:2] == place
    assert kernel.recall(holder.pod.cookie, peer) == recalled
    client.close()
    accepted.close()
    assert kernel.redirection.held.pull(9) == []
    assert kernel.count("call_held") == 1


@OWN
@pytest.mark.parametrize("close", [socket.socket.close, reset])
def test_where_a_call_goes_is_known_as_long_as_it_lives(
    holder: Holder, own: str, close: Callable[[socket.socket], None]
) -> None:
    client = holder.call(own)
    held = holder.told()
    holder.send(held, whole(held.syn))
    accepted, _ = holder.kernel.accept(holder.listener)
    assert is_known(holder.kernel, held.caller)
    close(client)
    accepted.close()
    wait_until(lambda: not is_known(holder.kernel, held.caller))


def test_where_a_call_goes_that_did_not_wait_is_known_until_it_is_asked(holder: Holder) -> None:
    """However long its application has been gone by then."""
    kernel = holder.kernel
    kernel.redirection.held.hold(0)
    client = kernel.connect(holder.pod.netns, *ASKED["10.77.0.2"])
    _, peer = kernel.accept(holder.listener)
    reset(client)
    assert kernel.recall(holder.pod.cookie, peer) is not None


@OWN
@pytest.mark.parametrize("error", [errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH])
def test_a_call_fails_with_what_it_is_answered(holder: Holder, own: str, error: int) -> None:
    client = holder.call(own)
    held = holder.told()
    holder.send(held, answer(held.syn, error))
    assert outcome(client) == error
    client.close()
    assert holder.told().gave_up


@OWN
def test_a_blocking_connect_fails_so_too(holder: Holder, own: str) -> None:
    """Another error than these is a refusal."""
    client = holder.call(own)
    held = holder.told()
    holder.send(held, answer(held.syn, errno.ETIMEDOUT))
    assert outcome(client) == errno.ECONNREFUSED


@OWN
def test_a_call_that_waits_while_its_pod_leaves_is_let_in(holder: Holder, own: str) -> None:
    """Told before or not, and held by then."""
    kernel = holder.kernel
    client = holder.call(own)
    kernel.redirection.leave(holder.pod)
    held = holder.told()
    assert kernel.redirection.held.destination(held).destination == original(*ASKED[own])
    holder.send(held, whole(held.syn))
    assert kernel.accept(holder.listener)[1] == end_of(held)
    assert outcome(client) == 0


@OWN
def test_what_a_pod_calls_once_it_leaves_is_its_own(holder: Holder, own: str) -> None:
    kernel = holder.kernel
    kernel.redirection.leave(holder.pod)
    there = kernel.listen(kernel.lab.b)
    host = "10.77.0.3" if "." in own else "fd77::3"
    kernel.connect(holder.pod.netns, host, there.getsockname()[1])
    kernel.accept(there)
    assert (kernel.count("call_held"), kernel.count("connect_stranger")) == (0, 1)


@OWN
def test_an_application_that_waits_no_longer_is_told_of(holder: Holder, own: str) -> None:
    client = holder.call(own)
    held = holder.told()
    client.close()
    gone = holder.told()
    assert (gone.gave_up, gone.caller, gone.cookie) == (True, held.caller, held.cookie)
    holder.listener.setblocking(False)
    holder.send(held, whole(held.syn))
    with pytest.raises(BlockingIOError):
        holder.listener.accept()


def test_a_syn_that_is_sent_again_waits_as_well_and_is_told_of_once(holder: Holder) -> None:
    client = holder.call("10.77.0.2")
    held = holder.told()
    deadline = time.monotonic() + 1.5
    while time.monotonic() < deadline:
        holder.kernel.redirection.renew_lease(time.monotonic_ns())
        assert holder.kernel.redirection.held.pull(9) == []
        select.select([], [client], [], 0.1)
    assert outcome(client) is None
    holder.send(held, whole(held.syn))
    assert holder.kernel.accept(holder.listener)[1] == end_of(held)


def test_a_successor_is_told_of_what_still_waits(holder: Holder) -> None:
    client = holder.call("10.77.0.2")
    first = holder.told()
    holder.hold()
    again = holder.told()
    assert again.caller == first.caller
    holder.send(again, whole(again.syn))
    assert holder.kernel.accept(holder.listener)[1] == local_of(client)


@OWN
def test_a_proxy_that_stands_still_refuses(holder: Holder, own: str) -> None:
    """Its listener is there, and would take the call without an end."""
    holder.kernel.redirection.renew_lease(1)
    client = holder.call(own)
    assert outcome(client) == errno.ECONNREFUSED
    assert holder.kernel.count("outbound_stale") == 1


def test_a_call_that_waits_while_the_proxy_stops_is_refused_in_bounded_time(holder: Holder) -> None:
    client = holder.call("10.77.0.2")
    holder.told()
    holder.kernel.redirection.renew_lease(1)
    assert wait_until(lambda: outcome(client)) == errno.ECONNREFUSED


@OWN
def test_a_proxy_that_is_dead_refuses_at_once(holder: Holder, own: str) -> None:
    holder.listener.close()
    assert outcome(holder.call(own)) == errno.ECONNREFUSED


def test_data_with_the_syn_does_not_wait(holder: Holder) -> None:
    kernel = holder.kernel
    client = kernel.socket(holder.pod.netns)
    holder.pod.netns.write_sysctl("net.ipv4.tcp_fastopen", "1543")
    try:
        client.setblocking(True)
        client.sendto(b"hello", socket.MSG_FASTOPEN, ("10.96.0.50", 80))
        accepted, peer = kernel.accept(holder.listener)
        assert accepted.recv(5) == b"hello"
        assert kernel.recall(holder.pod.cookie, peer) is not None
    finally:
        holder.pod.netns.write_sysctl("net.ipv4.tcp_fastopen", "1")


def test_other_calls_do_not_wait(holder: Holder) -> None:
    kernel = holder.kernel
    app = kernel.listen(holder.pod.netns, 8080)
    outside = kernel.listen(kernel.lab.x, 8080)
    for host in ("10.77.0.2", "127.0.0.1", "::1", "fd77::2"):
        kernel.connect(holder.pod.netns, host, 8080)
        kernel.accept(app)
    with kernel.lab.in_cgroup("proxy"):
        kernel.connect(holder.pod.netns, "10.78.0.2", 8080)
    kernel.accept(outside)
    kernel.connect(kernel.lab.b, "10.78.0.2", 8080)
    kernel.accept(outside)
    assert kernel.count("call_held") == 0


def test_a_socket_that_is_bound_to_a_device_or_port_waits_too(holder: Holder) -> None:
    kernel = holder.kernel
    for prepare in (
        lambda sock: sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0"),
        lambda sock: sock.bind(("10.77.0.2", 0)),
    ):
        for error in (0, errno.EHOSTUNREACH, errno.ECONNREFUSED):
            client = kernel.socket(holder.pod.netns)
            prepare(client)
            client.setblocking(False)
            client.connect_ex(("10.96.0.50", 80))
            held = holder.told()
            holder.send(held, answer(held.syn, error) if error else whole(held.syn))
            assert outcome(client) == error
            if not error:
                assert kernel.accept(holder.listener)[1] == end_of(held)
            client.close()
            kernel.redirection.held.pull(9)
