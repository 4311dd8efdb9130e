"""connect4, connect6, sockops and getpeername with real sockets: what a pod calls reaches the proxy, or
nobody."""

from __future__ import annotations

import errno
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.kernel.lab import Kernel, Lab, endpoint, local_of, original, shell, wait_until
from ztunnel.kernel import bpf
from ztunnel.kernel.bpf import Map
from ztunnel.kernel.sockets import cookie_of
from ztunnel.redirect.capture import FIRST, PORTS
from ztunnel.redirect.layout import NUMBER

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


def bound(sock: socket.socket) -> socket.socket:
    sock.bind(("10.77.0.2", 0))
    return sock


def on_device(sock: socket.socket) -> socket.socket:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
    return sock


def as_it_is(sock: socket.socket) -> socket.socket:
    return sock


@pytest.mark.parametrize(
    ("socket_host", "called", "asked", "prepare"),
    [
        ("0.0.0.0", "10.96.0.50", "10.96.0.50", as_it_is),
        ("::", "fd00:96::1", "fd00:96::1", as_it_is),
        ("::", "::ffff:10.96.0.51", "10.96.0.51", as_it_is),
        ("0.0.0.0", "10.77.0.3", "10.77.0.3", bound),
        ("0.0.0.0", "10.96.0.52", "10.96.0.52", on_device),
    ],
    ids=["v4", "v6", "v4-mapped", "bound", "on-device"],
)
def test_a_call_of_an_enrolled_pod_reaches_the_proxy_which_recalls_its_destination(
    kernel: Kernel, socket_host, called, asked, prepare
) -> None:
    pod = kernel.enroll("a")
    proxy = kernel.proxy("a")
    client = prepare(kernel.socket(kernel.lab.a, socket_host))
    client.connect((called, 8080))
    _, peer = kernel.accept(proxy)
    recalled = kernel.recall(pod.cookie, peer)
    assert recalled is not None
    assert recalled.destination == original(asked, 8080)
    assert recalled.picked is None
    assert local_of(client) == peer
    assert client.getpeername()[:2] == (called, 8080)
    assert kernel.recall(pod.cookie, peer) is None
    assert kernel.count("connect_captured") == 1


def test_a_non_blocking_call_is_recalled_too(kernel: Kernel) -> None:
    pod = kernel.enroll("a")
    proxy = kernel.proxy("a")
    client = kernel.socket(kernel.lab.a)
    client.setblocking(False)
    assert client.connect_ex(("10.96.0.50", 80)) == errno.EINPROGRESS
    _, peer = kernel.accept(proxy)
    recalled = kernel.recall(pod.cookie, peer)
    assert recalled is not None
    assert recalled.destination == original("10.96.0.50", 80)


def test_a_call_with_tcp_fast_open_is_recalled_too(kernel: Kernel) -> None:
    pod = kernel.enroll("a")
    proxy = kernel.proxy("a")
    client = kernel.socket(kernel.lab.a)
    client.setblocking(True)
    client.sendto(b"hello", socket.MSG_FASTOPEN, ("10.96.0.50", 80))
    accepted, peer = kernel.accept(proxy)
    recalled = kernel.recall(pod.cookie, peer)
    assert recalled is not None
    assert recalled.destination == original("10.96.0.50", 80)
    assert accepted.recv(5) == b"hello"


def test_a_client_that_sends_and_closes_before_the_proxy_accepts_is_still_recalled(kernel: Kernel) -> None:
    pod = kernel.enroll("a")
    proxy = kernel.proxy("a")
    client = kernel.connect(kernel.lab.a, "10.96.0.50", 80)
    client.sendall(b"fire and forget")
    client.close()
    accepted, peer = kernel.accept(proxy)
    assert accepted.recv(99) == b"fire and forget"
    assert accepted.recv(99) == b""
    assert kernel.recall(pod.cookie, peer) is not None


