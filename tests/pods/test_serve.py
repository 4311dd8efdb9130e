"""Pods of a node as the world wants them: enrolled, removed, and everything in between."""

from __future__ import annotations

import errno
import os
import socket
import time
from contextlib import ExitStack
from dataclasses import replace
from errno import ECONNRESET
from socket import SO_ERROR, SOL_SOCKET

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.kernel.lab import Kernel
from tests.pods.parts import FWMARK, NODE, A, B, Node, Open, Scratch, is_served, made, port_taken, served
from ztunnel.flow.drive import drive
from ztunnel.kernel.sockets import cookie_of, listen_in
from ztunnel.model.workload import Workload
from ztunnel.pods.find import NamedNamespaces
from ztunnel.pods.kubelet import Place
from ztunnel.pods.lifecycle import STARTS_SECONDS
from ztunnel.pods.listen import Listeners
from ztunnel.pods.serve import GRACE_SECONDS
from ztunnel.pods.watch import LOOK_AGAIN_SECONDS, TRY_AGAIN_SECONDS
from ztunnel.redirect.layout import PodFlag

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


def duplicate(listeners: Listeners) -> Listeners:
    """As another process has them."""
    return Listeners.of([each.dup() for each in listeners.all])


async def look(node: Node) -> None:
    """Let the pods be looked at again."""
    await trio.sleep(LOOK_AGAIN_SECONDS)
    await wait_all_tasks_blocked()


async def test_a_pod_follows_its_label(kernel: Kernel, nodes: ExitStack, autojump_clock: MockClock) -> None:
    node = made(nodes, kernel, A)
    assert node.readiness.pending(0.0) == ["pods"]
    async with node.running():
        assert node.readiness.pending(0.0) == []
        assert (node.state, node.wanted) == ({"a": "Up"}, ["a"])
        assert node.direct.pods.keys() == {A.uid}
        assert is_served(kernel, node)
        node.desk.publish(A.plain())
        await wait_all_tasks_blocked()
        assert kernel.redirection.enrolled()[kernel.lab.a.cookie].flags is PodFlag.LEAVING
        assert (node.state, node.direct.pods) == ({"a": "Draining"}, {})
        await trio.sleep(GRACE_SECONDS)
        await wait_all_tasks_blocked()
        assert kernel.redirection.enrolled() == {}
        assert (node.state, node.wanted) == ({}, [])
        assert kernel.lab.a.read_sysctl(FWMARK) == "0"
    assert node.log.about("pod enrolled")
    assert node.log.about("pod withdrawn")


def spares(kernel: Kernel, node: Node) -> int:
    """Sockets that were made in advance."""
    namespaces = (kernel.lab.a, *(network.netns for network in node.direct.pods.values()))
    return sum(each.spares for each in namespaces)


async def test_a_label_may_flap(kernel: Kernel, nodes: ExitStack, autojump_clock: MockClock) -> None:
    node = made(nodes, kernel, A)
    async with node.running():
        before = len(os.listdir("/proc/self/fd")) - spares(kernel, node)
        for _ in range(5):
            node.desk.publish(A.plain())
            await wait_all_tasks_blocked()
            assert node.state == {"a": "Draining"}
            node.desk.publish(A)
            await wait_all_tasks_blocked()
            assert (node.state, node.wanted) == ({"a": "Up"}, ["a"])
            assert is_served(kernel, node)
        await trio.sleep(3 * GRACE_SECONDS)
        assert is_served(kernel, node)
        assert len(os.listdir("/proc/self/fd")) - spares(kernel, node) == before
        assert not node.log.about("pending")


async def test_both_label_changes_may_come_at_once(
    kernel: Kernel, nodes: ExitStack, autojump_clock: MockClock
) -> None:
    node = made(nodes, kernel, A)
    async with node.running():
        node.desk.publish(A.plain())
        node.desk.publish(A)
        await wait_all_tasks_blocked()
        assert is_served(kernel, node)
        assert not node.log.about("withdrawn")


