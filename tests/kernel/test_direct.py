"""Direct flows with real sockets: verdicts, their lease and generations, slots, records, and what ends
them."""

from __future__ import annotations

import socket
import struct
import time

import pytest

from tests.kernel.lab import Kernel, endpoint, local_of, original, shell, wait_until
from tests.kernel.test_sk_lookup import admitted, enroll_with_listener, source_rewritten
from ztunnel.kernel import bpf, sockets
from ztunnel.kernel.bpf import Map
from ztunnel.model.address import Endpoint
from ztunnel.redirect.enroll import PodNetwork
from ztunnel.redirect.layout import Deny, Direct
from ztunnel.redirect.records import FlowRecord, RecordEvent, RecordRole

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

VIP = endpoint("10.96.0.80", 80)
VIP6 = endpoint("fd00:96::80", 80)
KEPT_SECONDS = 10
"""The affinity of a VIP: shorter than this machine has been up, and much longer than some calls take."""

DROP_ALL = (
    "add table ip zt; add chain ip zt in { type filter hook input priority 0 ; };"
    "add rule ip zt in iif eth0 drop"
)


class Pair:
    """Pods a and b, enrolled, both proxies listening, b's application too, and a fresh lease."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.redirection = kernel.redirection
        self.a = kernel.enroll("a")
        self.b, self.inbound = enroll_with_listener(kernel)
        self.outbound = kernel.proxy("a")
        self.app = kernel.listen(self.b.netns, 8080)
        self.redirection.renew_lease(time.monotonic_ns())

    def direct(self, host: str = "10.77.0.3", port: int = 8080) -> Endpoint:
        """Teach that a's calls to b go direct."""
        to = endpoint(host, port)
        generations = (self.redirection.generation(self.a.cookie), self.redirection.generation(self.b.cookie))
        self.redirection.teach(self.a.cookie, to, Direct(self.b.cookie, *generations))
        return to

    def call(self, host: str = "10.77.0.3", port: int = 8080) -> socket.socket:
        return self.kernel.connect(self.a.netns, host, port)

    def records(self, count: int) -> list[FlowRecord]:
        """The next `count` records."""
        found: list[FlowRecord] = []

        def complete() -> bool:
            found.extend(self.redirection.records())
            return len(found) >= count

        wait_until(complete)
        assert len(found) == count, found
        return found


@pytest.fixture
def pair(kernel: Kernel) -> Pair:
    return Pair(kernel)


@pytest.mark.parametrize("called", ["10.77.0.3", "fd77::3"])
def test_with_a_verdict_a_call_of_multipath_tcp_is_captured_all_the_same(pair: Pair, called: str) -> None:
    family = socket.AF_INET6 if ":" in called else socket.AF_INET
    pair.direct(called)
    try:
        client = pair.kernel.keep(pair.a.netns.socket(family, socket.SOCK_STREAM, socket.IPPROTO_MPTCP))
    except OSError as error:
        pytest.skip(f"the kernel has no MPTCP: {error}")
    client.settimeout(3)
    client.connect((called, 8080))
    _, peer = pair.kernel.accept(pair.outbound)
    recalled = pair.kernel.recall(pair.a.cookie, peer)
    assert recalled is not None
    assert recalled.destination == original(called, 8080)


@pytest.mark.parametrize(
    ("called", "at"),
    [("10.77.0.3", "10.77.0.3"), ("fd77::3", "fd77::3"), ("::ffff:10.77.0.3", "10.77.0.3")],
    ids=["v4", "v6", "v4-mapped"],
)
def test_with_a_verdict_a_call_goes_straight_to_the_application(pair: Pair, called, at) -> None:
    pair.direct(at)
    client = pair.call(called)
    _, peer = pair.kernel.accept(pair.app)
    assert peer == local_of(client)
    assert client.getpeername()[:2] == (called, 8080)
    assert pair.kernel.count("connect_direct") == 1
    assert pair.kernel.count("connect_captured") == pair.kernel.count("inbound_captured") == 0


