"""Calls to addresses that are not the mesh's, with real sockets: left alone, reported from connect to end."""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Iterator

import pytest

from tests.kernel.lab import Kernel, Lab, endpoint, local_of, original, shell, wait_until
from ztunnel.model.address import Endpoint
from ztunnel.redirect.outside import OutsideCall
from ztunnel.redirect.records import RecordEvent

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

B, B6, UNKNOWN = "10.77.0.3", "fd77::3", "192.0.2.1"
OPENED, ENDED = RecordEvent.OPENED, RecordEvent.ENDED


class Caller:
    """Pod a, enrolled, its proxy listening; pod b is not in the mesh. The lease is fresh, and all addresses
    of the mesh are known: there are none."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.redirection = kernel.redirection
        self.a = kernel.enroll("a")
        self.proxy = kernel.proxy("a")
        self.redirection.addresses.known(True)
        self.redirection.renew_lease(time.monotonic_ns())

    def records(self, count: int) -> list[OutsideCall]:
        """The next `count` reports, and no more."""
        found: list[OutsideCall] = []

        def complete() -> bool:
            found.extend(self.redirection.outside_records())
            return len(found) >= count

        wait_until(complete)
        assert len(found) == count, found
        return found

    def failed(self, host: str, port: int, **options: int) -> OutsideCall:
        """The report of a call that does not stand."""
        sock = self.kernel.socket(self.a.netns, host)
        for name, value in options.items():
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        assert sock.connect_ex((host, port)) != 0
        sock.close()
        [record] = self.records(1)
        assert (record.event, record.established) == (ENDED, False)
        assert (record.sent_bytes, record.received_bytes) == (0, 0)
        assert record.destination == endpoint(host, port)
        return record


@pytest.fixture
def caller(kernel: Kernel) -> Caller:
    return Caller(kernel)


@pytest.fixture
def unreachable(lab: Lab) -> Iterator[str]:
    shell(lab.names["a"], f"ip route add unreachable {UNKNOWN}/32")
    yield UNKNOWN
    shell(lab.names["a"], f"ip route del unreachable {UNKNOWN}/32")


@pytest.fixture
def silent(lab: Lab) -> Iterator[str]:
    """A host that answers no SYN."""
    shell(
        lab.names["a"],
        "ip route add 192.0.2.2/32 dev eth0; ip neigh add 192.0.2.2 lladdr 02:00:00:00:00:01 dev eth0",
    )
    yield "192.0.2.2"
    shell(lab.names["a"], "ip neigh del 192.0.2.2 dev eth0; ip route del 192.0.2.2/32 dev eth0")


@pytest.mark.parametrize("host", [B, B6, f"::ffff:{B}"], ids=["v4", "v6", "mapped"])
def test_it_goes_as_the_application_made_it(caller: Caller, host: str) -> None:
    app = caller.kernel.listen(caller.kernel.lab.b, 8080)
    client = caller.kernel.socket(caller.a.netns, host)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
    client.bind(({B6: "fd77::2", B: "10.77.0.2"}.get(host, "::ffff:10.77.0.2"), 700))
    client.connect((host, 8080))
    _, peer = caller.kernel.accept(app)
    assert peer == local_of(client)
    assert peer.port == 700
    assert client.getpeername()[:2] == (host, 8080)
    assert caller.kernel.count("connect_outside") == 1
    assert caller.kernel.count("connect_captured") == 0


def without_a_lease(caller: Caller) -> None:
    caller.redirection.end_lease()


def while_not_all_is_known(caller: Caller) -> None:
    caller.redirection.addresses.known(False)


def to_an_address_of_the_mesh(caller: Caller) -> None:
    caller.redirection.addresses.tell([endpoint(B, 0).ip, endpoint(B6, 0).ip])


@pytest.mark.parametrize("host", [B, B6, f"::ffff:{B}"], ids=["v4", "v6", "mapped"])
@pytest.mark.parametrize(
    "change",
    [without_a_lease, while_not_all_is_known, to_an_address_of_the_mesh],
    ids=lambda it: it.__name__,
)
def test_it_is_captured(caller: Caller, change, host: str) -> None:
    change(caller)
    client = caller.kernel.connect(caller.a.netns, host, 8080)
    assert caller.kernel.accept(caller.proxy)[1] == local_of(client)
    caller.proxy.close()  # fail closed: nobody is there
    with pytest.raises(ConnectionRefusedError):
        caller.kernel.connect(caller.a.netns, host, 8080)
    assert caller.kernel.count("connect_outside") == 0


@pytest.mark.parametrize("host", [B, B6, f"::ffff:{B}"], ids=["v4", "v6", "mapped"])
def test_while_the_proxy_stands_still_it_is_refused(caller: Caller, host: str) -> None:
    app = caller.kernel.listen(caller.kernel.lab.b, 8080)
    caller.redirection.renew_lease(time.monotonic_ns() - 2_100_000_000)
    with pytest.raises(ConnectionRefusedError):
        caller.kernel.connect(caller.a.netns, host, 8080)
    assert caller.kernel.count("connect_outside") == 0
    caller.redirection.renew_lease(time.monotonic_ns())
    caller.kernel.connect(caller.a.netns, host, 8080)
    caller.kernel.accept(app)


def test_an_address_that_leaves_the_mesh_counts_for_the_next_call(caller: Caller) -> None:
    to_an_address_of_the_mesh(caller)
    caller.redirection.addresses.tell([], [endpoint(B, 0).ip])
    app = caller.kernel.listen(caller.kernel.lab.b, 8080)
    caller.kernel.connect(caller.a.netns, B, 8080)
    caller.kernel.accept(app)
    caller.kernel.connect(caller.a.netns, B6, 8080)
    caller.kernel.accept(caller.proxy)


def test_after_a_restart_nothing_is_known(caller: Caller) -> None:
    to_an_address_of_the_mesh(caller)
    caller.redirection.addresses.forget()
    caller.kernel.connect(caller.a.netns, B, 8080)
    caller.kernel.accept(caller.proxy)
    caller.redirection.addresses.known(True)
    app = caller.kernel.listen(caller.kernel.lab.b, 8080)
    caller.kernel.connect(caller.a.netns, B, 8080)
    caller.kernel.accept(app)


def test_a_mesh_that_is_too_large_is_said(lab: Lab) -> None:
    with Kernel(lab, max_addresses=8) as kernel:
        assert kernel.redirection.addresses.limit == 8
        fitting = [endpoint(f"10.1.0.{number}", 0).ip for number in range(8)]
        kernel.redirection.addresses.tell(fitting)
        with pytest.raises(OSError, match="Argument list too long"):
            kernel.redirection.addresses.tell([endpoint("10.1.0.9", 0).ip])
        kernel.redirection.addresses.tell([], fitting[:1])
        kernel.redirection.addresses.tell([endpoint("10.1.0.9", 0).ip])


# --- what is reported

ORDERS = ("client first", "server first", "client shuts and reads", "client resets", "server resets")


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def finish(order: str, client: socket.socket, server: socket.socket) -> None:
    if order == "client first":
        client.close()
        assert server.recv(1) == b""
        server.close()
    elif order == "server first":
        server.close()
        assert client.recv(1) == b""
        client.close()
    elif order == "client shuts and reads":
        client.shutdown(socket.SHUT_WR)
        assert server.recv(1) == b""
        server.close()
        assert client.recv(1) == b""
        client.close()
    elif order == "client resets":
        reset(client)
    else:
        reset(server)
        with pytest.raises(ConnectionResetError):
            client.recv(1)


@pytest.mark.parametrize("host", [B, B6], ids=["v4", "v6"])
@pytest.mark.parametrize("order", ORDERS)
def test_its_opening_and_its_end_are_reported_with_its_bytes(caller: Caller, order: str, host: str) -> None:
    app = caller.kernel.listen(caller.kernel.lab.b, 8080)
    client = caller.kernel.connect(caller.a.netns, host, 8080)
    flow = local_of(client), endpoint(host, 8080)
    server, _ = caller.kernel.accept(app)
    [opened] = caller.records(1)
    assert caller.redirection.is_outside(opened.socket)
    [live] = caller.redirection.outside_calls()
    client.sendall(b"x" * 1000)
    assert len(server.recv(1000, socket.MSG_WAITALL)) == 1000
    server.sendall(b"y" * 5000)
    assert len(client.recv(5000, socket.MSG_WAITALL)) == 5000
    finish(order, client, server)
    [ended] = caller.records(1)
    for record in (opened, live, ended):
        assert (record.source, record.destination) == flow
        assert (record.cookie, record.socket) == (caller.a.cookie, opened.socket)
        assert record.established
    assert (opened.event, opened.sent_bytes, opened.received_bytes) == (OPENED, 0, 0)
    assert (ended.event, ended.sent_bytes, ended.received_bytes) == (ENDED, 1000, 5000)
    assert ended.exact
    assert ended.since_ns == opened.since_ns < opened.time_ns < ended.time_ns
    assert caller.redirection.outside_calls() == []


def test_a_refused_call_says_so(caller: Caller) -> None:
    record = caller.failed(B, 9)
    assert (record.error, record.exact) == (errno.ECONNREFUSED, True)
    assert record.source is not None
    assert record.source.ip == caller.a.ipv4
    assert caller.failed(B6, 9).error == errno.ECONNREFUSED


def test_a_router_that_knows_no_way_is_the_reason(caller: Caller) -> None:
    shell(caller.kernel.lab.names["n"], "ip -6 route add unreachable 2001:db8::/32")
    try:
        assert caller.failed("2001:db8::1", 80).error in (errno.EHOSTUNREACH, errno.ENETUNREACH)
    finally:
        shell(caller.kernel.lab.names["n"], "ip -6 route del unreachable 2001:db8::/32")


def test_a_call_that_is_not_answered_has_timed_out(caller: Caller, silent: str) -> None:
    assert caller.failed(silent, 80, TCP_USER_TIMEOUT=100).error == errno.ETIMEDOUT


def test_a_call_that_the_application_gives_up_has_no_error(caller: Caller, silent: str) -> None:
    sock = caller.kernel.socket(caller.a.netns)
    sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        sock.connect((silent, 80))
    sock.close()
    [record] = caller.records(1)
    assert (record.event, record.established, record.error, record.exact) == (ENDED, False, 0, True)
    assert record.source is not None


def test_a_call_without_a_route_is_reported_when_its_socket_goes(caller: Caller, unreachable: str) -> None:
    record = caller.failed(unreachable, 80)
    assert record.source is None
    assert record.cookie == caller.a.cookie


def test_a_socket_that_fails_at_once_may_be_connected_again(caller: Caller, unreachable: str) -> None:
    app = caller.kernel.listen(caller.kernel.lab.b, 8080)
    sock = caller.kernel.socket(caller.a.netns)
    assert sock.connect_ex((unreachable, 80)) == errno.EHOSTUNREACH
    sock.connect((B, 8080))
    caller.kernel.accept(app)
    failed, opened = caller.records(2)
    assert (failed.source, failed.destination) == (None, endpoint(unreachable, 80))
    assert (opened.event, opened.destination) == (OPENED, endpoint(B, 8080))
    assert failed.socket == opened.socket


def test_a_socket_that_is_captured_next_leaves_nothing_behind(caller: Caller, unreachable: str) -> None:
    sock = caller.kernel.socket(caller.a.netns)
    assert sock.connect_ex((unreachable, 80)) == errno.EHOSTUNREACH
    to_an_address_of_the_mesh(caller)
    sock.connect((B, 8080))
    _, peer = caller.kernel.accept(caller.proxy)
    recalled = caller.kernel.recall(caller.a.cookie, peer)
    assert recalled is not None
    assert recalled.destination == original(B, 8080)
    assert caller.redirection.outside_calls() == []


def test_reports_that_find_no_room_are_counted_and_drown_nobody_elses(
    caller: Caller, unreachable: str
) -> None:
    room = (2 << 20) // (96 + 8)
    to = Endpoint(endpoint(unreachable, 0).ip, 80)
    for _ in range(room + 10):
        with caller.a.netns.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            assert sock.connect_ex((str(to.ip), to.port)) == errno.EHOSTUNREACH
    assert caller.kernel.count("outside_lost") == 10
    assert caller.kernel.count("record_lost") == 0
    assert len(caller.redirection.outside_records(100)) == 100
