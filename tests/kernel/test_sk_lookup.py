"""sk_lookup and the node's sockops with real sockets: who reaches an enrolled pod unproxied, and who does
not."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest

from tests.kernel.lab import Kernel, endpoint, local_of, shell, wait_until
from ztunnel.kernel import bpf, sockets
from ztunnel.kernel.bpf import Map
from ztunnel.kernel.dial import Source, connect_from, dial_socket, spoof
from ztunnel.model.address import Endpoint
from ztunnel.pods.prepare import Preparation
from ztunnel.redirect.capture import LISTENER_PORTS
from ztunnel.redirect.enroll import PodNetwork
from ztunnel.redirect.exempt import CgroupBranch
from ztunnel.redirect.layout import ADMISSION, QUEUES, AdmissionKind, ListenerKind, push_tuple

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


def enroll_with_listener(kernel: Kernel, which: str = "b") -> tuple[PodNetwork, socket.socket]:
    pod = kernel.enroll(which)
    inbound = kernel.proxy(which, ListenerKind.INBOUND)
    return pod, inbound


def nobody_comes(listener: socket.socket) -> bool:
    listener.setblocking(False)
    try:
        listener.accept()[0].close()
    except BlockingIOError:
        return True
    return False


@pytest.mark.parametrize(
    ("caller", "host"), [("x", "10.77.0.3"), ("a", "10.77.0.3"), ("a", "fd77::3"), ("n", "10.77.0.3")]
)
def test_plaintext_from_outside_reaches_the_proxy_under_the_address_that_was_called(
    kernel: Kernel, caller, host
) -> None:
    app = kernel.listen(kernel.lab.b, 8080)
    _, inbound = enroll_with_listener(kernel)
    for port in (8080, 9999):  # nobody has to listen there
        client = kernel.connect(
            {"x": kernel.lab.x, "a": kernel.lab.a, "n": kernel.lab.node}[caller], host, port
        )
        accepted, peer = kernel.accept(inbound)
        assert local_of(accepted) == endpoint(host, port)
        assert peer == local_of(client)
        client.sendall(b"up")
        accepted.sendall(b"down")
        assert (accepted.recv(9), client.recv(9)) == (b"up", b"down")
    assert nobody_comes(app)
    assert kernel.count("inbound_captured") == 2


def test_a_pod_reaches_itself_by_loopback_and_by_its_own_addresses(kernel: Kernel) -> None:
    pod, _ = enroll_with_listener(kernel)
    app = kernel.listen(pod.netns, 8080)
    for host in ("127.0.0.1", "::1", "10.77.0.3", "fd77::3"):
        client = kernel.connect(pod.netns, host, 8080)
        assert kernel.accept(app)[1] == local_of(client)


def test_a_pod_with_two_addresses_reaches_itself_from_one_to_the_other(kernel: Kernel) -> None:
    pod, _ = enroll_with_listener(kernel)
    second = endpoint("10.77.0.33", 0).ip
    shell(kernel.lab.names["b"], "ip addr add 10.77.0.33/24 dev eth0")
    try:
        kernel.redirection.enroll(replace(pod, addresses=(*pod.addresses, second)))
        app = kernel.listen(pod.netns, 8080)
        client = kernel.socket(pod.netns)
        client.bind(("10.77.0.33", 0))
        client.connect(("10.77.0.3", 8080))
        assert kernel.accept(app)[1] == local_of(client)
    finally:
        shell(kernel.lab.names["b"], "ip addr del 10.77.0.33/24 dev eth0")


def test_hbone_passes_and_the_dns_port_is_closed_to_others(kernel: Kernel) -> None:
    pod, _ = enroll_with_listener(kernel)
    hbone, dns = kernel.listen(pod.netns, 15008), kernel.listen(pod.netns, 15053)
    client = kernel.connect(kernel.lab.a, "10.77.0.3", 15008)
    assert kernel.accept(hbone)[1] == local_of(client)
    with pytest.raises(ConnectionRefusedError):
        kernel.connect(kernel.lab.a, "10.77.0.3", 15053)
    own = kernel.connect(pod.netns, "10.77.0.3", 15053)
    assert kernel.accept(dns)[1] == local_of(own)
    assert kernel.count("inbound_dns") == 1


@pytest.mark.parametrize("host", ["10.77.0.3", "fd77::3"])
def test_who_is_turned_away_is_refused_hbone_alone_until_the_time_is_over(kernel: Kernel, host) -> None:
    pod, inbound = enroll_with_listener(kernel)
    hbone = kernel.listen(pod.netns, 15008)
    client = kernel.connect(kernel.lab.a, host, 15008)
    established, source = kernel.accept(hbone)
    kernel.redirection.turn_away(source.ip, 3600)
    for _ in range(3):
        with pytest.raises(ConnectionRefusedError):
            kernel.connect(kernel.lab.a, host, 15008)
    assert kernel.count("inbound_turned_away") == 3
    client.sendall(b"what stands goes on")
    assert established.recv(99) == b"what stands goes on"
    kernel.connect(kernel.lab.a, host, 8080)
    kernel.accept(inbound)
    kernel.connect(pod.netns, host, 15008)
    assert kernel.accept(hbone)[1].ip != source.ip
    kernel.redirection.turn_away(source.ip, 0)
    kernel.connect(kernel.lab.a, host, 15008)
    assert kernel.accept(hbone)[1].ip == source.ip
    assert kernel.count("inbound_turned_away") == 3


def test_without_a_listener_plaintext_is_refused(kernel: Kernel) -> None:
    pod, inbound = enroll_with_listener(kernel)
    kernel.listen(pod.netns, 8080)
    inbound.close()
    with pytest.raises(ConnectionRefusedError):
        kernel.connect(kernel.lab.a, "10.77.0.3", 8080)
    assert kernel.count("inbound_no_listener") == 1


@pytest.mark.parametrize("host", ["10.77.0.3", "fd77::3"])
def test_while_the_proxy_stands_still_callers_are_refused_instead_of_queued(kernel: Kernel, host) -> None:
    pod, inbound = enroll_with_listener(kernel)
    hbone, app = kernel.listen(pod.netns, 15008), kernel.listen(pod.netns, 8080)
    kernel.redirection.cgroups.node_clients(kernel.lab.node.cookie, [kernel.lab.cgroup_id("kubelet")])
    kernel.redirection.renew_lease(time.monotonic_ns())
    for port, listener in ((8080, inbound), (15008, hbone)):
        kernel.connect(kernel.lab.a, host, port)
        kernel.accept(listener)
    kernel.redirection.renew_lease(time.monotonic_ns() - 3_000_000_000)  # a lease holds for two seconds
    for port in (8080, 15008):
        with pytest.raises(ConnectionRefusedError):
            kernel.connect(kernel.lab.a, host, port)
    assert kernel.count("inbound_lapsed") == 2
    with kernel.lab.in_cgroup("kubelet"):  # the node's probes do not need the proxy
        kernel.connect(kernel.lab.node, host, 8080)
    kernel.accept(app)
    kernel.connect(pod.netns, host, 8080)
    kernel.accept(app)
    kernel.redirection.renew_lease(time.monotonic_ns())
    kernel.connect(kernel.lab.a, host, 8080)
    kernel.accept(inbound)
    kernel.redirection.end_lease()  # a proxy that has only just begun, or drains, does not stand still
    kernel.connect(kernel.lab.a, host, 8080)
    kernel.accept(inbound)


def test_a_slot_is_overwritten_by_the_next_listener(kernel: Kernel) -> None:
    pod, first = enroll_with_listener(kernel)
    second = kernel.proxy("b", ListenerKind.INBOUND)
    assert pod.ipv4
    first.close()
    client = kernel.connect(kernel.lab.a, "10.77.0.3", 8080)
    assert kernel.accept(second)[1] == local_of(client)
    kernel.redirection.no_listener(pod.ipv4, ListenerKind.INBOUND)
    with pytest.raises(ConnectionRefusedError):
        kernel.connect(kernel.lab.a, "10.77.0.3", 8080)


PROXY_CASES = [("10.77.0.3", "10.77.0.2"), ("10.77.0.3", "10.78.0.2"), ("fd77::3", "fd77::2")]


@contextmanager
def spoofing(pod: PodNetwork) -> Iterator[None]:
    """Replies to a client's address come back to the proxy's socket."""
    preparation = Preparation(pod.netns, is_known=True)
    preparation.ensure()
    try:
        yield
    finally:
        preparation.undo()


def call_app(kernel: Kernel, pod: PodNetwork, source: Endpoint, app: Endpoint) -> tuple[socket.socket, int]:
    """The proxy's call of an application, as it comes from a client; and what connect() answered."""
    sock = kernel.keep(dial_socket(pod.netns, app.ip))
    spoof(sock, source.ip)
    called = Source(str(source.ip), (source.port,), pod.netns.ephemeral_ports())
    return sock, connect_from(sock, (str(app.ip), app.port), called)