@pytest.mark.parametrize(
    ("own", "hosts"), [("10.77.0.2", ["10.96.0.1", "10.96.0.2"]), ("fd77::2", ["fd00::1"])]
)
def test_a_port_that_the_application_chose_calls_several_destinations(kernel: Kernel, own, hosts) -> None:
    pod = kernel.enroll("a")
    proxy = kernel.proxy("a")
    first = kernel.socket(kernel.lab.a, own)
    first.bind((own, 0))
    places = [(host, port) for host in hosts for port in (80, 81)]
    for place in places:
        client = kernel.socket(kernel.lab.a, own)
        for each in (first, client):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.bind(first.getsockname())
        client.connect(place)
        recalled = kernel.recall(pod.cookie, kernel.accept(proxy)[1])
        assert recalled is not None
        assert recalled.destination == original(*place)


def call_from(kernel: Kernel, own: str, called: tuple[str, int]) -> socket.socket:
    client = kernel.socket(kernel.lab.a, own)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    client.bind((own, 20030))
    client.connect(called)
    return client


@pytest.mark.parametrize(("own", "host"), [("10.77.0.2", "10.96.0.50"), ("fd77::2", "fd00::50")])
def test_destinations_do_not_take_a_chosen_port_from_one_another(kernel: Kernel, own, host) -> None:
    """By their hash alone some of them would meet."""
    kernel.enroll("a")
    proxy = kernel.proxy("a")
    for port in range(1, 251):
        client = call_from(kernel, own, (host, port))
        assert kernel.accept(proxy)[1] == local_of(client)


@pytest.mark.parametrize(("own", "host"), [("10.77.0.2", "10.96.0.50"), ("fd77::2", "fd00::50")])
@pytest.mark.parametrize("ended", ["close", "shutdown"])
def test_a_chosen_port_may_be_used_again_before_the_end_has_come_back(
    kernel: Kernel, own, host, ended
) -> None:
    pod = kernel.enroll("a")
    proxy = kernel.proxy("a")
    first = call_from(kernel, own, (host, 80))
    server, _ = kernel.accept(proxy)
    with pytest.raises(OSError, match="Cannot assign requested address"):
        call_from(kernel, own, (host, 80))
    first.close() if ended == "close" else first.shutdown(socket.SHUT_WR)
    assert server.recv(1) == b""
    call_from(kernel, own, (host, 80))
    _, peer = kernel.accept(proxy)
    recalled = kernel.recall(pod.cookie, peer)
    assert recalled is not None
    assert recalled.destination == original(host, 80)


def test_calls_to_one_destination_go_to_a_few_ports_of_ours_alone(kernel: Kernel) -> None:
    """As many as leave most ports of each free at 1,000 calls a second, each of which keeps its own for a
    minute: the kernel tries one after the other."""
    kernel.enroll("a")
    proxy = kernel.proxy("a")
    found = set()
    for _ in range(64):
        kernel.connect(kernel.lab.a, "10.96.0.50", 80)
        found.add(local_of(kernel.accept(proxy)[0]).port)
    assert 8 < len(found) <= 16
    assert found <= set(range(FIRST, FIRST + PORTS))


@pytest.mark.parametrize("own", ["10.77.0.2", "fd77::2"])
def test_a_process_on_a_port_that_captured_calls_go_to_is_not_disturbed(kernel: Kernel, own) -> None:
    pod = kernel.enroll("a")
    proxy = kernel.proxy("a")
    first = kernel.socket(kernel.lab.a, own)
    first.bind((own, 0))
    first.connect(("10.96.0.50" if "." in own else "fd00::50", 80))
    port = local_of(kernel.accept(proxy)[0]).port
    app = kernel.listen(kernel.lab.a, port)
    itself = kernel.connect(kernel.lab.a, own, port)
    assert kernel.accept(app)[1] == local_of(itself)
    again = kernel.connect(kernel.lab.a, "10.96.0.50" if "." in own else "fd00::50", 80)
    _, peer = kernel.accept(proxy)
    assert peer == local_of(again)
    assert kernel.recall(pod.cookie, peer) is not None


