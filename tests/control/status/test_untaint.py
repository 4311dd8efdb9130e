"""A node whose proxy is ready loses the taint that it came with, once, and nothing else of it is changed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import trio

from tests.control.calling import Pods, pod
from tests.kube.fake import FakeServer, answer, once, status
from ztunnel.control.status.untaint import Untainting, without
from ztunnel.kube.resource import NODES
from ztunnel.state import kube
from ztunnel.telemetry.figures import Figures

KEY = "ztunnel.io/not-ready"
OURS = {"key": KEY, "effect": "NoSchedule"}
OTHER = {"key": "node.cilium.io/agent-not-ready", "effect": "NoExecute"}
LABELS = {"app.kubernetes.io/name": "ztunnel", "app.kubernetes.io/component": "node"}


def proxy(node: str, ready: bool = True, uid: str = "", **labels: str) -> kube.Pod:
    made = pod(f"ztunnel-{node}", "ztunnel", node, "ztunnel-system", uid or f"uid-{node}")
    return replace(made, ready=ready, meta=replace(made.meta, labels={**LABELS, **labels}))


class Cluster:
    """Nodes in an API server, and pods as the control plane knows them."""

    def __init__(self, *proxies: kube.Pod) -> None:
        self.server, self.pods = FakeServer(NODES), Pods(*proxies)
        self.troubles: list[str] = []
        self.untainting: Untainting | None = None

    def node(self, name: str, *taints: dict[str, str]) -> None:
        self.server.put(NODES, {"metadata": {"name": name}, "spec": {"podCIDR": "x", "taints": list(taints)}})

    def spec(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.server.objects[NODES.path()]["", name]["spec"]
        return found

    def know(self, one: kube.Pod) -> None:
        self.pods.all[one.meta.namespace, one.meta.name] = one
        assert self.untainting is not None
        self.untainting.wake()

    @property
    def asked(self) -> list[str]:
        """The nodes that were asked for, or changed, in order."""
        return [one.url.path.rpartition("/")[2] for one in self.server.requests]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Untainting]:
        async with self.server.api() as api, trio.open_nursery() as nursery:
            self.untainting = Untainting(api, lambda: self.pods, "ztunnel-system", KEY, self.troubles.append)
            nursery.start_soon(self.untainting.run)
            yield self.untainting
            nursery.cancel_scope.cancel()


async def test_it_goes_when_the_proxy_is_ready_and_not_before(autojump_clock: object) -> None:
    cluster = Cluster(proxy("n1", ready=False))
    cluster.node("n1", OTHER, OURS)
    async with cluster.running():
        await trio.sleep(60)
        assert cluster.spec("n1")["taints"] == [OTHER, OURS]
        cluster.know(proxy("n1"))
        await trio.sleep(1)
        assert cluster.spec("n1") == {"podCIDR": "x", "taints": [OTHER]}


async def test_the_last_taint_goes_as_well(autojump_clock: object) -> None:
    cluster = Cluster(proxy("n1"))
    cluster.node("n1", OURS, {**OURS, "effect": "NoExecute", "value": "x"})
    async with cluster.running():
        await trio.sleep(1)
        assert not cluster.spec("n1").get("taints")


async def test_a_proxy_that_is_no_longer_ready_changes_nothing(autojump_clock: object) -> None:
    cluster = Cluster(proxy("n1"))
    cluster.node("n1")
    async with cluster.running():
        await trio.sleep(1)
        cluster.know(proxy("n1", ready=False))
        cluster.node("n1", OURS)  # by somebody's hand
        cluster.know(proxy("n1"))
        await trio.sleep(60)
        assert cluster.spec("n1")["taints"] == [OURS]
        cluster.know(proxy("n1", uid="the next"))  # of a node that was made anew, under the same name
        await trio.sleep(1)
        assert not cluster.spec("n1").get("taints")


@pytest.mark.parametrize(
    "other",
    [
        proxy("n1", **{"app.kubernetes.io/component": "control"}),
        replace(pod("ztunnel-n1", "ztunnel", "n1", "shop"), ready=True),
        replace(proxy("n1"), node=""),
    ],
)
async def test_other_pods_are_no_proxies(autojump_clock: object, other: kube.Pod) -> None:
    cluster = Cluster(other)
    cluster.node("n1", OURS)
    async with cluster.running():
        await trio.sleep(10)
    assert cluster.spec("n1")["taints"] == [OURS]
    assert cluster.asked == []


async def test_new_nodes_are_not_kept_waiting_by_thousands_that_are_there(autojump_clock: object) -> None:
    cluster = Cluster(*(proxy(f"old{number}") for number in range(300)))
    for number in range(300):
        cluster.node(f"old{number}")
    cluster.node("new", OURS)
    async with cluster.running():
        await trio.sleep(0.5)
        cluster.know(proxy("new"))
        await trio.sleep(0.5)
        assert not cluster.spec("new").get("taints")
        assert len(cluster.asked) < 50
        await trio.sleep(60)
        assert len(cluster.asked) == 300 + 2
        cluster.know(proxy("new"))
        await trio.sleep(60)
        assert len(cluster.asked) == 300 + 2  # each once


async def test_what_fails_is_said_and_tried_again(autojump_clock: object) -> None:
    cluster = Cluster(proxy("n1"))
    cluster.node("n1", OURS)
    forbidden = answer(403, status(403, "Forbidden", "nodes is forbidden"))
    cluster.server.faults = [once(None, forbidden)]  # it may read, and not write
    async with cluster.running() as untainting:
        await trio.sleep(10)
        assert not cluster.spec("n1").get("taints")
        assert untainting.nodes == {"failed": 1, "changed": 1}
        figures = Figures()
        untainting.register(figures)
        assert "ztunnel_control_untainted_total" in str(list(figures.families()))
    assert "patch nodes n1" in cluster.troubles[0]
    assert cluster.troubles[1:] == [""]


async def test_a_node_that_changed_meanwhile_is_read_again_and_one_that_is_gone_is_left(
    autojump_clock: object,
) -> None:
    cluster = Cluster(proxy("n1"))
    cluster.node("n1", OURS)
    conflict = answer(409, status(409, "Conflict", "changed"))
    cluster.server.faults = [once(None, conflict)]
    async with cluster.running():
        await trio.sleep(10)
        cluster.know(proxy("gone"))
        await trio.sleep(10)
    assert not cluster.spec("n1").get("taints")
    assert cluster.asked == ["n1", "n1", "n1", "n1", "gone"]
    assert cluster.troubles == []


@pytest.mark.parametrize(
    "node", [{}, {"spec": None}, {"spec": {"taints": None}}, {"spec": {"taints": ["x", OTHER]}}]
)
def test_a_node_without_it_is_left_alone(node: dict[str, Any]) -> None:
    assert without(node, KEY) is None