@pytest.mark.parametrize(("host", "source"), PROXY_CASES)
@pytest.mark.parametrize("port", [41000, 700])
def test_the_proxys_dial_carries_the_clients_address_and_port_to_the_application(
    kernel: Kernel, host, source, port
) -> None:
    pod, inbound = enroll_with_listener(kernel)
    app = kernel.listen(pod.netns, 8080)
    with spoofing(pod), kernel.lab.in_cgroup("proxy"):
        dial, _ = call_app(kernel, pod, endpoint(source, port), endpoint(host, 8080))
        accepted, peer = kernel.accept(app)
        assert peer == endpoint(source, port)
        dial.settimeout(3)
        dial.sendall(b"up")
        accepted.sendall(b"down")
        assert (accepted.recv(9), dial.recv(9)) == (b"up", b"down")
    assert kernel.count("admitted_proxy") == 1
    assert nobody_comes(inbound)


@pytest.mark.parametrize(("host", "source"), PROXY_CASES)
def test_an_admission_is_for_one_connection_and_gone_once_that_stands(kernel: Kernel, host, source) -> None:
    """Else the client itself could come in by it, unjudged, while the proxy's end outlives the
    application's."""
    pod, inbound = enroll_with_listener(kernel)
    app = kernel.listen(pod.netns, 8080)
    client, called = endpoint(source, 41002), endpoint(host, 8080)
    with spoofing(pod):
        with kernel.lab.in_cgroup("proxy"):
            dial, _ = call_app(kernel, pod, client, called)
        accepted, _ = kernel.accept(app)
        assert admitted(kernel) == 0
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_LINGER2, 1)
        accepted.close()
        dial.settimeout(3)
        assert dial.recv(1) == b""
        wait_until(lambda: sockets.find(pod.netns, called, client) is None)
        namespace = kernel.lab.x if source == "10.78.0.2" else kernel.lab.a
        itself = kernel.socket(namespace, host)
        itself.bind((source, 41002))
        itself.connect((host, 8080))
        assert kernel.accept(inbound)[1] == client
    assert nobody_comes(app)


