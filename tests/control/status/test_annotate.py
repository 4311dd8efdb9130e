"""Enrolment is written on pods as their node proxies report it, some a second, and on no others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import trio

from tests.control.calling import Pods, peer, pod
from tests.kube.fake import FakeServer, answer, once, status
from ztunnel.control.status.annotate import BETWEEN_SECONDS, KEPT_SECONDS, Annotator, EnrolmentService
from ztunnel.control.status.enrolment import OURS, REDIRECTION
from ztunnel.kube.resource import PODS
from ztunnel.rpc.status import Code, RpcError
from ztunnel.state import kube
from ztunnel.telemetry.figures import Figures
from ztunnel.xds.enrolment import NOTED, EnrolledPod, render_pods

MARKED = {REDIRECTION: "enabled", OURS: "enabled"}


def reported(*names: str) -> bytes:
    return render_pods(EnrolledPod("shop", name, f"uid-{name}") for name in names)


class Cluster:
    """Pods in an API server, and as the control plane knows them."""

    def __init__(self, *pods: kube.Pod) -> None:
        self.server = FakeServer(PODS)
        self.pods = Pods()
        self.quiet = False
        for one in pods:
            self.put(one)

    def put(self, one: kube.Pod) -> None:
        meta = one.meta
        value = {"name": meta.name, "namespace": meta.namespace, "uid": meta.uid}
        self.server.put(PODS, {"metadata": {**value, "annotations": dict(meta.annotations)}})
        self.know(one)

    def know(self, one: kube.Pod) -> None:
        self.pods.all[one.meta.full_name] = one

    def annotations(self, name: str) -> dict[str, str]:
        found: dict[str, str] = self.server.objects[PODS.path()]["shop", name]["metadata"]["annotations"]
        return found

    def see(self) -> None:
        """The informer has told what was written."""
        for name, one in tuple(self.pods.all.items()):
            if name in self.server.objects[PODS.path()]:
                self.know(replace(one, meta=replace(one.meta, annotations=self.annotations(name[1]))))

    @property
    def patches(self) -> list[str]:
        """The pods that were written on, in order."""
        asked = [one for one in self.server.requests if one.method == "PATCH"]
        assert all(one.url.path.endswith("/status") for one in asked)
        return [one.url.path.split("/")[-2] for one in asked]

    @asynccontextmanager
    async def annotating(self) -> AsyncIterator[Annotator]:
        async with self.server.api() as api, trio.open_nursery() as nursery:
            annotator = Annotator(api, lambda: self.pods, lambda: self.quiet)
            nursery.start_soon(annotator.run)
            yield annotator
            nursery.cancel_scope.cancel()


def pods(names: Iterable[str], node: str = "n1") -> list[kube.Pod]:
    return [pod(name, "web", node) for name in names]


async def test_what_a_node_proxy_reports_is_written_and_taken_off_again(autojump_clock: object) -> None:
    cluster = Cluster(*pods("ab"))
    async with cluster.annotating() as annotator:
        annotator.take("n1", reported("a", "b"))
        await trio.sleep(1)
        assert (cluster.annotations("a"), cluster.annotations("b")) == (MARKED, MARKED)
        cluster.see()
        annotator.take("n1", reported("a", "b"))
        await trio.sleep(1)
        assert cluster.patches == ["a", "b"]  # nothing is written twice
        annotator.take("n1", reported("b"))
        await trio.sleep(1)
        assert (cluster.annotations("a"), cluster.annotations("b")) == ({}, MARKED)
        assert annotator.written == {"written": 3}


async def test_a_node_proxy_is_believed_about_pods_of_its_own_node_alone(autojump_clock: object) -> None:
    cluster = Cluster(*pods("a"), *pods("b", "n2"))
    cluster.put(replace(pod("c", "web", "n2"), meta=replace(pod("c", "web", "n2").meta, annotations=MARKED)))
    async with cluster.annotating() as annotator:
        annotator.take("n1", reported("a", "b"))
        await trio.sleep(1)
        assert cluster.patches == ["a"]
        annotator.take("n2", reported("b", "c"))  # what another one says of them does not count
        await trio.sleep(1)
        assert cluster.patches == ["a", "b"]


async def test_a_pod_that_took_the_name_of_another_is_not_written_on(autojump_clock: object) -> None:
    cluster = Cluster(*pods("a"))
    cluster.put(pod("b", "web", "n1", uid="new"))
    cluster.know(pod("b", "web", "n1"))  # it has been made anew, and we do not know yet
    async with cluster.annotating() as annotator:
        annotator.take("n1", reported("b"))
        await trio.sleep(10)
        assert cluster.annotations("b") == {}
        assert (annotator.written, annotator.trouble) == ({}, "")
        assert cluster.patches == ["b"]


async def test_a_pod_that_the_node_proxy_knows_first_is_waited_for(autojump_clock: object) -> None:
    cluster = Cluster()
    async with cluster.annotating() as annotator:
        annotator.take("n1", reported("a", "late"))
        await trio.sleep(1)
        cluster.put(pod("a", "web", "n1"))
        annotator.wake()
        await trio.sleep(1)
        assert cluster.annotations("a") == MARKED
        await trio.sleep(KEPT_SECONDS)
        cluster.put(pod("late", "web", "n1"))
        annotator.wake()
        await trio.sleep(1)
        assert cluster.annotations("late") == {}


async def test_a_word_that_we_have_not_seen_yet_can_be_taken_off(autojump_clock: object) -> None:
    """The API server is slower than pods come and go."""
    cluster = Cluster(*pods("a"))
    async with cluster.annotating() as annotator:
        annotator.take("n1", reported("a"))
        await trio.sleep(1)
        annotator.take("n1", reported())
        await trio.sleep(1)
        assert cluster.annotations("a") == MARKED  # as far as we know, nothing stands there
        cluster.see()
        annotator.wake()
        await trio.sleep(1)
        assert cluster.annotations("a") == {}
        cluster.see()
        annotator.take("n1", reported())
        await trio.sleep(2 * KEPT_SECONDS)
        assert cluster.patches == ["a", "a"]


async def test_a_storm_of_pods_is_no_storm_of_writes(autojump_clock: object) -> None:
    names = [f"p{number}" for number in range(100)]
    cluster = Cluster(*pods(names))
    async with cluster.annotating() as annotator:
        begun = trio.current_time()
        annotator.take("n1", reported(*names))
        while len(cluster.patches) < len(names):  # noqa: ASYNC110
            await trio.sleep(0.01)
        assert trio.current_time() - begun >= (len(names) - 1) * BETWEEN_SECONDS


async def test_beside_an_istiod_nothing_is_written(autojump_clock: object) -> None:
    cluster = Cluster(*pods("a"))
    cluster.quiet = True
    async with cluster.annotating() as annotator:
        annotator.take("n1", reported("a"))
        await trio.sleep(10)
        assert cluster.patches == []


@pytest.mark.parametrize("code", [403, 429, 500])
async def test_what_the_api_server_refuses_is_said_and_tried_again(autojump_clock: object, code: int) -> None:
    cluster = Cluster(*pods("a"))
    cluster.server.faults.append(once(answer(code, status(code, "No", "not now"))))
    async with cluster.annotating() as annotator:
        annotator.take("n1", reported("a"))
        await trio.sleep(1)
        assert "pods/status" in annotator.trouble
        await trio.sleep(10)
        assert (annotator.trouble, annotator.written) == ("", {"failed": 1, "written": 1})
        assert cluster.annotations("a") == MARKED
        figures = Figures()
        annotator.register(figures)
        (family,) = [one for one in figures.families() if one.name == "ztunnel_control_annotations_total"]
        assert sorted(family.samples) == [(("failed",), 1.0), (("written",), 1.0)]


async def test_what_is_reported_meanwhile_counts_more_than_what_is_tried_again(
    autojump_clock: object,
) -> None:
    cluster = Cluster(*pods("a"))
    cluster.server.faults.append(once(answer(500, status(500, "No", "not now"))))
    async with cluster.annotating() as annotator:
        annotator.take("n1", reported("a"))
        await trio.sleep(1)
        annotator.take("n1", reported())
        await trio.sleep(10)
        assert cluster.annotations("a") == {}


class Called:
    """One call of a node proxy."""

    def __init__(self, *messages: bytes, node: str = "n1") -> None:
        self.metadata, self.peer = {"node": node}, peer()
        self._messages, self.sent = list(messages), list[bytes]()
        self.most = 0

    def take_messages_of(self, most_bytes: int) -> None:
        self.most = most_bytes

    async def receive(self) -> bytes | None:
        await trio.lowlevel.checkpoint()
        return self._messages.pop(0) if self._messages else None

    async def send(self, message: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.sent.append(message)


async def identify(metadata: Any, _peer: Any) -> str:
    await trio.lowlevel.checkpoint()
    if not metadata["node"]:
        raise RpcError(Code.PERMISSION_DENIED, "not a node proxy")
    return str(metadata["node"])


async def test_a_call_is_answered_when_it_was_taken(autojump_clock: object) -> None:
    cluster = Cluster(*pods("a"))
    async with cluster.annotating() as annotator:
        call = Called(reported("a"))
        await EnrolmentService(annotator, identify).report(call)
        assert (call.sent, call.most) == ([NOTED], 1 << 20)
        await trio.sleep(1)
        assert cluster.patches == ["a"]


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (Called(reported("a"), node=""), Code.PERMISSION_DENIED),
        (Called(), Code.INVALID_ARGUMENT),
        (Called(b"\xff"), Code.INVALID_ARGUMENT),
    ],
    ids=["nobody", "nothing", "nonsense"],
)
async def test_a_call_that_makes_no_sense_is_refused(
    autojump_clock: object, call: Called, code: Code
) -> None:
    cluster = Cluster(*pods("a"))
    async with cluster.annotating() as annotator:
        with pytest.raises(RpcError) as caught:
            await EnrolmentService(annotator, identify).report(call)
        assert caught.value.code is code
        assert call.sent == []


async def test_a_node_proxy_that_reports_without_end_is_slowed(autojump_clock: object) -> None:
    cluster = Cluster(*pods("a"))
    async with cluster.annotating() as annotator:
        for _ in range(20):
            annotator.take("n1", reported("a"))
        with pytest.raises(RpcError, match="reports a second of node n1") as caught:
            annotator.take("n1", reported("a"))
        assert caught.value.code is Code.RESOURCE_EXHAUSTED
        annotator.take("n2", reported())
        await trio.sleep(1)
        annotator.take("n1", reported("a"))