def test_a_verdict_holds_for_its_source_its_address_and_its_port_alone(pair: Pair) -> None:
    pair.direct()
    for host, port in (("10.77.0.3", 8081), ("10.77.0.4", 8080)):
        pair.call(host, port)
        pair.kernel.accept(pair.outbound)
    pair.kernel.proxy("b")
    pair.kernel.connect(pair.b.netns, "10.77.0.2", 8080)
    assert pair.kernel.count("connect_captured") == 3


@pytest.mark.parametrize(
    ("called", "at", "own", "other"),
    [
        ("10.77.0.3", "10.77.0.3", "10.77.0.2", "10.77.0.22"),
        ("fd77::3", "fd77::3", "fd77::2", "fd77::22"),
        ("::ffff:10.77.0.3", "10.77.0.3", "::ffff:10.77.0.2", "::ffff:10.77.0.22"),
    ],
    ids=["v4", "v6", "mapped"],
)
def test_a_verdict_is_not_about_an_address_that_the_application_chose(
    pair: Pair, called, at, own, other
) -> None:
    """Policy may look at it, so the proxy does, each time; the pod's own address chosen by hand is its
    own."""
    pair.direct(at)
    plain = other.removeprefix("::ffff:")
    size = 24 if "." in plain else 64
    shell(
        pair.kernel.lab.names["a"], f"ip addr add {plain}/{size} dev eth0 {'' if '.' in plain else 'nodad'}"
    )
    try:
        for source, listener in ((other, pair.outbound), (own, pair.app), (other, pair.outbound)):
            client = pair.kernel.socket(pair.a.netns, called)
            client.bind((source, 0))
            client.connect((called, 8080))
            assert pair.kernel.accept(listener)[1] == local_of(client)
    finally:
        shell(pair.kernel.lab.names["a"], f"ip addr del {plain}/{size} dev eth0")


def captured(pair: Pair) -> None:
    pair.call()
    pair.kernel.accept(pair.outbound)


def test_a_verdict_does_not_count_without_a_fresh_lease(pair: Pair) -> None:
    pair.direct()
    pair.redirection.end_lease()
    captured(pair)
    pair.redirection.renew_lease(time.monotonic_ns() - 2_100_000_000)
    with pytest.raises(ConnectionRefusedError):  # the proxy stands still: nobody would take it up
        pair.call()
    assert pair.kernel.count("lease_stale") == 2
    pair.redirection.renew_lease(time.monotonic_ns() - 1_000_000_000)
    pair.call()
    pair.kernel.accept(pair.app)


@pytest.mark.parametrize("which", ["a", "b"])
def test_a_change_at_either_end_voids_the_verdict(pair: Pair, which) -> None:
    pair.direct()
    pod = {"a": pair.a, "b": pair.b}[which]
    before = pair.redirection.generation(pod.cookie)
    assert pair.redirection.bump(pod.cookie) > before
    captured(pair)
    assert pair.kernel.count("verdict_stale") == 1
    pair.direct()
    pair.call()
    pair.kernel.accept(pair.app)


def test_a_change_everywhere_or_of_this_question_voids_the_verdict(pair: Pair) -> None:
    to = pair.direct()
    pair.redirection.bump_all()
    captured(pair)
    pair.direct()
    pair.redirection.forget(pair.a.cookie, to)
    captured(pair)


def test_a_verdict_that_was_judged_before_a_change_is_void_when_it_is_taught_after(pair: Pair) -> None:
    old = Direct(
        pair.b.cookie, pair.redirection.generation(pair.a.cookie), pair.redirection.generation(pair.b.cookie)
    )
    pair.redirection.bump(pair.b.cookie)
    pair.redirection.teach(pair.a.cookie, endpoint("10.77.0.3", 8080), old)
    captured(pair)


def test_a_pod_that_left_and_came_back_has_no_old_verdicts(pair: Pair) -> None:
    pair.direct()
    pair.redirection.withdraw(pair.b)
    pair.redirection.enroll(pair.b)
    captured(pair)


