"""Which pods wait until they are enrolled."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.builders import BuiltWorkload, workload
from tests.redirect.starts import KeptStarts
from ztunnel.config import StrictStart
from ztunnel.pods.classify import BOUND_SECONDS, NOT_IN_V2, Starting
from ztunnel.pods.find import NamedNamespaces
from ztunnel.pods.kubelet import PodCgroup, PodName, Started
from ztunnel.redirect.classify import PodsBranch
from ztunnel.redirect.exempt import CgroupBranch
from ztunnel.redirect.layout import StartRule

BRANCH = PodsBranch(CgroupBranch(77, 3), 78, 79)
WEB = workload("web", "shop").on("n1").hbone()


def pod(name: str, number: int, namespace: str = "shop", uid: str = "", runs: bool = False) -> Started:
    return Started(PodName(namespace, name), uid or f"u{number}", PodCgroup(f"/c/{number}", number), runs)


class Kubelet(NamedNamespaces):
    """Has begun with these pods."""

    def __init__(self, *pods: Started) -> None:
        super().__init__("")
        object.__setattr__(self, "pods", list(pods))

    def started(self) -> list[Started]:
        return list(self.pods)

    def branch(self) -> PodsBranch | None:
        return BRANCH if self.pods else None


@dataclass
class Node:
    """Looks at pods that come to a node where none was."""

    mode: StrictStart = StrictStart.OPTED_IN
    starts: KeptStarts = field(default_factory=KeptStarts)
    enrolled: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.kubelet = Kubelet()
        self.starting = Starting(self.starts, self.mode, self.kubelet, {"kube-system", "ztunnel-system"})

    def look(
        self, *pods: Started, world: Iterable[BuiltWorkload] = (), spaces: Iterable[str] = ()
    ) -> KeptStarts:
        self.kubelet.pods[:] = pods
        self.starting.look(world, self.enrolled, set(spaces))
        return self.starts


@pytest.fixture
def node() -> Node:
    made = Node()
    made.look()
    return made


def test_a_pod_of_the_mesh_waits_from_its_cgroup_to_its_enrolment(node: Node) -> None:
    assert node.look(pod("web", 1)).until == {}
    before = time.monotonic_ns()
    starts = node.look(pod("web", 1), world=[WEB])
    assert starts.held == {1}
    assert 0 <= starts.until[1] - before - BOUND_SECONDS * 1e9 < 1e9
    node.enrolled.add(WEB.uid)
    assert node.look(pod("web", 1), world=[WEB]).until == {}


def test_a_pod_that_the_world_does_not_name_yet_waits_if_all_others_of_its_namespace_are_in_the_mesh(
    node: Node,
) -> None:
    """The control plane is slower than the kubelet."""
    pods = pod("web", 1), pod("other", 2, "default"), pod("dns", 3, "kube-system")
    assert node.look(*pods, spaces=["shop", "kube-system"]).held == {1}
    assert node.look(*pods, spaces=["shop"], world=[WEB]).held == {1}
    assert node.look(*pods, spaces=["shop"], world=[WEB.plain()]).until == {}
    node = Node()
    assert node.look(*pods, spaces=["shop"]).until == {}  # it ran before we came


def test_where_pods_are_is_told_once(node: Node) -> None:
    for _ in range(3):
        node.look(pod("web", 1))
    assert node.starts.rules == [(None, None), (StartRule.NAMED, BRANCH)]


@pytest.mark.parametrize(
    "other",
    [
        pytest.param([WEB.plain()], id="not in the mesh"),
        pytest.param([WEB.host_networked()], id="its node's network"),
        pytest.param([workload("db", "shop").on("n1").hbone()], id="another pod"),
        pytest.param([WEB.with_uid("another")], id="one of the same name"),
    ],
)
def test_no_other_pod_waits(node: Node, other: list[BuiltWorkload]) -> None:
    assert node.look(pod("web", 1), world=other).until == {}


def test_the_uid_tells_which_of_two_of_one_name_is_meant(node: Node) -> None:
    pods = pod("web", 1, uid="old"), pod("web", 2, uid="new")
    assert node.look(*pods, world=[WEB.with_uid("new")]).held == {2}
    assert node.look(*pods, world=[WEB]).held == {1, 2}


def test_the_time_counts_from_the_first_process(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image that takes long to be pulled costs a pod nothing."""
    clock = [0]
    monkeypatch.setattr("ztunnel.pods.classify.time.monotonic_ns", lambda: clock[0])
    bound = round(BOUND_SECONDS * 1e9)
    assert node.look(pod("web", 1), world=[WEB]).until == {1: bound}
    clock[0] = bound // 4
    assert node.look(pod("web", 1), world=[WEB]).until == {1: bound}
    clock[0] = 10 * bound
    assert node.look(pod("web", 1), world=[WEB]).until == {1: 11 * bound}
    clock[0] = 10 * bound + 5
    assert node.look(pod("web", 1, runs=True), world=[WEB]).until == {1: 11 * bound + 5}
    clock[0] = 20 * bound
    assert node.look(pod("web", 1, runs=True), world=[WEB]).until == {1: 11 * bound + 5}