@pytest.mark.parametrize("host", ["10.77.0.3", "fd77::3"])
def test_a_process_of_the_pod_that_is_not_the_proxys_admits_nothing(kernel: Kernel, host) -> None:
    pod, inbound = enroll_with_listener(kernel)
    app = kernel.listen(pod.netns, 8080)
    source = "10.77.0.2" if host == "10.77.0.3" else "fd77::2"
    with spoofing(pod):
        call_app(kernel, pod, endpoint(source, 41004), endpoint(host, 8080))
        kernel.accept(inbound)
    assert nobody_comes(app)
    assert kernel.count("admitted_proxy") == 0


def test_the_proxys_call_from_one_pod_to_another_is_not_admitted_by_itself(kernel: Kernel) -> None:
    """Plain TCP to a pod of the same node is judged there, like anybody's."""
    _, inbound = enroll_with_listener(kernel)
    kernel.enroll("a")
    with kernel.lab.in_cgroup("proxy"):
        client = kernel.connect(kernel.lab.a, "10.77.0.3", 8080)
    assert kernel.accept(inbound)[1] == local_of(client)


def test_the_admission_of_a_dial_that_nobody_takes_is_gone(kernel: Kernel) -> None:
    pod, _ = enroll_with_listener(kernel)
    with spoofing(pod), kernel.lab.in_cgroup("proxy"):
        dial, code = call_app(kernel, pod, endpoint("10.77.0.2", 41006), endpoint("10.77.0.3", 8080))
        assert code == errno.EINPROGRESS
        wait_until(lambda: dial.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED)
    assert kernel.count("admitted_proxy") == 1
    assert admitted(kernel) == 0