def test_a_deny_verdict_refuses_at_once_and_names_its_policy(pair: Pair) -> None:
    generation = pair.redirection.generation(pair.a.cookie)
    pair.redirection.teach(pair.a.cookie, endpoint("10.77.0.3", 8080), Deny(4711, generation))
    with pytest.raises(ConnectionRefusedError):
        pair.call()
    [record] = pair.records(1)
    assert (record.event, record.policy, record.cookie) == (RecordEvent.DENIED, 4711, pair.a.cookie)
    assert record.destination == endpoint("10.77.0.3", 8080)
    assert record.asked == original("10.77.0.3", 8080)
    assert pair.kernel.count("connect_denied") == 1


# --- slots


@pytest.mark.parametrize(("vip", "host"), [(VIP, "10.77.0.3"), (VIP6, "fd77::3")])
def test_a_call_to_a_vip_goes_to_the_picked_endpoint_and_shows_the_vip(pair: Pair, vip, host) -> None:
    to = pair.direct(host)
    pair.redirection.serve_vip(vip, [(to, 1)])
    client = pair.call(str(vip.ip), vip.port)
    _, peer = pair.kernel.accept(pair.app)
    assert peer == local_of(client)
    assert client.getpeername()[:2] == (str(vip.ip), vip.port)
    [opened] = pair.records(1)
    assert (opened.role, opened.destination) == (RecordRole.CLIENT, to)
    assert opened.asked == original(str(vip.ip), vip.port)


NAMES = pytest.mark.parametrize(
    ("own", "at", "vip"),
    [
        ("10.77.0.2", "10.77.0.3", "10.96.0.80"),
        ("fd77::2", "fd77::3", "fd00:96::80"),
        ("::ffff:10.77.0.2", "::ffff:10.77.0.3", "::ffff:10.96.0.80"),
    ],
    ids=["v4", "v6", "mapped"],
)
CHOSEN_PORT = 20020


def call_from(pair: Pair, own: str, called: tuple[str, int], port: int = CHOSEN_PORT) -> socket.socket:
    sock = pair.kernel.socket(pair.a.netns, own)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((own, port))
    sock.connect(called)
    return sock


def teach_names(pair: Pair, at: str, vip: str) -> tuple[tuple[str, int], tuple[str, int]]:
    """What an application calls b by: its own address, a service's."""
    to = pair.direct(at)
    pair.redirection.serve_vip(endpoint(vip, 80), [(to, 1)])
    return (at, 8080), (vip, 80)


@NAMES
@pytest.mark.parametrize("turned", [False, True])
def test_from_a_chosen_port_a_pod_is_called_by_each_of_its_names(pair: Pair, own, at, vip, turned) -> None:
    """As where names are translated behind the socket (cilium/cilium#11810); by one name once at a time."""
    first, second = teach_names(pair, at, vip)[:: -1 if turned else 1]
    one = call_from(pair, own, first)
    _, peer = pair.kernel.accept(pair.app)
    other = call_from(pair, own, second)
    _, captured_from = pair.kernel.accept(pair.outbound)
    assert peer == captured_from == local_of(one) == local_of(other)
    recalled = pair.kernel.recall(pair.a.cookie, captured_from)
    assert recalled is not None
    assert recalled.destination == original(*second)
    assert (one.getpeername()[:2], other.getpeername()[:2]) == (first, second)
    for called in (first, second):
        with pytest.raises(OSError, match="Cannot assign requested address"):
            call_from(pair, own, called)
    call_from(pair, own, second, 0)
    pair.kernel.accept(pair.app)


@NAMES
def test_from_a_chosen_port_that_is_free_again_a_call_goes_straight(pair: Pair, own, at, vip) -> None:
    for called in teach_names(pair, at, vip) * 2:
        client = call_from(pair, own, called)
        server, _ = pair.kernel.accept(pair.app)
        client.close()
        assert server.recv(1) == b""
        server.close()
    assert pair.kernel.count("connect_direct") == 4
    with Map(bpf.open_pinned(pair.kernel.settings.pins / "maps/taken")) as taken:
        wait_until(lambda: not list(taken))