@pytest.mark.parametrize("mode", [StrictStart.OPTED_IN, StrictStart.ALL])
def test_a_pod_that_runs_outside_and_is_brought_into_the_mesh_does_not_wait(mode: StrictStart) -> None:
    """Its calls go as before until it is enrolled. A namespace that it has later waits as all others."""
    node, web = Node(mode), pod("web", 1, runs=True)
    node.look()
    assert node.look(web, world=[WEB.plain()]).held == set()
    assert node.look(web, world=[WEB]).held == set()
    node.enrolled.add(WEB.uid)
    assert node.look(web, world=[WEB]).held == set()
    node.enrolled.clear()
    assert node.look(web, world=[WEB]).held == {1}


def test_a_pod_that_does_not_run_yet_when_a_label_comes_waits(node: Node) -> None:
    assert node.look(pod("web", 1), world=[WEB.plain()]).held == set()
    assert node.look(pod("web", 1, runs=True), world=[WEB]).held == {1}


def test_a_pod_that_leaves_the_mesh_or_the_node_waits_no_more(node: Node) -> None:
    assert node.look(pod("web", 1), world=[WEB]).held == {1}
    assert node.look(pod("web", 1), world=[WEB.plain()]).until == {}
    assert node.look(pod("web", 1), world=[WEB]).held == {1}
    assert node.look(world=[WEB]).until == {}


@pytest.mark.parametrize("mode", StrictStart)
def test_containers_in_cgroup_v1_alone_cannot_wait_which_is_said(mode: StrictStart) -> None:
    node = Node(mode)
    object.__setattr__(node.kubelet, "branch", lambda: None)
    node.look()
    assert node.starting.trouble == ""  # no pod is there yet
    node.look(pod("web", 1), world=[WEB])
    assert node.starting.trouble == ("" if mode is StrictStart.OFF else NOT_IN_V2)
    node = Node(mode)
    node.look(pod("web", 1), world=[WEB])
    assert node.starting.trouble == ""


def test_where_it_is_off_nobody_waits_not_even_for_a_predecessor() -> None:
    starts = KeptStarts()
    starts.rule(StartRule.ALL_PODS, BRANCH)
    starts.hold(1, 5)
    node = Node(StrictStart.OFF, starts)
    node.look(pod("web", 1), world=[WEB])
    assert starts.rules[-1] == (None, None)
    assert starts.until == {}


def test_where_all_wait_the_world_lets_them_pass() -> None:
    node = Node(StrictStart.ALL)
    node.look()
    starts = node.look(pod("web", 1), pod("db", 2))
    assert starts.rules[-1] == (StartRule.ALL_PODS, BRANCH)
    assert (starts.held, starts.passing) == ({1, 2}, set())
    node.look(pod("web", 1), pod("db", 2), world=[WEB, workload("db", "shop").on("n1")])
    assert (starts.held, starts.passing) == ({1}, {2})
    node.enrolled.add(WEB.uid)
    node.look(pod("web", 1), pod("db", 2), world=[WEB, workload("db", "shop").on("n1")])
    assert (starts.held, starts.passing) == (set(), {1, 2})
    node.look()
    assert starts.until == {}


