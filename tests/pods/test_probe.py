"""A pod that is in another mesh is left alone, and nobody can pretend it."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest
from trio.testing import MockClock

from tests.builders import workload
from tests.kernel.lab import Kernel, Lab
from tests.pods.parts import A, Node, place_of
from tests.pods.test_serve import look
from ztunnel.kernel.istio import PORTS
from ztunnel.model.workload import LeftTo, Workload
from ztunnel.pods.find import NamedNamespaces
from ztunnel.pods.kubelet import Place, PodCgroup, PodName, Started
from ztunnel.pods.listen import CannotEnroll
from ztunnel.pods.probe import ANNOTATED, SERVED, Alone, Neighbours
from ztunnel.redirect.classify import PodsBranch
from ztunnel.redirect.exempt import CgroupBranch
from ztunnel.redirect.layout import PodFlag

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


class Kubelet(NamedNamespaces):
    """Knows pod `a`, whose containers are in the cgroup `app` of the laboratory."""

    def __init__(self, lab: Lab, in_v2: bool = True) -> None:
        super().__init__(f"/run/netns/{lab.name}-{{name}}")
        object.__setattr__(self, "lab", lab)
        object.__setattr__(self, "in_v2", in_v2)

    def find(self, workload: Workload) -> Place | None:
        place = super().find(workload)
        return replace(place, pod="u1") if place else None

    def started(self) -> Sequence[Started]:
        cgroup = PodCgroup(str(self.lab.branches["app"]), self.lab.cgroup_id("app"))  # type: ignore[attr-defined]
        return [Started(PodName("default", "a"), "u1", cgroup, True)]

    def branch(self) -> PodsBranch | None:
        return PodsBranch(CgroupBranch(1, 1)) if self.in_v2 else None  # type: ignore[attr-defined]


@contextmanager
def ztunnel_of_istio(lab: Lab, cgroup: str = "proxy", ports: Sequence[int] = PORTS) -> Iterator[None]:
    """Listens in pod `a` as it does; from the cgroup `app`, a process of the pod does."""
    with ExitStack() as stack:
        with lab.in_cgroup(cgroup):
            for port in ports:
                with lab.a.entered():  # now: sockets made in advance are of another cgroup
                    sock = stack.enter_context(socket.socket(socket.AF_INET6))
                sock.bind(("::", port))
                sock.listen()
        yield


@contextmanager
def rules_of_istio(lab: Lab) -> Iterator[None]:
    words = ["ip", "netns", "exec", lab.names["a"], "nft"]
    subprocess.run([*words, "add table ip nat; add chain ip nat ISTIO_OUTPUT"], check=True)
    yield
    subprocess.run([*words, "delete table ip nat"], check=True)


def look_at(lab: Lab, neighbours: Neighbours | None = None, **kubelet: bool) -> bool:
    place = replace(place_of(lab, "a"), pod="u1")
    return (neighbours or Neighbours(Kubelet(lab, **kubelet))).look(A, place)


def test_a_pod_is_another_mesh_s_if_that_listens_there_from_outside(lab: Lab) -> None:
    assert not look_at(lab)
    with ztunnel_of_istio(lab):
        assert look_at(lab)
        assert not look_at(lab, in_v2=False)  # nobody knows from where
        assert not Neighbours(Kubelet(lab)).look(A, place_of(lab, "a"))
    assert not look_at(lab)


def test_a_process_of_the_pod_cannot_pretend_it(lab: Lab) -> None:
    with ztunnel_of_istio(lab, "app"):
        assert not look_at(lab)
    with ztunnel_of_istio(lab, ports=PORTS[:2]), ztunnel_of_istio(lab, "app", PORTS[2:]):
        assert not look_at(lab)


def test_rules_alone_are_neither_a_way_out_nor_a_place_to_be(lab: Lab) -> None:
    with rules_of_istio(lab), pytest.raises(CannotEnroll, match=r"rules of Istio's CNI agent are in the pod"):
        look_at(lab)


def test_while_its_proxy_is_replaced_a_pod_stays_the_other_mesh_s(lab: Lab) -> None:
    neighbours = Neighbours(Kubelet(lab))
    with rules_of_istio(lab):
        with ztunnel_of_istio(lab):
            assert look_at(lab, neighbours)
        assert look_at(lab, neighbours)
        assert neighbours.alone == {A.uid: Alone(place_of(lab, "a").inode, ANNOTATED)}
        neighbours.only(set())
        with pytest.raises(CannotEnroll):
            look_at(lab, neighbours)
    assert not look_at(lab, neighbours)
    assert neighbours.alone == {}


def test_a_namespace_that_has_gone_is_told(lab: Lab) -> None:
    with pytest.raises(OSError, match=r"No such file"):
        Neighbours(Kubelet(lab)).look(A, Place("/run/netns/none-such", 7, "u1"))


async def test_each_pod_is_one_mesh_s(kernel: Kernel, nodes: ExitStack, autojump_clock: MockClock) -> None:
    """Istio's serves it; it is moved to ours; its rules come back, and are taken away."""
    lab = kernel.lab
    node = Node(kernel.redirection, "", A, find=Kubelet(lab))
    nodes.callback(node.close)
    there = kernel.listen(lab.x, 0)
    with ztunnel_of_istio(lab):
        async with node.running():
            assert node.state == {"a": "LeftAlone"}
            assert node.pods.dump()[A.uid]["reason"] == SERVED
            assert kernel.redirection.enrolled() == {}
            assert "pods of other meshes: default/a" in node.readiness.render(0.0)[1]
            kernel.connect(lab.a, "10.78.0.2", there.getsockname()[1])  # nobody is in its way
            await look(node)
            assert len(node.log.about("pod left alone")) == 1
    async with node.running():
        assert node.state == {"a": "Up"}
        assert "other meshes" not in node.readiness.render(0.0)[1]


