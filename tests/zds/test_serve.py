"""The pods that the agent names: served, tried again, and let go."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random

import pytest
import trio

from tests.builders import workload
from tests.zds.agent import Agent, add, delete, keep, snapshot
from tests.zds.parts import NAMED, NODE, SHARED, WEB, Pod, Served, caller
from ztunnel.kernel.netns import current
from ztunnel.zds.listen import listen_redirected
from ztunnel.zds.message import Named

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

FAR = workload("far").on("n2").hbone().at("10.99.0.1", "fd99::1")
OTHER = Named("other", "shop", "other")


@contextmanager
def namespace(pod: Pod) -> Iterator[int]:
    with open(pod.path, "rb") as there:
        yield there.fileno()


def states(served: Served) -> dict[str, str]:
    return {uid: shown["state"] for uid, shown in served.pods.dump().items()}  # type: ignore[index]


async def test_a_pod_is_served_as_its_workload_from_when_it_is_named_until_it_is_taken_away() -> None:
    with Pod() as pod, Served(WEB) as served, namespace(pod) as fd:
        served.pods.connect()
        assert served.take(add("u1", NAMED), fd) == ""
        assert states(served) == {WEB.uid: "Up"}
        assert served.take(add("u1", NAMED), fd) == ""
        assert served.figure("workload_manager_proxies_started_total") == 1
        assert served.readiness.pending(0.0) == ["workload proxy manager"]
        assert served.take(snapshot()) == ""
        assert not served.readiness.pending(0.0)
        assert served.take(delete("u1")) == ""
        assert states(served) == {}
        assert served.take(delete("u1")) == ""
        assert served.figure("workload_manager_proxies_stopped_total") == 1


async def test_the_world_may_learn_of_a_pod_later_and_its_account_has_to_be_the_same() -> None:
    with Pod() as pod, Served() as served, namespace(pod) as fd:
        served.pods.connect()
        assert served.take(add("u1", NAMED), fd) == ""
        assert states(served) == {"u1": "Up"}
        served.desk.publish(workload("web").on(NODE).hbone().account("thief").at("10.78.0.2"))
        assert states(served) == {"u1": "Up"}
        served.desk.publish(workload("web").on("elsewhere").hbone().at("10.78.0.2"))
        assert states(served) == {"u1": "Up"}
        served.desk.publish(WEB)
        assert states(served) == {WEB.uid: "Up"}
        served.take(delete("u1"))


async def test_a_pod_that_cannot_be_served_is_pending_told_and_tried_again() -> None:
    with Pod() as pod, Served(WEB) as served, namespace(pod) as fd:
        served.pods.connect()
        with pod.open() as there, there.socket(socket.AF_INET, socket.SOCK_STREAM) as holder:
            holder.bind(("0.0.0.0", 15008))
            holder.listen()
            assert "port 15008 is taken" in served.take(add("u1", NAMED), fd)
            assert states(served) == {"u1": "Pending"}
            assert served.pods.pending() == [((NAMED.namespace, NAMED.name, "port taken"), 1.0)]
            assert "port 15008 is taken" in served.take(add("u1", NAMED), fd)
        assert served.take(add("u1", NAMED), fd) == ""
        assert states(served) == {WEB.uid: "Up"}
        assert served.pods.pending() == []
        assert served.figure("ztunnel_zds_refused_total") == 2
        served.take(delete("u1"))


async def test_what_is_refused_leaves_nothing_behind() -> None:
    with Pod() as pod, Served(WEB) as served, namespace(pod) as fd, current() as home:
        served.pods.connect()
        served.take(add("u1", NAMED), fd)
        before = len(os.listdir("/proc/self/fd"))
        pid = os.pidfd_open(os.getpid())
        for message, descriptors, reason in (
            (add("u2", OTHER), [home.fileno()], "in the node proxy's own network namespace"),
            (add("u2", OTHER), [fd], f"is that of {NAMED} "),
            (add("u2", OTHER), [pid], "is no network namespace"),
            (add("u2", OTHER), [fd, fd, fd], "this one with 3"),
            (delete("u1"), [fd], "needs none"),
            (keep("u2"), [], "not known here"),
            (b"?", [], "no WorkloadRequest"),
        ):
            assert reason in served.take(message, *descriptors)
        os.close(pid)
        assert len(os.listdir("/proc/self/fd")) == before
        assert states(served) == {WEB.uid: "Up"}
        assert len(served.log.about("request of the agent refused")) == 7
        served.take(delete("u1"))


async def test_a_pod_in_a_new_namespace_is_served_there() -> None:
    with Pod() as pod, Pod() as again, Served(WEB) as served:
        served.pods.connect()
        with namespace(pod) as fd:
            assert served.take(add("u1", NAMED), fd) == ""
        with namespace(again) as fd:
            assert served.take(add("u1", NAMED), fd) == ""
        with again.open() as there:
            [shown] = served.pods.dump().values()
            assert shown["state"] == "Up"  # type: ignore[index]
            assert [each.network.cookie for each in served.pods._held.values()] == [there.cookie]
        served.take(delete("u1"))


async def test_a_successor_is_seen_by_its_listener() -> None:
    with Pod() as pod, Served(WEB) as served, namespace(pod) as fd, pod.marked() as netns:
        served.pods.connect()
        assert not served.pods.succeeded
        served.take(add("u1", NAMED), fd)
        assert not served.pods.succeeded
        beside = listen_redirected(netns, "shop/web", SHARED)
        assert served.pods.succeeded
        beside.close()
        served.take(delete("u1"))


async def test_at_the_end_nothing_more_is_served_and_the_agent_is_told() -> None:
    with Pod() as pod, Served(WEB) as served, namespace(pod) as fd:
        served.pods.connect()
        served.take(add("u1", NAMED), fd)
        served.pods.stop_accepting()
        assert "ask its successor" in served.take(add("u2", OTHER), fd)
        for held in served.pods._held.values():
            held.let_go()


async def test_all_of_it_runs_with_an_agent_and_leaves_nothing(tmp_path: Path) -> None:
    with Agent(tmp_path / "a") as agent, Pod() as pod, Pod(rules=False) as other, Served(WEB) as served:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(served.pods.run, agent.path, Random(1))
            connected = await trio.to_thread.run_sync(agent.accept)
            assert await trio.to_thread.run_sync(connected.name, "u1", NAMED, pod.path) == ""
            assert await trio.to_thread.run_sync(connected.name, "u2", OTHER, other.path) == ""
            assert await trio.to_thread.run_sync(connected.send, snapshot()) == ""
            assert states(served) == {WEB.uid: "Up", "u2": "Up"}
            assert served.figure("ztunnel_zds_connected") == 1
            connected.close()
            agent.close()
            while served.pods.connected:  # noqa: ASYNC110
                await trio.sleep(0.01)
            assert "agent: not connected: " in served.readiness.render(0.0)[1]
            assert states(served) == {WEB.uid: "Up", "u2": "Up"}
            nursery.cancel_scope.cancel()


async def test_a_namespace_that_failed_is_not_tried_again_once_the_pod_has_another_one() -> None:
    """The kubelet makes a sandbox anew, with the same uid (istio/istio#52858)."""
    with Pod("10.78.0.9/24") as first, Pod() as second, Served(WEB) as served:
        first.address("del", "10.78.0.9/24")
        served.pods.connect()
        with namespace(first) as fd:
            assert "no address" in served.take(add("u1", NAMED), fd)
        with namespace(second) as fd:
            assert served.take(add("u1", NAMED), fd) == ""
        await served.pods._retry()
        assert states(served) == {WEB.uid: "Up"}
        with second.open() as there:
            assert [each.network.cookie for each in served.pods._held.values()] == [there.cookie]
        served.take(delete("u1"))


async def test_a_pod_that_is_long_gone_and_still_named_keeps_nobody_from_being_ready() -> None:
    """An agent that has lost track names it in each snapshot (istio/istio#53371)."""
    with Pod() as pod, Pod("10.78.0.9/24") as gone, Served(WEB) as served:
        gone.address("del", "10.78.0.9/24")
        served.pods.connect()
        with namespace(gone) as fd:
            assert "no address" in served.take(add("u2", OTHER), fd)
        with namespace(pod) as fd:
            assert served.take(add("u1", NAMED), fd) == ""
        assert served.take(snapshot()) == ""
        assert not served.readiness.pending(0.0)
        assert served.pods.pending() == [(("shop", "other", "no address"), 1.0)]
        served.take(delete("u1"))
        served.take(delete("u2"))
        assert served.pods.pending() == []


async def test_many_pods_at_once_are_each_answered_well_before_the_agent_gives_up() -> None:
    """It waits for five seconds for each answer, and the kubelet for it (istio/istio#53843)."""
    with ExitStack() as stack, Served() as served:
        pods = [stack.enter_context(Pod(rules=False)) for _ in range(30)]
        served.pods.connect()
        slowest = 0.0
        for number, pod in enumerate(pods):
            with namespace(pod) as fd:
                begun = time.monotonic()
                assert served.take(add(f"u{number}", Named(f"p{number}", "shop", "p")), fd) == ""
                slowest = max(slowest, time.monotonic() - begun)
        assert slowest < 1.0
        for number in range(len(pods)):
            served.take(delete(f"u{number}"))


async def test_a_pod_that_comes_again_under_another_uid_keeps_what_is_open() -> None:
    """A StatefulSet's pod, which the world knows by its name."""
    with Pod() as first, Pod() as second, Served(WEB, FAR) as served:
        served.pods.connect()
        with namespace(first) as fd:
            served.take(add("u1", NAMED), fd)
        with namespace(second) as fd:
            assert served.take(add("u2", NAMED), fd) == ""
        with caller(second, "10.99.0.1", 8080):
            served.rounds(lambda: served.asked)
            assert served.take(delete("u1")) == ""
            assert len(served.outbound.calls) == 1
            assert [each.identity for each in served.certificates.expiring()] == [WEB.identity]
            served.take(delete("u2"))
            assert len(served.outbound.calls) == 0


async def test_a_listener_that_is_lost_is_made_again_while_others_have_their_turn() -> None:
    with Pod() as pod, Pod() as other, Served(WEB) as served:
        served.pods.connect()
        with namespace(pod) as fd, namespace(other) as second:
            served.take(add("u1", NAMED), fd)
            served.take(add("u2", OTHER), second)
        words = ["ip", "netns", "exec", pod.name, "ss", "-K", "-l", "sport", "=", ":15008"]
        await trio.run_process(words, capture_stdout=True)
        turns = 0
        async with trio.open_nursery() as nursery:

            async def others() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await trio.lowlevel.checkpoint()

            nursery.start_soon(others)
            await served.pods._look()
            nursery.cancel_scope.cancel()
        assert turns
        assert served.log.about("listener hbone")
        for uid in ("u1", "u2"):
            served.take(delete(uid))
        await served.pods._look()
