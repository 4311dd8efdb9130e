"""Pods that start: who is refused, by the cgroup of the process that calls."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.lab import Kernel, Lab
from ztunnel.kernel import cgroup
from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.redirect.classify import PodsBranch
from ztunnel.redirect.exempt import CgroupBranch
from ztunnel.redirect.layout import StartRule

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

OTHERS = ["10.77.0.3", "fd77::3"]
SECOND = 1_000_000_000
PLACES = {
    "guaranteed": "kubepods/pod1/c1",
    "burstable": "kubepods/burstable/pod2/c1",
    "besteffort": "kubepods/besteffort/pod3/c1/nested",
}


class Pods:
    """Cgroups of pods in the laboratory, and this process in one of them."""

    def __init__(self, lab: Lab) -> None:
        self.root = lab.root
        self.made: list[Path] = []
        for place in PLACES.values():
            for end in range(1, len(Path(place).parts) + 1):
                path = self.root.joinpath(*Path(place).parts[:end])
                if path not in self.made:
                    self.made.append(cgroup.create(path))

    @property
    def branch(self) -> PodsBranch:
        level = len((self.root / "kubepods").relative_to(cgroup.find_root()).parts)
        return PodsBranch(
            CgroupBranch(self.number("kubepods"), level),
            self.number("kubepods/burstable"),
            self.number("kubepods/besteffort"),
        )

    def number(self, place: str) -> int:
        return cgroup.cgroup_id(self.root / place)

    def pod(self, kind: str) -> int:
        parts = Path(PLACES[kind]).parts
        return self.number("/".join(parts[: 2 if kind == "guaranteed" else 3]))

    def enter(self, kind: str) -> None:
        cgroup.join(self.root / PLACES[kind])

    def remove(self, lab: Lab) -> None:
        cgroup.join(lab.branches["app"])
        for path in reversed(self.made):
            cgroup.remove(path)


@pytest.fixture
def pods(kernel: Kernel) -> Iterator[Pods]:
    made = Pods(kernel.lab)
    yield made
    made.remove(kernel.lab)


@pytest.fixture
def app(kernel: Kernel) -> int:
    """The port of somebody who listens in pod `b`, which is not enrolled."""
    return int(kernel.listen(kernel.lab.b).getsockname()[1])


def refused(kernel: Kernel, netns: NetworkNamespace, host: str, port: int) -> bool:
    with kernel.socket(netns, host) as client:
        try:
            client.connect((host, port))
        except ConnectionRefusedError:
            return True
    return False


def soon() -> int:
    return time.monotonic_ns() + 60 * SECOND


@pytest.mark.parametrize("kind", PLACES)
def test_a_pod_that_is_held_calls_nobody_until_it_is_let_go(kernel, pods, app, kind) -> None:
    starts, a = kernel.redirection.starts, kernel.lab.a
    starts.rule(StartRule.NAMED, pods.branch)
    starts.hold(pods.pod(kind), soon())
    pods.enter(kind)
    for number, host in enumerate(OTHERS, 1):
        assert refused(kernel, a, host, app)
        assert kernel.count("connect_starting") == number
    starts.forget(pods.pod(kind))
    for host in OTHERS:
        assert not refused(kernel, a, host, app)
    assert starts.known() == set()


def test_others_are_not_concerned(kernel, pods, app) -> None:
    """Another pod, and what is no pod."""
    starts, a = kernel.redirection.starts, kernel.lab.a
    starts.rule(StartRule.NAMED, pods.branch)
    starts.hold(pods.pod("burstable"), soon())
    assert not refused(kernel, a, OTHERS[0], app)
    for kind in ("guaranteed", "besteffort"):
        pods.enter(kind)
        assert not refused(kernel, a, OTHERS[0], app)
    assert kernel.count("connect_starting") == 0


def test_a_pod_that_starts_reaches_itself_and_sends_datagrams(kernel, pods, app) -> None:
    starts, a = kernel.redirection.starts, kernel.lab.a
    starts.rule(StartRule.NAMED, pods.branch)
    starts.hold(pods.pod("burstable"), soon())
    own = kernel.listen(a).getsockname()[1]
    pods.enter("burstable")
    for host in ("127.0.0.1", "::1"):
        assert not refused(kernel, a, host, own)
    with kernel.socket(a, kind=socket.SOCK_DGRAM) as client:
        client.connect((OTHERS[0], app))


def test_it_is_refused_for_a_bounded_time(kernel, pods, app) -> None:
    """Then it was early, which is counted for its pod."""
    starts, a = kernel.redirection.starts, kernel.lab.a
    starts.rule(StartRule.NAMED, pods.branch)
    starts.hold(pods.pod("besteffort"), time.monotonic_ns() + SECOND // 10)
    pods.enter("besteffort")
    assert refused(kernel, a, OTHERS[0], app)
    assert not starts.called_early(pods.pod("besteffort"))
    deadline = time.monotonic() + 3
    while refused(kernel, a, OTHERS[0], app):
        assert time.monotonic() < deadline
    assert kernel.count("connect_early") == 1
    assert starts.called_early(pods.pod("besteffort"))
    assert not starts.called_early(pods.pod("besteffort"))


def test_once_its_namespace_is_enrolled_the_cgroup_says_nothing(kernel, pods, app) -> None:
    starts, a = kernel.redirection.starts, kernel.lab.a
    starts.rule(StartRule.ALL_PODS, pods.branch)
    starts.hold(pods.pod("burstable"), soon())
    kernel.proxy("a")
    pod = kernel.enroll("a")
    pods.enter("burstable")
    for host in OTHERS:
        kernel.connect(a, host, app).close()
    assert kernel.count("connect_captured") == 2
    kernel.redirection.withdraw(pod)


def test_where_all_pods_wait_an_unknown_one_does(kernel, pods, app) -> None:
    starts, a = kernel.redirection.starts, kernel.lab.a
    assert not starts.refuses_unknown()
    starts.rule(StartRule.ALL_PODS, pods.branch)
    assert starts.refuses_unknown()
    assert not refused(kernel, a, OTHERS[0], app)  # no pod
    for kind in PLACES:
        pods.enter(kind)
        assert refused(kernel, a, OTHERS[0], app)
        starts.let_pass(pods.pod(kind))
        assert not refused(kernel, a, OTHERS[0], app)
    assert starts.known() == {pods.pod(kind) for kind in PLACES}
    assert kernel.count("connect_early") == 0
    starts.rule(None)
    starts.forget(pods.pod("guaranteed"))
    pods.enter("guaranteed")
    assert not refused(kernel, a, OTHERS[0], app)


def test_a_pod_with_its_nodes_network_does_not_wait(kernel, pods, app) -> None:
    starts, node = kernel.redirection.starts, kernel.lab.node
    starts.rule(StartRule.ALL_PODS, pods.branch)
    kernel.redirection.cgroups.node_clients(node.cookie, ())
    pods.enter("guaranteed")
    assert not refused(kernel, node, OTHERS[0], app)
    assert refused(kernel, kernel.lab.a, OTHERS[0], app)


def test_the_proxy_does_not_wait(kernel, pods, app) -> None:
    """In a pod of its own it is held with all others, until it has said who it is."""
    starts, a = kernel.redirection.starts, kernel.lab.a
    starts.rule(StartRule.ALL_PODS, pods.branch)
    own = pods.number(PLACES["burstable"])
    kernel.redirection.cgroups.own_cgroup(own)
    pods.enter("burstable")
    assert not refused(kernel, a, OTHERS[0], app)
    kernel.redirection.cgroups.disown_cgroup(own)
    assert refused(kernel, a, OTHERS[0], app)


def test_a_kubelet_of_another_node_on_this_kernel_is_not_judged(kernel, pods, app) -> None:
    starts, a = kernel.redirection.starts, kernel.lab.a
    branch = pods.branch
    other = cgroup.create(kernel.lab.root / "other")
    pods.made.append(other)
    starts.rule(StartRule.ALL_PODS, PodsBranch(CgroupBranch(cgroup.cgroup_id(other), branch.kubepods.level)))
    pods.enter("guaranteed")
    assert not refused(kernel, a, OTHERS[0], app)