def test_a_dismissed_dial_is_captured(kernel: Kernel) -> None:
    _, inbound = enroll_with_listener(kernel)
    with kernel.lab.in_cgroup("proxy"):
        dial = kernel.socket(kernel.lab.a)
        dial.bind(("10.77.0.2", 0))
        kernel.redirection.admit(local_of(dial), endpoint("10.77.0.3", 8080))
        kernel.redirection.dismiss(local_of(dial), endpoint("10.77.0.3", 8080))
        dial.connect(("10.77.0.3", 8080))
    assert kernel.accept(inbound)[1] == local_of(dial)


def test_the_admission_of_a_dial_that_is_refused_is_gone(kernel: Kernel) -> None:
    enroll_with_listener(kernel)
    kernel.enroll("a")
    with kernel.lab.in_cgroup("proxy"):
        dial = kernel.socket(kernel.lab.a)
        dial.bind(("10.77.0.2", 0))
        kernel.redirection.admit(local_of(dial), endpoint("10.77.0.3", 8080))
        with pytest.raises(ConnectionRefusedError):
            dial.connect(("10.77.0.3", 8080))
    assert kernel.count("inbound_admitted") == 1
    wait_until(lambda: admitted(kernel) == 0)


def admitted(kernel: Kernel) -> int:
    with Map(bpf.open_pinned(kernel.settings.pins / "maps/admitted")) as entries:
        return len(list(entries))


# --- clients of the node itself


@pytest.mark.parametrize("host", ["10.77.0.3", "fd77::3", "::ffff:10.77.0.3"])
def test_a_probe_of_the_kubelet_passes(kernel: Kernel, host) -> None:
    pod, _ = enroll_with_listener(kernel)
    app = kernel.listen(pod.netns, 8080)
    kernel.redirection.cgroups.node_clients(kernel.lab.node.cookie, [kernel.lab.cgroup_id("kubelet")])
    with kernel.lab.in_cgroup("kubelet"):
        client = kernel.connect(kernel.lab.node, host, 8080)
    accepted, peer = kernel.accept(app)
    assert peer == local_of(client)
    assert kernel.count("admitted_node") == 1
    client.close()
    accepted.close()
    wait_until(lambda: admitted(kernel) == 0)


def test_another_process_of_the_node_is_captured_unless_all_are_let_in(kernel: Kernel) -> None:
    pod, inbound = enroll_with_listener(kernel)
    app = kernel.listen(pod.netns, 8080)
    node = kernel.lab.node.cookie
    kernel.redirection.cgroups.node_clients(node, [kernel.lab.cgroup_id("kubelet")])
    kernel.connect(kernel.lab.node, "10.77.0.3", 8080)
    kernel.accept(inbound)
    assert kernel.count("node_not_listed") == 1
    kernel.redirection.cgroups.node_clients(node, None)
    kernel.connect(kernel.lab.node, "10.77.0.3", 8080)
    kernel.accept(app)
    kernel.redirection.cgroups.node_clients(node, None, outside=CgroupBranch(kernel.lab.cgroup_id("app"), 2))
    kernel.connect(kernel.lab.node, "10.77.0.3", 8080)
    kernel.accept(inbound)
    with kernel.lab.in_cgroup("kubelet"):
        kernel.connect(kernel.lab.node, "10.77.0.3", 8080)
    kernel.accept(app)


@contextmanager
def source_rewritten(kernel: Kernel, to: str) -> Iterator[None]:
    """What the outsider sends through the node comes from this address and port."""
    rules = (
        "add table ip zt; add chain ip zt post { type nat hook postrouting priority 100 ; };"
        f"add rule ip zt post ip saddr 10.78.0.2 ip protocol tcp snat to {to}"
    )
    shell(kernel.lab.names["n"], f"nft '{rules}'")
    try:
        yield
    finally:
        shell(kernel.lab.names["n"], "nft delete table ip zt")