def test_a_self_call_from_the_port_of_a_call_that_nobody_took_is_the_pods_own(kernel: Kernel) -> None:
    pod = kernel.enroll("a")
    proxy = kernel.proxy("a")
    client = kernel.socket(kernel.lab.a)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # no TIME_WAIT
    client.bind(("10.77.0.2", 0))
    own = client.getsockname()
    client.connect(("10.96.0.50", 80))
    accepted, peer = kernel.accept(proxy)
    port = local_of(accepted).port
    client.close()
    accepted.close()
    app = kernel.listen(kernel.lab.a, port)
    itself = kernel.socket(kernel.lab.a)
    itself.bind(own)
    itself.connect(("10.77.0.2", port))
    assert kernel.accept(app)[1] == local_of(itself)
    assert kernel.recall(pod.cookie, peer) is None


def test_a_call_from_the_very_port_that_it_would_be_captured_to_goes_to_another(kernel: Kernel) -> None:
    pod = kernel.enroll("a")
    proxy = kernel.proxy("a")
    client = bound(kernel.socket(kernel.lab.a))
    client.connect(("10.96.0.50", 80))
    port = local_of(kernel.accept(proxy)[0]).port
    same = kernel.socket(kernel.lab.a)
    same.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    same.bind(("10.77.0.2", port))
    same.connect(("10.96.0.50", 80))
    accepted, peer = kernel.accept(proxy)
    assert peer == local_of(same) == endpoint("10.77.0.2", port)
    assert local_of(accepted).port != port
    assert kernel.recall(pod.cookie, peer) is not None


def test_a_process_of_the_pod_may_have_any_port_but_that_of_hbone(kernel: Kernel) -> None:
    kernel.enroll("a")
    kernel.proxy("a")
    for port in (15001, 15006):
        app = kernel.listen(kernel.lab.a, port)
        itself = kernel.connect(kernel.lab.a, "10.77.0.2", port)
        assert kernel.accept(app)[1] == local_of(itself)


def test_nobody_reaches_our_listener_by_its_port(kernel: Kernel) -> None:
    kernel.enroll("a")
    port = kernel.proxy("a").getsockname()[1]
    for host in ("10.77.0.2", "127.0.0.1", "::1", "fd77::2"):
        with pytest.raises(ConnectionRefusedError):
            kernel.connect(kernel.lab.a, host, port)


def test_without_a_proxy_a_call_is_refused(kernel: Kernel) -> None:
    pod = kernel.enroll("a")
    kernel.listen(kernel.lab.b, 8080)
    client = bound(kernel.socket(kernel.lab.a))
    with pytest.raises(ConnectionRefusedError):
        client.connect(("10.77.0.3", 8080))
    assert kernel.recall(pod.cookie, local_of(client)) is None


def test_loopback_and_the_pods_own_addresses_are_left_alone(kernel: Kernel) -> None:
    kernel.enroll("a")
    port = kernel.listen(kernel.lab.a).getsockname()[1]
    for host in (
        "127.0.0.1",
        "127.9.9.9",
        "0.0.0.0",
        "10.77.0.2",
        "::1",
        "::",
        "fd77::2",
        "::ffff:127.0.0.1",
    ):
        client = kernel.connect(kernel.lab.a, host, port)
        assert client.getpeername()[1] == port, host
    assert kernel.count("connect_captured") == 0
    assert kernel.count("connect_loopback") == 6
    assert kernel.count("connect_own_address") == 2


def test_a_pod_that_is_not_enrolled_is_left_alone(kernel: Kernel) -> None:
    app = kernel.listen(kernel.lab.b, 8080)
    kernel.enroll("a")
    kernel.redirection.withdraw(kernel.lab.pod("a"))
    kernel.connect(kernel.lab.a, "10.77.0.3", 8080)
    assert kernel.accept(app)[1].ip == kernel.lab.pod("a").ipv4
    assert kernel.redirection.enrolled() == {}


def test_a_call_in_a_family_that_the_pod_has_not_is_refused(kernel: Kernel) -> None:
    kernel.listen(kernel.lab.b, 8080)
    pod = kernel.lab.pod("a")
    kernel.redirection.enroll(replace(pod, ipv6=None))
    with pytest.raises(OSError, match="unreachable"):
        kernel.connect(kernel.lab.a, "fd77::3", 8080)
    kernel.redirection.enroll(replace(pod, ipv4=None))
    for host in ("10.77.0.3", "::ffff:10.77.0.3"):
        with pytest.raises(OSError, match="unreachable"):
            kernel.connect(kernel.lab.a, host, 8080)
    assert (kernel.count("connect_no_ipv6"), kernel.count("connect_no_ipv4")) == (1, 2)