async def test_a_pod_with_left_rules_is_refused_and_named(
    kernel: Kernel, nodes: ExitStack, autojump_clock: MockClock
) -> None:
    node = Node(kernel.redirection, "", A, find=Kubelet(kernel.lab))
    nodes.callback(node.close)
    async with node.running():
        pass
    kernel.redirection.withdraw_cookie(kernel.lab.a.cookie)
    with rules_of_istio(kernel.lab):
        async with node.running():
            assert node.state == {"a": "Pending"}
            assert kernel.redirection.enrolled()[kernel.lab.a.cookie].flags is PodFlag.REFUSED
            families = node.figures.families()
            (waiting,) = [one for one in families if one.name == "ztunnel_pods_pending"]
            assert [labels[2] for labels, _ in waiting.samples] == ["another mesh"]
    async with node.running():
        assert node.state == {"a": "Up"}


async def test_the_word_of_its_agent_counts_no_longer_than_what_it_has_made(
    kernel: Kernel, nodes: ExitStack, autojump_clock: MockClock
) -> None:
    """Istio was taken away, or the machine was started anew; the annotation is still there."""
    annotated = replace(A.native(), left_to=LeftTo.ISTIO)
    node = Node(kernel.redirection, "", annotated, find=Kubelet(kernel.lab))
    nodes.callback(node.close)
    async with node.running():
        assert node.state == {"a": "Up"}
        node.desk.publish(A)  # it is ours by now, and says so
        await look(node)
        assert node.state == {"a": "Up"}
    kernel.redirection.withdraw_cookie(kernel.lab.a.cookie)
    node = Node(kernel.redirection, "", annotated, find=Kubelet(kernel.lab))
    nodes.callback(node.close)
    with rules_of_istio(kernel.lab):
        async with node.running():
            assert node.state == {"a": "LeftAlone"}
            assert node.pods.dump()[A.uid]["reason"] == ANNOTATED
            assert kernel.redirection.enrolled() == {}


async def test_a_pod_of_istio_s_that_is_not_found_waits_for_nobody(
    kernel: Kernel, nodes: ExitStack, autojump_clock: MockClock
) -> None:
    stranger = replace(workload("stranger").on("n1").native(), left_to=LeftTo.ISTIO)
    node = Node(kernel.redirection, "", stranger, find=Kubelet(kernel.lab))
    nodes.callback(node.close)
    async with node.running():
        assert node.state == {"stranger": "LeftAlone"}