@pytest.mark.parametrize("listens", [True, False], ids=["after-a-close", "after-a-refusal"])
def test_a_masqueraded_outsider_on_the_ports_of_an_ended_probe_is_captured(kernel: Kernel, listens) -> None:
    pod, inbound = enroll_with_listener(kernel)
    app = kernel.listen(pod.netns, 8080) if listens else None
    kernel.redirection.cgroups.node_clients(kernel.lab.node.cookie, None)
    probe = kernel.socket(kernel.lab.node)
    probe.bind(("10.77.0.1", 0))
    port = probe.getsockname()[1]
    if app:
        probe.connect(("10.77.0.3", 8080))
        accepted, _ = kernel.accept(app)
        probe.close()
        accepted.close()
    else:
        with pytest.raises(ConnectionRefusedError):
            probe.connect(("10.77.0.3", 8080))
        probe.close()
    wait_until(lambda: admitted(kernel) == 0)
    with source_rewritten(kernel, f"10.77.0.1:{port}"):
        kernel.connect(kernel.lab.x, "10.77.0.3", 8080)
        assert kernel.accept(inbound)[1] == endpoint("10.77.0.1", port)


def test_what_the_node_only_forwards_is_captured(kernel: Kernel) -> None:
    _, inbound = enroll_with_listener(kernel)
    kernel.redirection.cgroups.node_clients(kernel.lab.node.cookie, None)
    with source_rewritten(kernel, "10.77.0.1"):
        kernel.connect(kernel.lab.x, "10.77.0.3", 8080)
    assert str(kernel.accept(inbound)[1].ip) == "10.77.0.1"
    assert kernel.count("admitted_node") == 0


def test_an_admission_of_an_older_generation_is_captured(kernel: Kernel) -> None:
    pod, inbound = enroll_with_listener(kernel)
    client = kernel.socket(kernel.lab.x)
    client.bind(("10.78.0.2", 0))
    old = ADMISSION.pack(pod.cookie, kernel.redirection.generation(pod.cookie), AdmissionKind.BY_VERDICT, 0)
    with Map(bpf.open_pinned(kernel.settings.pins / "maps/admitted")) as entries:
        entries.put(push_tuple(local_of(client), endpoint("10.77.0.3", 8080)), old)
    kernel.redirection.bump(pod.cookie)
    client.connect(("10.77.0.3", 8080))
    kernel.accept(inbound)
    assert kernel.count("inbound_stale") == 1


@pytest.mark.parametrize("host", ["10.77.0.3", "fd77::3"])
def test_calls_to_a_pod_that_leaves_are_left_alone(kernel: Kernel, host: str) -> None:
    pod = kernel.enroll("b")
    kernel.proxy("b", ListenerKind.INBOUND).setblocking(False)
    kernel.redirection.leave(pod)
    for port in (8080, 15053):
        app = kernel.listen(pod.netns, port)
        kernel.connect(kernel.lab.a, host, port)
        kernel.accept(app)
    assert kernel.count("inbound_left") == 2
    kernel.enroll("b")
    kernel.redirection.renew_lease(time.monotonic_ns())
    kernel.connect(kernel.lab.a, host, 8080)
    assert kernel.count("inbound_captured") == 1


def test_the_link_of_a_pod_keeps_its_id_while_it_is_enrolled_again(kernel: Kernel) -> None:
    def link() -> int:
        fd = bpf.open_pinned(kernel.settings.pins / "pods" / str(pod.cookie))
        try:
            return bpf.link_info(fd).id
        finally:
            bpf.close(fd)

    pod = kernel.enroll("b")
    before = link()
    kernel.enroll("b")
    assert link() == before
    kernel.redirection.withdraw(pod)
    assert list((kernel.settings.pins / "pods").iterdir()) == []
    kernel.listen(pod.netns, 8080)
    kernel.connect(kernel.lab.x, "10.77.0.3", 8080)