def test_system_pods_and_our_own_never_wait() -> None:
    node = Node(StrictStart.ALL)
    node.look()
    starts = node.look(pod("dns", 1, "kube-system"), pod("control", 2, "ztunnel-system"))
    assert (starts.held, starts.passing) == (set(), {1, 2})


def test_pods_that_ran_before_the_first_proxy_came_do_not_begin_to_wait() -> None:
    """The world is not known yet."""
    node = Node(StrictStart.ALL)
    starts = node.look(pod("web", 1), pod("db", 2))
    assert (starts.held, starts.passing) == (set(), {1, 2})
    node.look(pod("web", 1), pod("db", 2), pod("new", 3), world=[WEB])
    assert (starts.held, starts.passing) == ({1, 3}, {2})


def test_a_successor_knows_who_has_started_while_there_was_no_proxy() -> None:
    """1 passed before, 2 started meanwhile, and 3 is gone."""
    starts = KeptStarts()
    starts.rule(StartRule.ALL_PODS, BRANCH)
    for number in (1, 3):
        starts.let_pass(number)
    node = Node(StrictStart.ALL, starts)
    node.look(pod("db", 1), pod("web", 2))
    assert (starts.held, starts.passing) == ({2}, {1})


def test_a_pod_that_was_quicker_is_counted_if_it_was_to_be_in_the_mesh_from_its_start(node: Node) -> None:
    older, late, labelled = pod("older", 1), pod("late", 2), pod("labelled", 3)
    node = Node()
    node.look(older)
    node.look(older, late, labelled, world=[workload("labelled", "shop").on("n1")])
    node.starts.early |= {1, 2, 3}
    world = [workload(name, "shop").on("n1").hbone() for name in ("older", "late", "labelled")]
    node.look(older, late, labelled, world=world)
    assert [node.starting.enrolled(uid) for uid in ("u1", "u2", "u3", "u9")] == [False, True, False, False]
    assert not node.starting.enrolled("u2")
    assert node.starting.misses == 1


def test_a_pod_that_was_quicker_and_has_ended_before_it_was_enrolled_is_counted(node: Node) -> None:
    """A job whose only act is a call."""
    job, other = (workload(name, "shop").on("n1").hbone() for name in ("job", "other"))
    node.look(pod("job", 1), pod("other", 2), world=[job, other])
    node.starts.early |= {1, 3}
    node.look(pod("other", 2), world=[other])
    assert node.starting.ended() == [PodName("shop", "job")]
    assert node.starting.ended() == []
    assert node.starting.misses == 1
    node.enrolled.add(other.uid)
    node.look(pod("other", 2), world=[other])
    node.starts.early.add(2)
    node.look()
    assert node.starting.ended() == []  # in the mesh it may call


def test_it_is_tried_again_where_the_kernel_refuses(node: Node) -> None:
    node.starts.broken = OSError(28, "No space left on device")
    with pytest.raises(OSError, match="No space"):
        node.look(pod("web", 1), world=[WEB])
    node.starts.broken = None
    assert node.look(pod("web", 1), world=[WEB]).rules[-1] == (StartRule.NAMED, BRANCH)


async def test_a_control_plane_that_started_without_a_proxy_does_not_wait_for_its_own_world() -> None:
    starts = KeptStarts()
    starts.rule(StartRule.ALL_PODS, BRANCH)
    node, known = Node(StrictStart.ALL, starts), trio.Event()
    node.kubelet.pods[:] = [pod("control", 1, "ztunnel-system"), pod("web", 2)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.starting.until, known)
        await wait_all_tasks_blocked()
        assert (starts.held, starts.passing) == ({2}, {1})
        known.set()