async def test_a_pod_that_comes_back_with_old_connections_keeps_them(
    kernel: Kernel, nodes: ExitStack, autojump_clock: MockClock
) -> None:
    node = made(nodes, kernel, A)
    async with node.running():
        live = Open(node, A.uid)
        node.desk.live.register(live)
        node.desk.publish(A.plain())
        await trio.sleep(3 * GRACE_SECONDS)
        assert node.state == {"a": "Draining"}
        assert kernel.lab.a.read_sysctl(FWMARK) == "1"
        assert node.wanted == []
        node.desk.publish(A)
        await wait_all_tasks_blocked()
        assert (node.state, node.wanted) == ({"a": "Up"}, ["a"])
        assert is_served(kernel, node)
        node.desk.publish(A.plain())
        await trio.sleep(2 * GRACE_SECONDS)
        assert kernel.lab.a.read_sysctl(FWMARK) == "1"
        node.desk.live.unregister(live)
        await look(node)
        assert node.state == {}
        assert kernel.lab.a.read_sysctl(FWMARK) == "0"
        assert live.ended == []


async def test_a_pod_is_waited_for_and_told_of_once(
    kernel: Kernel, nodes: ExitStack, autojump_clock: MockClock
) -> None:
    with Scratch("10.9.0.1/24") as scratch:
        scratch.delete()
        _, node = served(nodes, kernel, scratch)
        async with node.running():
            assert (node.state, node.readiness.pending(0.0)) == ({"s": "Pending"}, [])
            assert "not there yet" in node.readiness.render(0.0)[1]
            await trio.sleep(STARTS_SECONDS - LOOK_AGAIN_SECONDS)
            assert node.log.about("not there yet") == []
            await trio.sleep(10 * LOOK_AGAIN_SECONDS)
            assert len(node.log.about("not there yet")) == 1
            scratch.addresses = ()
            scratch.add()
            await trio.sleep(2 * TRY_AGAIN_SECONDS)
            assert len(node.log.about("its network namespace has no address")) == 1
            scratch.address("add", "10.9.0.1/24")
            await trio.sleep(2 * TRY_AGAIN_SECONDS)
            assert (node.state, node.readiness.pending(0.0)) == ({"s": "Up"}, [])


async def test_a_pod_that_holds_our_port_is_pending_until_it_lets_go(
    kernel: Kernel, nodes: ExitStack, autojump_clock: MockClock
) -> None:
    node = made(nodes, kernel, A, B)
    there = kernel.listen(kernel.lab.x, 0)
    away = there.getsockname()[1]
    with port_taken(kernel.lab.names["a"]) as pid:
        async with node.running():
            assert node.state == {"a": "Pending", "b": "Up"}
            await trio.sleep(5 * LOOK_AGAIN_SECONDS)
            (line,) = node.log.about("port 15008 is taken by a process of the pod")
            assert f"(pid {pid})" in line
            assert f"(pid {pid})" in node.readiness.render(0.0)[1]
            assert pending(node) == {("default", "a", "port taken"): 1}
            # Nothing of it is in plaintext meanwhile, and nothing of it is left.
            for caller, host, port in ((kernel.lab.a, "10.78.0.2", away), (kernel.lab.x, "10.77.0.2", 15008)):
                with pytest.raises(ConnectionRefusedError):
                    kernel.connect(caller, host, port)
            assert (kernel.count("connect_pending"), kernel.count("inbound_pending")) == (1, 1)
            assert kernel.lab.a.read_sysctl(FWMARK) == "0"
        # The process ends, and nothing changes.
        with pytest.raises(ConnectionRefusedError):
            kernel.connect(kernel.lab.a, "10.78.0.2", away)
    node = made(nodes, kernel, A, B)
    async with node.running():
        assert node.state == {"a": "Up", "b": "Up"}
        assert pending(node) == {}
        kernel.connect(kernel.lab.a, "10.78.0.2", away)
        node.desk.publish(A.plain(), B)
        await trio.sleep(2 * GRACE_SECONDS)