def test_the_proxys_own_calls_are_exempt_by_its_cgroup(kernel: Kernel) -> None:
    app = kernel.listen(kernel.lab.b, 8080)
    kernel.enroll("a")
    with kernel.lab.in_cgroup("proxy"):
        client = kernel.connect(kernel.lab.a, "10.77.0.3", 8080)
    assert kernel.accept(app)[1] == local_of(client)
    assert kernel.count("connect_own") == 1


CALL_WITH_A_MARK = """
import socket, sys
sock = socket.socket()
sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, int(sys.argv[1]))
sock.settimeout(3)
sock.connect(("10.77.0.3", 8080))
"""


@pytest.mark.parametrize("mark", [0x539, 0x111])
def test_no_mark_exempts_a_process_that_may_set_marks(kernel: Kernel, mark: int) -> None:
    pod = kernel.enroll("a")
    kernel.enroll("b")
    app = kernel.listen(kernel.lab.b, 8080)
    proxy = kernel.proxy("a")
    only_net_raw = "-all,+net_raw"
    caps = [f"--{each}={only_net_raw}" for each in ("inh-caps", "ambient-caps", "bounding-set")]
    user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", *caps]
    with kernel.lab.a.entered():
        subprocess.run([*user, "/usr/bin/python3", "-c", CALL_WITH_A_MARK, str(mark)], check=True)
    _, peer = kernel.accept(proxy)
    assert kernel.recall(pod.cookie, peer) is not None
    app.settimeout(0)
    with pytest.raises(BlockingIOError):
        app.accept()


def test_other_protocols_are_left_alone_and_counted(kernel: Kernel) -> None:
    kernel.enroll("a")
    server = kernel.socket(kernel.lab.b, kind=socket.SOCK_DGRAM)
    server.bind(("10.77.0.3", 0))
    client = kernel.socket(kernel.lab.a, kind=socket.SOCK_DGRAM)
    client.connect(server.getsockname())
    client.send(b"hello")
    assert server.recv(9) == b"hello"
    assert kernel.count("connect_not_tcp") == 1


def test_an_mptcp_socket_is_captured(kernel: Kernel) -> None:
    pod = kernel.enroll("a")
    proxy = kernel.proxy("a")
    try:
        client = kernel.keep(kernel.lab.a.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP))
    except OSError as error:
        pytest.skip(f"the kernel has no MPTCP: {error}")
    client.settimeout(3)
    client.connect(("10.77.0.3", 8080))
    _, peer = kernel.accept(proxy)
    recalled = kernel.recall(pod.cookie, peer)
    assert recalled is not None
    assert recalled.destination == original("10.77.0.3", 8080)


def test_two_nodes_on_one_kernel_do_not_see_each_others_pods(kernel: Kernel) -> None:
    app = kernel.listen(kernel.lab.b, 8080)
    proxy = kernel.proxy("a")
    with Kernel(kernel.lab) as other:
        first, second = kernel.enroll("a"), other.enroll("b")
        client = kernel.connect(kernel.lab.a, "10.96.0.50", 80)
        accepted, peer = kernel.accept(proxy)
        for cookie in (first.cookie, second.cookie):
            assert other.redirection.original_destination(cookie, peer, local_of(accepted).port) is None
        assert client.getpeername() == ("10.96.0.50", 80)
        assert kernel.recall(first.cookie, peer) is not None
        assert other.count("connect_captured") == 0
    assert app.fileno() >= 0


def test_a_call_that_fails_before_its_syn_leaves_nothing_behind(kernel: Kernel) -> None:
    kernel.enroll("a")
    kernel.proxy("a")
    first, second = kernel.socket(kernel.lab.a), kernel.socket(kernel.lab.a)
    for client in (first, second):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    first.bind(("10.77.0.2", 0))
    second.bind(first.getsockname())
    first.connect(("10.96.0.50", 80))
    with pytest.raises(OSError, match="Cannot assign requested address"):
        second.connect(("10.96.0.50", 80))
    with Map(bpf.open_pinned(kernel.settings.pins / "maps/intents")) as intents:
        assert intents.get(NUMBER.pack(cookie_of(second))) is not None
        second.close()
        assert list(intents) == [NUMBER.pack(cookie_of(first))]