@NAMES
def test_a_call_from_a_port_with_which_the_proxy_has_called_goes_by_the_proxy(
    pair: Pair, own, at, vip
) -> None:
    """The proxy makes the first call of a pair, from the application's port."""
    with pair.kernel.lab.in_cgroup("proxy"):
        pair.redirection.admit(endpoint(own, CHOSEN_PORT), endpoint(at, 8080))
        first = call_from(pair, own, (at, 8080))
    server, _ = pair.kernel.accept(pair.app)
    for called in teach_names(pair, at, vip):
        call_from(pair, own, called)
        pair.kernel.accept(pair.outbound)
    server.close()
    first.close()
    with Map(bpf.open_pinned(pair.kernel.settings.pins / "maps/taken")) as taken:
        wait_until(lambda: not list(taken))


def test_a_pick_without_a_verdict_is_told_to_the_proxy(pair: Pair) -> None:
    to = endpoint("10.77.0.3", 8080)
    pair.redirection.serve_vip(VIP, [(to, 1)])
    pair.call(str(VIP.ip), VIP.port)
    _, peer = pair.kernel.accept(pair.outbound)
    recalled = pair.kernel.recall(pair.a.cookie, peer)
    assert recalled is not None
    assert (recalled.destination, recalled.picked) == (original(str(VIP.ip), VIP.port), to)


def picks(pair: Pair, count: int) -> set[Endpoint]:
    found = set()
    for _ in range(count):
        pair.call(str(VIP.ip), VIP.port)
        recalled = pair.kernel.recall(pair.a.cookie, pair.kernel.accept(pair.outbound)[1])
        assert recalled is not None
        found.add(recalled.picked)
    return found


@pytest.mark.parametrize("family", ["10.99.0.%d", "fd99::%d"], ids=["v4", "v6"])
def test_a_client_keeps_what_was_picked_until_its_time_is_over_or_the_endpoints_change(
    pair: Pair, family: str
) -> None:
    endpoints = [(endpoint(family % number, 80), 1) for number in range(1, 17)]
    pair.redirection.serve_vip(VIP, endpoints)
    assert len(picks(pair, 16)) > 1, "without affinity: not once in 16**15"
    pair.redirection.serve_vip(VIP, endpoints, KEPT_SECONDS)
    [first] = picks(pair, 16)
    now = time.monotonic_ns()
    assert pair.redirection.affinities.kept(pair.a.cookie, VIP, KEPT_SECONDS, now) == first
    assert pair.kernel.count("vip_kept") == 15
    # What the proxy has picked is kept too.
    pair.redirection.affinities.keep(pair.a.cookie, VIP, endpoints[3][0], now)
    assert picks(pair, 4) == {endpoints[3][0]}
    # Its time is over: it gets another one, now and then the same.
    chosen = set()
    for _ in range(16):
        pair.redirection.affinities.keep(pair.a.cookie, VIP, endpoints[3][0], now - KEPT_SECONDS * 10**9)
        chosen |= picks(pair, 1)
    assert len(chosen) > 1
    # Its endpoint may be none any more: only the proxy knows.
    pair.redirection.serve_vip(VIP, endpoints[:8], KEPT_SECONDS)
    assert picks(pair, 2) == {None}
    assert pair.kernel.count("vip_affinity_stale") == 2
    pair.redirection.affinities.keep(pair.a.cookie, VIP, endpoints[0][0], time.monotonic_ns())
    assert picks(pair, 4) == {endpoints[0][0]}


def test_a_pick_of_the_other_family_goes_through_the_proxy(pair: Pair) -> None:
    pair.redirection.serve_vip(VIP, [(pair.direct("fd77::3"), 1)])
    pair.call(str(VIP.ip), VIP.port)
    _, peer = pair.kernel.accept(pair.outbound)
    recalled = pair.kernel.recall(pair.a.cookie, peer)
    assert recalled is not None
    assert recalled.picked == endpoint("fd77::3", 8080)


def test_shares_are_those_of_the_weights(pair: Pair) -> None:
    to, elsewhere = pair.direct(), endpoint("10.99.0.1", 1)
    pair.redirection.serve_vip(VIP, [(to, 3), (elsewhere, 1)])
    calls = 200
    for _ in range(calls):
        pair.call(str(VIP.ip), VIP.port)
    direct = pair.kernel.count("connect_direct")
    assert 0.6 < direct / calls < 0.9
    assert direct + pair.kernel.count("connect_captured") == calls


