"""What a pod only forwards, with real sockets: judged inwards, refused outwards, translated or routed."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.kernel.behind import Behind
from tests.kernel.lab import Kernel, Lab, endpoint, local_of, shell, wait_until
from ztunnel.kernel import bpf
from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.model.address import Endpoint
from ztunnel.redirect import load
from ztunnel.redirect.attach import Redirection
from ztunnel.redirect.enroll import PodNetwork
from ztunnel.redirect.layout import SMALL
from ztunnel.redirect.passages import INTERFACE, Forwarded, push_interface

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

SOON_SECONDS = 0.25
"""Long before a SYN is sent again."""

HOSTS = {4: ("10.77.0.3", "172.31.0.2", "10.77.0.2"), 6: ("fd77::3", "fd31::2", "fd77::2")}


@pytest.fixture(scope="module", params=["nat", "routed"])
def behind(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Behind]:
    with Behind(lab, nat=request.param == "nat") as behind:
        yield behind


@pytest.fixture
def pod(kernel: Kernel, behind: Behind) -> PodNetwork:
    """Pod `b`, enrolled, with what is behind it."""
    pod = kernel.lab.pod("b")
    kernel.redirection.enroll(pod)
    kernel.redirection.renew_lease(time.monotonic_ns())
    return pod


def called(behind: Behind, family: int) -> Endpoint:
    """How others call what listens on 8080 behind the pod."""
    pod, inner, _ = HOSTS[family]
    return endpoint(pod, 9090) if behind.nat else endpoint(inner, 8080)


def connect(kernel: Kernel, netns: NetworkNamespace, to: Endpoint) -> socket.socket | None:
    """A connection that stands at once, or none."""
    return attempt(kernel, netns, to)[0]


def attempt(kernel: Kernel, netns: NetworkNamespace, to: Endpoint) -> tuple[socket.socket | None, Endpoint]:
    """As `connect`, with the caller's own end."""
    sock = kernel.socket(netns, str(to.ip))
    sock.settimeout(SOON_SECONDS)
    try:
        sock.connect((str(to.ip), to.port))
    except TimeoutError:
        own = local_of(sock)
        sock.close()
        return None, own
    sock.settimeout(3)
    return sock, local_of(sock)


def told(kernel: Kernel, opener: Endpoint, called: Endpoint) -> Forwarded:
    """What is told about this connection; of others, the kernel may send packets again for a while."""

    def found() -> list[Forwarded]:
        seen = kernel.redirection.forwards.records()
        return [each for each in seen if (each.opener, each.called) == (opener, called)]

    return wait_until(found)[-1]


def let_in(kernel: Kernel, netns: NetworkNamespace, to: Endpoint) -> Forwarded:
    """Admit connections from there to this; what was told about the first."""
    refused, opener = attempt(kernel, netns, to)
    assert refused is None
    seen = told(kernel, opener, to)
    admit(kernel, seen)
    return seen


def admit(kernel: Kernel, seen: Forwarded) -> None:
    generation = kernel.redirection.generation(seen.cookie)
    kernel.redirection.forwards.admit(seen.cookie, seen.opener.ip, seen.called, generation)


@pytest.mark.parametrize("family", [4, 6])
def test_inwards_a_connection_passes_once_it_is_admitted_and_while_that_holds(
    kernel, behind, pod, family
) -> None:
    app = kernel.listen(behind.netns, 8080)
    to = called(behind, family)
    seen = let_in(kernel, kernel.lab.a, to)
    assert (seen.cookie, seen.syn, seen.inwards, seen.reply) == (pod.cookie, True, True, False)
    assert (seen.opener.ip, seen.called) == (endpoint(HOSTS[family][2], 1).ip, to)
    assert seen.destination == endpoint(HOSTS[family][1], 8080)
    client = connect(kernel, kernel.lab.a, to)
    assert client
    server, _ = kernel.accept(app)
    client.sendall(b"up")
    server.sendall(b"down")
    assert (server.recv(9), client.recv(9)) == (b"up", b"down")
    # Another source was not judged, nor another port.
    if behind.nat:
        assert connect(kernel, kernel.lab.node, to) is None
    # A new generation stops what lives, in both directions, until it is judged again.
    kernel.redirection.forwards.records(10_000)
    kernel.redirection.bump(pod.cookie)
    server.sendall(b"late")
    seen = told(kernel, local_of(client), to)
    assert (seen.syn, seen.inwards, seen.reply) == (False, True, True)
    client.settimeout(SOON_SECONDS)
    with pytest.raises(TimeoutError):
        client.recv(9)
    admit(kernel, seen)
    client.settimeout(3)
    assert client.recv(9) == b"late"  # sent again


@pytest.mark.parametrize("family", [4, 6])
def test_without_a_lease_what_lives_goes_on_and_nothing_new_begins(kernel, behind, pod, family) -> None:
    app = kernel.listen(behind.netns, 8080)
    to = called(behind, family)
    let_in(kernel, kernel.lab.a, to)
    client = connect(kernel, kernel.lab.a, to)
    assert client
    server, _ = kernel.accept(app)
    kernel.redirection.end_lease()
    assert connect(kernel, kernel.lab.a, to) is None
    client.sendall(b"on")
    assert server.recv(9) == b"on"