async def test_a_pod_that_could_not_be_enrolled_is_free_when_it_is_not_wanted_any_more(
    kernel: Kernel, nodes: ExitStack, autojump_clock: MockClock
) -> None:
    node = made(nodes, kernel, A)
    there = kernel.listen(kernel.lab.x, 0)
    with port_taken(kernel.lab.names["a"]):
        async with node.running():
            assert node.state == {"a": "Pending"}
            with pytest.raises(ConnectionRefusedError):
                kernel.connect(kernel.lab.a, "10.78.0.2", there.getsockname()[1])
            node.desk.publish(A.plain())
            await wait_all_tasks_blocked()
            assert node.state == {}
            assert kernel.redirection.enrolled() == {}
            kernel.connect(kernel.lab.a, "10.78.0.2", there.getsockname()[1])


async def test_a_pod_that_is_refused_before_its_moment_is_over_stays_refused(
    kernel: Kernel, nodes: ExitStack, autojump_clock: MockClock
) -> None:
    node = made(nodes, kernel, A)
    async with node.running():
        node.desk.publish(A.plain())
        await wait_all_tasks_blocked()
        node.desk.publish(A.at("10.77.0.99"))
        await wait_all_tasks_blocked()
        await trio.sleep(GRACE_SECONDS)
        await wait_all_tasks_blocked()
        assert kernel.redirection.enrolled()[kernel.lab.a.cookie].flags is PodFlag.REFUSED


async def test_a_pod_is_refused_from_the_first_moment_of_its_namespace(
    kernel: Kernel, nodes: ExitStack
) -> None:
    """By the real clock: the kernel tells of the namespace, nobody waits for the next look."""
    with Scratch("10.9.0.1/24", "fd09::1/64") as scratch:
        scratch.delete()
        pod, node = served(nodes, kernel, scratch)
        async with node.running(), trio.open_nursery() as nursery:
            nursery.start_soon(drive, node.engine)
            assert pending(node) == {("default", "a", "no namespace"): 1}
            await trio.sleep(4 * TRY_AGAIN_SECONDS)  # it is looked for at the slowest now
            addresses, scratch.addresses = scratch.addresses, ()
            begun = trio.current_time()
            scratch.add()
            with trio.fail_after(2):
                while not kernel.redirection.enrolled():  # noqa: ASYNC110 (the kernel tells nobody)
                    await trio.sleep(0.002)
            assert trio.current_time() - begun < 2
            (refused,) = kernel.redirection.enrolled().values()
            assert refused.flags is PodFlag.REFUSED
            assert pending(node) == {("default", "a", "no address"): 1}
            for address in addresses:
                scratch.address("add", address)
            with trio.fail_after(5):
                while node.state != {"s": "Up"}:  # noqa: ASYNC110
                    await trio.sleep(0.002)
            (enrolled,) = kernel.redirection.enrolled().values()
            assert enrolled.flags is PodFlag.NONE
            node.desk.publish(removed=[pod.uid])
            with trio.fail_after(5):
                while kernel.redirection.enrolled():  # noqa: ASYNC110
                    await trio.sleep(0.002)
            nursery.cancel_scope.cancel()


def pending(node: Node) -> dict[tuple[str, ...], float]:
    """The figure of pods that are pending."""
    families = node.figures.families()
    return dict(next((each.samples for each in families if each.name == "ztunnel_pods_pending"), ()))


async def test_a_namespace_replaced_under_the_same_name_is_another_pod(
    kernel: Kernel, nodes: ExitStack, autojump_clock: MockClock
) -> None:
    with Scratch("10.9.0.1/24") as scratch:
        pod, node = served(nodes, kernel, scratch)
        async with node.running():
            live = Open(node, pod.uid)
            node.desk.live.register(live)
            (first,) = kernel.redirection.enrolled()
            scratch.delete()
            scratch.add()
            await look(node)
            (second,) = kernel.redirection.enrolled()
            assert first != second
            assert (node.state, node.wanted) == ({"s": "Up"}, ["a"])
            assert [str(error) for error in live.ended] == ["the pod has gone"]
            scratch.delete()
            await look(node)
            assert kernel.redirection.enrolled() == {}
            assert (node.state, node.wanted) == ({"s": "Pending"}, [])