def test_a_vip_is_replaced_and_dropped(pair: Pair) -> None:
    to = pair.direct()
    pair.redirection.serve_vip(VIP, [(endpoint("10.99.0.1", 1), 1)])
    pair.redirection.serve_vip(VIP, [(to, 5)])
    pair.call(str(VIP.ip), VIP.port)
    pair.kernel.accept(pair.app)
    pair.redirection.drop_vip(VIP)
    pair.call(str(VIP.ip), VIP.port)
    _, peer = pair.kernel.accept(pair.outbound)
    recalled = pair.kernel.recall(pair.a.cookie, peer)
    assert recalled is not None
    assert recalled.picked is None


# --- records and ends


def transfer(pair: Pair, up: int, down: int) -> tuple[socket.socket, socket.socket]:
    pair.direct()
    client = pair.call()
    server, _ = pair.kernel.accept(pair.app)
    client.sendall(b"u" * up)
    while up:
        up -= len(server.recv(up))
    server.sendall(b"d" * down)
    while down:
        down -= len(client.recv(down))
    [opened] = pair.records(1)
    assert (opened.event, opened.role, opened.established) == (RecordEvent.OPENED, RecordRole.CLIENT, True)
    assert len(pair.redirection.direct_flows()) == 2
    return client, server


@pytest.mark.parametrize("closer", ["client", "server", "client-by-reset", "server-by-reset"])
@pytest.mark.parametrize(("up", "down"), [(1000, 5000), (0, 0), (300_000, 1)])
def test_both_ends_report_exactly_what_they_sent(pair: Pair, closer, up, down) -> None:
    client, server = transfer(pair, up, down)
    name, _, by_reset = closer.partition("-")
    first, second = (client, server) if name == "client" else (server, client)
    source = local_of(client)
    # An acknowledgement of the last bytes may still be on its way.
    wait_until(lambda: {each.acked_bytes for each in live(pair)} >= {up + 1, down})
    if by_reset:
        first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    first.close()
    second.settimeout(3)
    try:
        assert second.recv(1) == b""
    except ConnectionResetError:
        assert by_reset
    second.close()
    ended = {each.role: each for each in pair.records(2)}
    assert {each.event for each in ended.values()} == {RecordEvent.ENDED}
    assert {(each.source, each.destination) for each in ended.values()} == {
        (source, endpoint("10.77.0.3", 8080))
    }
    assert (ended[RecordRole.CLIENT].sent_bytes, ended[RecordRole.SERVER].sent_bytes) == (up, down)
    assert ended[RecordRole.CLIENT].cookie == pair.a.cookie
    assert ended[RecordRole.SERVER].cookie == pair.b.cookie
    assert ended[RecordRole.CLIENT].established
    assert ended[RecordRole.CLIENT].duration_ns > 0
    assert ended[RecordRole.CLIENT].srtt_us > 0
    assert admitted(pair.kernel) == 0
    assert pair.redirection.direct_flows() == []


def live(pair: Pair) -> list[sockets.LiveSocket]:
    """Both ends of the pair's flows, by sock_diag."""
    both = [*sockets.connections(pair.a.netns), *sockets.connections(pair.b.netns)]
    return [each for each in both if 8080 in (each.local.port, each.remote.port)]


@pytest.mark.parametrize("which", ["a", "b"])
def test_a_live_flow_is_destroyed_from_either_end(pair: Pair, which) -> None:
    client, server = transfer(pair, 10, 10)
    ends = (local_of(client), endpoint("10.77.0.3", 8080))
    pod, own = {"a": (pair.a, ends), "b": (pair.b, ends[::-1])}[which]
    assert {each.socket for each in pair.redirection.direct_flows()} == {
        sockets.cookie_of(client),
        sockets.cookie_of(server),
    }
    cookies = [sockets.cookie_of(client), sockets.cookie_of(server)]
    assert [pair.redirection.is_direct(cookie) for cookie in (*cookies, 0)] == [True, True, False]
    assert sockets.destroy(pod.netns, *own)
    near, far = (client, server) if which == "a" else (server, client)
    with pytest.raises(ConnectionAbortedError):
        near.recv(1)
    with pytest.raises(ConnectionResetError):
        far.recv(1)
    assert {each.sent_bytes for each in pair.records(2)} == {10}
    assert not any(map(pair.redirection.is_direct, cookies))
    assert not sockets.destroy(pod.netns, *own)
    pair.call()  # the application and its listener are well
    pair.kernel.accept(pair.app)