@pytest.mark.parametrize("family", [4, 6])
def test_outwards_no_connection_is_opened_and_one_from_before_lives_on(kernel, behind, pod, family) -> None:
    there = kernel.listen(kernel.lab.a, 0)
    to = endpoint(HOSTS[family][2], there.getsockname()[1])
    kernel.redirection.withdraw(pod)
    before = connect(kernel, behind.netns, to)
    assert before
    server, _ = kernel.accept(there)
    kernel.redirection.enroll(pod)
    refused, opener = attempt(kernel, behind.netns, to)
    assert refused is None
    seen = told(kernel, opener, to)
    assert (seen.cookie, seen.syn, seen.inwards) == (pod.cookie, True, False)
    assert kernel.count("forward_refused") >= 1
    if behind.nat:
        before.sendall(b"on")
        assert server.recv(9) == b"on"
        assert kernel.count("forward_older") > 0
    else:  # nothing tells it from an answer: it is asked about as one to what is behind the pod
        before.sendall(b"on")
        asked = told(kernel, to, local_of(before))
        assert (asked.inwards, asked.reply) == (True, True)
        admit(kernel, asked)
        assert server.recv(9) == b"on"


def test_what_an_annotation_allows_is_left_alone_both_ways(kernel, behind, pod) -> None:
    kernel.redirection.enroll(replace(pod, forwards=True))
    app, there = kernel.listen(behind.netns, 8080), kernel.listen(kernel.lab.a, 0)
    for family in (4, 6):
        assert connect(kernel, kernel.lab.a, called(behind, family))
        kernel.accept(app)
        assert connect(kernel, behind.netns, endpoint(HOSTS[family][2], there.getsockname()[1]))
    assert kernel.count("forward_left") > 0
    assert kernel.count("forward_asked") + kernel.count("forward_refused") == 0
    kernel.redirection.enroll(pod)
    assert connect(kernel, kernel.lab.a, called(behind, 4)) is None


@pytest.mark.parametrize("family", [4, 6])
def test_other_protocols_are_left_alone_and_counted(kernel, behind, pod, family) -> None:
    there = kernel.socket(kernel.lab.a, HOSTS[family][2], socket.SOCK_DGRAM)
    there.bind((HOSTS[family][2], 0))
    client = kernel.socket(behind.netns, HOSTS[family][1], socket.SOCK_DGRAM)
    client.sendto(b"datagram", there.getsockname()[:2])
    assert there.recv(99) == b"datagram"
    assert kernel.count("forward_not_tcp") >= 1


def test_a_pod_that_is_refused_forwards_nothing(kernel, behind, pod) -> None:
    kernel.redirection.refuse(pod)
    kernel.listen(behind.netns, 8080)
    there = kernel.listen(kernel.lab.a, 0)
    for family in (4, 6):
        assert connect(kernel, kernel.lab.a, called(behind, family)) is None
        assert connect(kernel, behind.netns, endpoint(HOSTS[family][2], there.getsockname()[1])) is None
    assert kernel.count("forward_pending") >= 4


@pytest.mark.parametrize("family", [4, 6])
def test_a_probe_of_the_node_reaches_what_is_behind_the_pod(kernel, behind, pod, family) -> None:
    if not behind.nat:  # the node has no route to what is behind it
        return
    app = kernel.listen(behind.netns, 8080)
    kernel.redirection.cgroups.node_clients(kernel.lab.node.cookie, [kernel.lab.cgroup_id("kubelet")])
    with kernel.lab.in_cgroup("kubelet"):
        assert connect(kernel, kernel.lab.node, called(behind, family))
    kernel.accept(app)
    assert connect(kernel, kernel.lab.node, called(behind, family)) is None


def test_a_pod_that_asks_without_end_is_heard_so_often_in_a_second_and_still_refused(
    kernel, behind, pod
) -> None:
    there = kernel.listen(kernel.lab.a, 0)
    to = ("10.77.0.2", there.getsockname()[1])
    for _ in range(700):
        with behind.netns.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.connect_ex(to)
    assert len(kernel.redirection.forwards.records(10_000)) <= 1000  # two windows, if the clock is so
    refused = kernel.count("forward_refused")
    assert refused >= 700
    assert kernel.count("forward_not_told") >= refused - 1000


SEGMENT = bytes.fromhex("1f901f900000000100000000500204000000000000")[:20]
DATAGRAM = bytes.fromhex("1f901f9000080000")
TCP, UDP = 6, 17


def options(behind: int, payload: bytes) -> bytes:
    """A header of destination options that holds nothing."""
    return bytes([behind, 0, 1, 4, 0, 0, 0, 0]) + payload


def fragment(behind: int, payload: bytes, offset: int = 0) -> bytes:
    return bytes([behind, 0]) + (offset * 8 << 3 | 1).to_bytes(2, "big") + bytes(4) + payload


def nested(behind: int, payload: bytes, times: int) -> bytes:
    for _ in range(times):
        behind, payload = 60, options(behind, payload)
    return payload