Queues = tuple[socket.socket, ...]


@pytest.fixture
def queues(kernel: Kernel) -> Queues:
    """The listeners of an enrolled pod `b` for plaintext, each with room for two."""
    pod = kernel.enroll("b")
    made = sockets.listen_side_by_side(pod.netns, LISTENER_PORTS, 1, QUEUES)
    for queue, listener in enumerate(made):
        kernel.keep(listener).setblocking(False)
        for ip in pod.addresses:
            kernel.redirection.listener(ip, ListenerKind.INBOUND, listener.fileno(), queue)
    return made


@contextmanager
def many_addresses(kernel: Kernel, host: str, count: int) -> Iterator[list[str]]:
    """So many addresses of pod `a`, of the family of `host`."""
    own, at = ("fd77::9:{}", "/64 dev eth0") if ":" in host else ("10.77.0.{}", "/24 dev eth0")
    texts = [own.format(100 + number) for number in range(count)]
    for text in texts:
        shell(kernel.lab.names["a"], f"ip addr add {text}{at}" + (" nodad" if ":" in host else ""))
    try:
        yield texts
    finally:
        for text in texts:
            shell(kernel.lab.names["a"], f"ip addr del {text}{at}")


def call_from(kernel: Kernel, source: str, host: str) -> socket.socket:
    client = kernel.socket(kernel.lab.a, host)
    client.settimeout(0.5)
    client.bind((source, 0))
    client.connect((host, 8080))
    return client


def arrived(queues: Queues) -> list[int]:
    """In which queues somebody waits; they are taken out."""
    found = []
    for number, listener in enumerate(queues):
        while not nobody_comes(listener):
            found.append(number)
    return found


@pytest.mark.parametrize("host", ["10.77.0.3", "fd77::3"])
def test_a_source_has_one_queue_and_sources_are_spread_over_them(
    kernel: Kernel, queues: Queues, host: str
) -> None:
    used = set()
    with many_addresses(kernel, host, 24) as sources:
        for source in sources:
            for _ in range(2):
                call_from(kernel, source, host)
            first, second = arrived(queues)
            assert first == second
            used.add(first)
    assert len(used) >= QUEUES // 2


@pytest.mark.parametrize("host", ["10.77.0.3", "fd77::3"])
def test_whoever_fills_its_queue_keeps_those_in_others_out_of_nothing(
    kernel: Kernel, queues: Queues, host: str
) -> None:
    with many_addresses(kernel, host, 24) as sources:
        of = {}
        for source in sources:
            call_from(kernel, source, host)
            [of[source]] = arrived(queues)
        greedy = sources[0]
        call_from(kernel, greedy, host)
        call_from(kernel, greedy, host)
        with pytest.raises(TimeoutError):
            call_from(kernel, greedy, host)
        modest = next(source for source in sources if of[source] != of[greedy])
        call_from(kernel, modest, host)
        assert of[modest] in arrived(queues)


def test_a_queue_that_is_gone_has_the_first_take_its_sources(kernel: Kernel, queues: Queues) -> None:
    for listener in queues[1:]:
        listener.close()
    with many_addresses(kernel, "10.77.0.3", 8) as sources:
        for source in sources:
            call_from(kernel, source, "10.77.0.3")
            assert arrived(queues[:1]) == [0]


def test_a_process_of_the_pod_that_listens_beside_them_gets_nothing(kernel: Kernel, queues: Queues) -> None:
    """Its user is root as well, and it says that it shares the port."""
    intruder = kernel.socket(kernel.lab.b, "::")
    intruder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    intruder.setsockopt(socket.IPPROTO_IP, 15, 1)  # IP_FREEBIND
    with suppress(OSError):
        intruder.bind(queues[0].getsockname()[:2])
        intruder.listen(100)
    intruder.setblocking(False)
    with many_addresses(kernel, "10.77.0.3", 24) as sources:
        for source in sources:
            call_from(kernel, source, "10.77.0.3")
            assert len(arrived(queues)) == 1
    with pytest.raises(OSError):  # noqa: PT011 (nobody, or it could not even listen)
        intruder.accept()