async def test_a_pod_that_is_restarted_under_its_name_is_noticed_at_once(
    kernel: Kernel, nodes: ExitStack, autojump_clock: MockClock
) -> None:
    with Scratch("10.9.0.1/24") as scratch:
        _, node = served(nodes, kernel, scratch)
        async with node.running():
            (first,) = kernel.redirection.enrolled()
            before = trio.current_time()
            scratch.delete()
            scratch.add()
            deadline = time.monotonic() + 5
            while set(kernel.redirection.enrolled()) <= {first} and time.monotonic() < deadline:
                node.engine.round(0.01)
                await wait_all_tasks_blocked()
            assert set(kernel.redirection.enrolled()).isdisjoint({first})
            assert trio.current_time() - before < LOOK_AGAIN_SECONDS
            assert node.state == {"s": "Up"}


async def test_a_withdrawn_pod_that_goes_while_it_drains_is_let_go(
    kernel: Kernel, nodes: ExitStack, autojump_clock: MockClock
) -> None:
    with Scratch("10.9.0.1/24") as scratch:
        pod, node = served(nodes, kernel, scratch)
        async with node.running():
            live = Open(node, pod.uid)
            node.desk.live.register(live)
            node.desk.publish(pod.plain())
            await wait_all_tasks_blocked()
            scratch.delete()
            await look(node)
            assert (node.state, node.wanted) == ({}, [])
            assert len(live.ended) == 1
            # And if it comes back at once, in another namespace:
            scratch.add()
            node.desk.publish(pod)
            await wait_all_tasks_blocked()
            assert (node.state, node.wanted) == ({"s": "Up"}, ["a"])


async def test_a_successor_takes_over_and_removes_who_is_not_wanted_any_more(
    kernel: Kernel, nodes: ExitStack, autojump_clock: MockClock
) -> None:
    node = made(nodes, kernel, A, B)
    async with node.running():
        node.pods.stop_accepting()
        with pytest.raises(ConnectionRefusedError):
            kernel.connect(kernel.lab.a, "10.77.0.3", 80)
    assert len(kernel.redirection.enrolled()) == 2
    assert node.wanted == []
    successor = made(nodes, kernel, A)
    async with successor.running():
        assert set(kernel.redirection.enrolled()) == {kernel.lab.a.cookie}
        assert is_served(kernel, successor)


async def test_a_wanted_pod_that_cannot_be_taken_over_stays_captured_and_others_are_removed(
    kernel: Kernel, nodes: ExitStack, autojump_clock: MockClock
) -> None:
    node = made(nodes, kernel, A, B)
    async with node.running():
        pass
    successor = made(nodes, kernel, A)
    with listen_in(kernel.lab.a, 15008, 1) as taken:
        async with successor.running():
            assert set(kernel.redirection.enrolled()) == {kernel.lab.a.cookie}
            assert successor.state == {"a": "Pending"}
            taken.close()
            await trio.sleep(2 * TRY_AGAIN_SECONDS)
            assert successor.state == {"a": "Up"}
            assert is_served(kernel, successor)


async def test_a_process_that_stops_enrolls_no_more(
    kernel: Kernel, nodes: ExitStack, autojump_clock: MockClock
) -> None:
    node = made(nodes, kernel, A)
    async with node.running():
        node.pods.stop_accepting()
        node.desk.publish(B)
        await look(node)
        assert node.state == {"a": "Up"}
        node.desk.publish(A.plain())
        await look(node)
        assert kernel.redirection.enrolled() == {}


async def test_another_nodes_pods_and_those_that_serve_themselves_are_left_alone(
    kernel: Kernel, nodes: ExitStack, autojump_clock: MockClock
) -> None:
    node = made(nodes, kernel, A.on("n2"), B.native())
    async with node.running():
        assert node.state == {}
        node.desk.publish(A.on(NODE))
        await wait_all_tasks_blocked()
        assert node.state == {"a": "Up"}


async def test_pods_that_are_removed_a_hundred_times_leak_nothing(
    kernel: Kernel, nodes: ExitStack, autojump_clock: MockClock
) -> None:
    node = made(nodes, kernel, A)
    async with node.running():
        before = 0
        for _ in range(100):
            node.desk.publish(A.plain())
            await trio.sleep(2 * GRACE_SECONDS)
            assert node.state == {}
            node.desk.publish(A)
            await wait_all_tasks_blocked()
            before = before or len(os.listdir("/proc/self/fd"))
        assert len(os.listdir("/proc/self/fd")) == before
        assert node.wanted == ["a"]