@pytest.mark.parametrize(
    ("first", "rest", "outcome"),
    [
        (60, options(TCP, SEGMENT), "forward_unreadable"),
        (60, options(60, options(TCP, SEGMENT)), "forward_unreadable"),
        (44, fragment(TCP, SEGMENT), "forward_unreadable"),
        (44, fragment(TCP, bytes(16), 100), "forward_unreadable"),
        (44, fragment(60, options(TCP, SEGMENT)), "forward_unreadable"),
        (60, nested(TCP, SEGMENT, 9), "forward_unreadable"),
        (60, nested(UDP, DATAGRAM, 9), "forward_unreadable"),
        (44, fragment(UDP, DATAGRAM), "forward_not_tcp"),
        (44, fragment(UDP, bytes(16), 100), "forward_not_tcp"),
        (60, options(UDP, DATAGRAM), "forward_not_tcp"),
        (60, options(44, fragment(UDP, DATAGRAM)), "forward_not_tcp"),
        (17, DATAGRAM, "forward_not_tcp"),
    ],
)
def test_fragments_and_extension_headers_hide_no_connection_and_stop_no_datagram(
    kernel, behind, pod, first, rest, outcome
) -> None:
    if behind.nat and 44 in (first, rest[0]):  # connection tracking keeps fragments until all are there
        return
    before = kernel.count(outcome)
    raw = kernel.keep(behind.netns.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW))
    head = bytes([0x60, 0, 0, 0]) + len(rest).to_bytes(2, "big") + bytes([first, 64])
    source, to = (endpoint(each, 1).ip.packed for each in ("fd31::2", "fd77::2"))
    raw.sendto(head + source + to + rest, ("fd77::2", 0))
    wait_until(lambda: kernel.count(outcome) == before + 1)


def links(kernel: Kernel, pod: PodNetwork) -> dict[str, bpf.LinkInfo]:
    found = {}
    for place in sorted((kernel.settings.pins / "forwards").iterdir()):
        fd = bpf.open_pinned(place)
        found[place.name] = bpf.link_info(fd)
        bpf.close(fd)
    return found


def test_a_link_stays_while_it_is_current_is_made_anew_for_another_program_and_goes_with_its_pod(
    kernel, behind, pod
) -> None:
    first = links(kernel, pod)
    assert set(first) == {f"{pod.cookie}-2", f"{pod.cookie}-10"}
    kernel.redirection.enroll(pod)
    assert links(kernel, pod) == first
    assert load.ensure_loaded(replace(kernel.settings, lease_seconds=3.0))
    assert links(kernel, pod) == first  # the old program goes on until the pod is enrolled anew
    with Redirection.open(kernel.settings.pins) as fresh:
        fresh.enroll(pod)
        second = links(kernel, pod)
        assert {link.id for link in second.values()}.isdisjoint(link.id for link in first.values())
        assert not {link.program for link in second.values()} & {link.program for link in first.values()}
        assert connect(kernel, kernel.lab.a, called(behind, 4)) is None
        fresh.withdraw(pod)
    assert links(kernel, pod) == {}
    app = kernel.listen(behind.netns, 8080)
    assert connect(kernel, kernel.lab.a, called(behind, 4))
    kernel.accept(app)


def test_between_two_things_behind_the_pod_nothing_is_judged(kernel, behind, pod) -> None:
    with Behind(kernel.lab, nat=False, number=1) as other:
        app = kernel.listen(other.netns, 8080)
        for host in ("172.31.1.2", "fd31:1::2"):
            assert connect(kernel, behind.netns, endpoint(host, 8080))
            kernel.accept(app)
    assert kernel.count("forward_inner") > 0


def test_a_pod_that_is_removed_forwards_as_before(kernel, behind, pod) -> None:
    kernel.redirection.withdraw(pod)
    shell(kernel.lab.names["b"], "true")
    app = kernel.listen(behind.netns, 8080)
    for family in (4, 6):
        assert connect(kernel, kernel.lab.a, called(behind, family))
        kernel.accept(app)


def test_interfaces_that_a_pod_is_not_reached_by_any_more_are_forgotten(kernel: Kernel) -> None:
    """Those that a predecessor has entered, too."""
    pod, uplinks = kernel.lab.pod("a"), kernel.redirection._maps["uplinks"]
    other = kernel.enroll("b")

    def known(cookie: int) -> set[int]:
        return {index for owner, index in map(INTERFACE.unpack, uplinks) if owner == cookie}

    uplinks.put(push_interface(pod.cookie, 77), SMALL.pack(1))
    kernel.redirection.enroll(replace(pod, uplinks=(5, 6)))
    assert known(pod.cookie) == {5, 6}
    kernel.redirection.enroll(replace(pod, uplinks=(6,)))
    assert known(pod.cookie) == {6}
    uplinks.drop(push_interface(pod.cookie, 6))
    kernel.redirection.look(replace(pod, uplinks=(6,)))
    assert known(pod.cookie) == {6}
    kernel.redirection.withdraw(pod)
    assert known(pod.cookie) == set()
    assert known(other.cookie) == set(other.uplinks)
    kernel.redirection.withdraw(other)