@pytest.fixture
def second_interface(lab: Lab) -> Iterator[None]:
    """A link between both pods that the mesh does not use, on which each has addresses."""
    a, b = lab.names["a"], lab.names["b"]
    shell(a, f"ip link add net1 type veth peer name net1 netns {b}")
    for name, number in ((a, 2), (b, 3)):
        shell(name, f"ip addr add 10.79.0.{number}/24 dev net1; ip addr add fd79::{number}/64 dev net1 nodad")
        shell(name, "ip link set net1 up")
    yield
    shell(a, "ip link del net1")


def bound_to(kernel: Kernel, interface: str, host: str) -> socket.socket:
    sock = kernel.socket(kernel.lab.a, host)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
    return sock


@pytest.mark.parametrize("host", ["10.77.0.3", "fd77::3", "::ffff:10.77.0.3"])
def test_a_call_by_the_interface_of_the_pods_own_addresses_is_captured(kernel: Kernel, host) -> None:
    kernel.enroll("a")
    proxy = kernel.proxy("a")
    client = bound_to(kernel, "eth0", host)
    client.connect((host, 80))
    server, peer = kernel.accept(proxy)
    assert peer == local_of(client)
    client.sendall(b"up")
    server.sendall(b"down")
    assert (server.recv(9), client.recv(9)) == (b"up", b"down")


@pytest.mark.parametrize("lease", [True, False])
@pytest.mark.parametrize("host", ["10.79.0.3", "fd79::3", "::ffff:10.79.0.3"])
def test_a_call_by_an_interface_that_the_mesh_does_not_use_goes_by_it_and_is_reported(
    kernel: Kernel, second_interface, host, lease
) -> None:
    kernel.enroll("a")
    kernel.redirection.addresses.tell([endpoint("10.79.0.3", 0).ip, endpoint("fd79::3", 0).ip])
    if lease:
        kernel.redirection.renew_lease(time.monotonic_ns())
    app = kernel.listen(kernel.lab.b, 8080)
    client = bound_to(kernel, "net1", host)
    client.connect((host, 8080))
    _, peer = kernel.accept(app)
    assert peer == local_of(client)
    assert str(peer.ip) in ("10.79.0.2", "fd79::2")
    (opened,) = wait_until(kernel.redirection.outside_records)
    assert (opened.destination, opened.established) == (endpoint(host, 8080), True)
    assert (kernel.count("connect_interface"), kernel.count("connect_captured")) == (1, 0)


@pytest.mark.parametrize("host", ["10.77.0.3", "fd77::3", "198.51.100.7"])
@pytest.mark.parametrize("interface", ["lo", "net1"])
def test_a_call_by_an_interface_that_leads_nowhere_ends_as_without_a_mesh(
    kernel: Kernel, second_interface, host, interface
) -> None:
    before = bound_to(kernel, interface, host)
    before.settimeout(0.5)
    with pytest.raises(OSError) as expected:  # noqa: PT011 (whatever the kernel says)
        before.connect((host, 8080))
    kernel.enroll("a")
    kernel.proxy("a")
    after = bound_to(kernel, interface, host)
    after.settimeout(0.5)
    with pytest.raises(type(expected.value)) as found:
        after.connect((host, 8080))
    assert found.value.errno == expected.value.errno
    assert kernel.count("connect_captured") == 0


def test_a_pod_that_is_not_in_the_mesh_yet_calls_by_no_interface(kernel: Kernel, second_interface) -> None:
    kernel.redirection.refuse(kernel.lab.pod("a"))
    kernel.listen(kernel.lab.b, 8080)
    with pytest.raises(ConnectionRefusedError):
        bound_to(kernel, "net1", "10.79.0.3").connect(("10.79.0.3", 8080))