def test_a_refused_direct_call_is_reported_and_leaves_no_admission(pair: Pair) -> None:
    pair.direct()
    pair.app.close()
    with pytest.raises(ConnectionRefusedError):
        pair.call()
    [record] = pair.records(1)
    assert (record.event, record.established, record.sent_bytes) == (RecordEvent.ENDED, False, 0)
    assert admitted(pair.kernel) == 0


def test_an_unanswered_direct_syn_is_reported_after_a_second(pair: Pair) -> None:
    pair.direct()
    shell(pair.kernel.lab.names["b"], f"nft '{DROP_ALL}'")
    try:
        client = pair.kernel.socket(pair.a.netns)
        client.setblocking(False)
        client.connect_ex(("10.77.0.3", 8080))
        [record] = pair.records(1)
        assert (record.event, record.established) == (RecordEvent.UNANSWERED, False)
        assert 0.9e9 < record.duration_ns < 2e9
        assert admitted(pair.kernel) == 1
        client.close()
        assert pair.records(1)[0].event is RecordEvent.ENDED
        assert admitted(pair.kernel) == 0
    finally:
        shell(pair.kernel.lab.names["b"], "nft delete table ip zt")


@pytest.mark.parametrize("host", ["10.77.0.3", "fd77::3"])
def test_a_direct_syn_that_waits_for_a_full_backlog_is_not_reported(pair: Pair, host: str) -> None:
    """Whoever calls the application next calls it directly again."""
    to = pair.direct(host)
    pair.app.listen(0)
    first = pair.call(host)
    waiting = pair.kernel.socket(pair.a.netns, host)
    waiting.setblocking(False)
    waiting.connect_ex((host, 8080))
    [opened] = pair.records(1)
    assert opened.event is RecordEvent.OPENED
    wait_until(lambda: retransmits(waiting))
    assert pair.redirection.has_arrived(local_of(waiting), to)
    assert pair.redirection.records() == []
    first.close()


def retransmits(sock: socket.socket) -> int:
    """How often in a row (tcpi_retransmits)."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)[2]


def test_an_outsider_on_the_ports_of_an_ended_direct_flow_is_captured(pair: Pair) -> None:
    client, server = transfer(pair, 1, 1)
    source = local_of(client)
    server.close()
    client.close()
    pair.records(2)
    before = pair.kernel.count("inbound_captured")
    with source_rewritten(pair.kernel, str(source)):
        outsider = pair.kernel.socket(pair.kernel.lab.x)
        outsider.setblocking(False)
        outsider.connect_ex(("10.77.0.3", 8080))
        wait_until(lambda: pair.kernel.count("inbound_captured") == before + 1)


def test_with_the_proxy_dead_live_flows_go_on_and_new_calls_are_refused(pair: Pair) -> None:
    client, server = transfer(pair, 1, 1)
    pair.outbound.close()
    pair.inbound.close()
    pair.redirection.renew_lease(time.monotonic_ns() - 2_000_000_001)
    with pytest.raises(ConnectionRefusedError):
        pair.call()
    client.sendall(b"still here")
    assert server.recv(99) == b"still here"


def test_a_flow_outlives_the_withdrawal_of_its_pods(pair: Pair) -> None:
    client, server = transfer(pair, 1, 1)
    for pod in (pair.a, pair.b):
        withdraw(pair, pod)
    client.sendall(b"still here")
    assert server.recv(99) == b"still here"


def withdraw(pair: Pair, pod: PodNetwork) -> None:
    pair.redirection.withdraw(pod)
    assert pod.cookie not in pair.redirection.enrolled()