def test_it_is_a_port_of_the_pods_own() -> None:
    """What `CannotEnroll` reports is this error of the kernel."""
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        one.listen()
        with pytest.raises(OSError, match="in use") as taken:
            other.bind(one.getsockname())
    assert taken.value.errno == errno.EADDRINUSE


async def test_a_successor_goes_on_with_the_same_listeners_and_what_waits_in_them(
    kernel: Kernel, nodes: ExitStack, autojump_clock: MockClock
) -> None:
    old, new = made(nodes, kernel, A, B), made(nodes, kernel, A)
    async with old.running():
        await old.pods.hold_back()
        assert not is_served(kernel, old)
        with ExitStack() as callers:
            clients = [callers.enter_context(kernel.socket(kernel.lab.a, "10.77.0.3")) for _ in range(200)]
            for client in clients:
                client.setblocking(False)
                client.connect_ex(("10.77.0.3", 9))
            offered = old.pods.offered()
            assert offered.keys() == {kernel.lab.a.cookie, kernel.lab.b.cookie}
            cookies = {cookie_of(each) for listeners in offered.values() for each in listeners.all}
            new.pods.inherit({cookie: duplicate(each) for cookie, each in offered.items()})
            async with new.running():
                assert new.state == {"a": "Up"}
                old.pods.hand_over()
                mine = new.pods.offered()
                assert mine.keys() == {kernel.lab.a.cookie}  # the other has left the mesh, and is let go
                assert {cookie_of(each) for each in mine[kernel.lab.a.cookie].all} < cookies
                with kernel.lab.in_cgroup("proxy"):
                    for _ in range(200):
                        new.engine.round(0.01)
                assert all(client.getsockopt(SOL_SOCKET, SO_ERROR) == ECONNRESET for client in clients)
                assert is_served(kernel, new)
                assert not old.desk.lines


async def test_where_nobody_takes_over_it_serves_on(
    kernel: Kernel, nodes: ExitStack, autojump_clock: MockClock
) -> None:
    node = made(nodes, kernel, A)
    async with node.running():
        for _ in range(2):
            await node.pods.hold_back()
            looks = node.starting.count
            node.desk.publish(A.plain())
            await look(node)
            assert node.state == {"a": "Up"}  # nothing is enrolled or removed meanwhile
            assert node.starting.count == looks  # nor is anybody made to wait
            node.desk.publish(A)
            node.pods.go_on()
            await wait_all_tasks_blocked()
            assert is_served(kernel, node)


class Kubelet(NamedNamespaces):
    """Finds pods of a kubelet, which have a UID."""

    def find(self, workload: Workload) -> Place | None:
        place = super().find(workload)
        return place and replace(place, pod="u1")


async def test_a_pod_that_was_deleted_by_force_is_refused_until_it_has_ended(
    kernel: Kernel, nodes: ExitStack, autojump_clock: MockClock
) -> None:
    with Scratch("10.9.0.1/24") as scratch:
        pod = A.identified_by("Kubernetes//Pod/default/s").at("10.9.0.1")
        node = Node(kernel.redirection, scratch.path, pod, find=Kubelet(scratch.path))
        nodes.callback(node.close)
        async with node.running():
            with scratch.open() as netns:
                cookie = netns.cookie
            node.desk.publish(removed=[pod.uid])
            await look(node)
            assert kernel.redirection.enrolled()[cookie].flags is PodFlag.NONE
            lines = len(node.desk.lines)
            with scratch.open() as netns, netns.socket(2, 1) as client:
                client.setblocking(False)
                client.connect_ex(("10.77.0.3", 80))
                with kernel.lab.in_cgroup("proxy"):
                    while len(node.desk.lines) == lines:
                        node.engine.round(0.01)
            assert "error" in node.desk.lines[-1]
            scratch.delete()
            await look(node)
            assert (node.state, kernel.redirection.enrolled()) == ({}, {})
