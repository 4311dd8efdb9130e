"""Namespaces of a kubelet's pods are found as they come, and let go as they leave."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.builders import BuiltWorkload, workload
from tests.pods.machine import OTHER, UID, Kubelet, remove
from tests.pods.parts import Scratch
from ztunnel.pods.follow import KubeletPods
from ztunnel.pods.kubelet import Place

pytestmark = pytest.mark.root

POD = workload("web", "shop").on("n1").hbone().at("10.9.0.1")
KINDS = {"10.9.0.1/24": "IPv4", "fd09::1/64": "IPv6"}


@pytest.fixture
def kubelet(tmp_path: Path) -> Iterator[Kubelet]:
    with Kubelet(tmp_path) as made:
        yield made


@pytest.fixture
def scratch() -> Iterator[Scratch]:
    with Scratch(*KINDS) as made:
        yield made


class Following:
    """A finder at work."""

    def __init__(self, kubelet: Kubelet) -> None:
        self.pods = KubeletPods(kubelet.logs, mounts=str(kubelet.mounts))
        self._stirred = trio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Following]:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.pods.follow, self._stir)
            yield self
            nursery.cancel_scope.cancel()

    def _stir(self) -> None:
        self._stirred.set()
        self._stirred = trio.Event()

    async def until(self, true: Callable[[], bool]) -> None:
        """Woken by what the finder tells, and by nothing else."""
        with trio.fail_after(4):
            while not true():
                await self._stirred.wait()

    async def found(self, pod: BuiltWorkload = POD) -> Place:
        await self.until(lambda: self.pods.find(pod) is not None)
        place = self.pods.find(pod)
        assert place is not None
        assert self.pods.exists(place)
        return place


async def test_a_pod_is_found_when_its_sandbox_starts(kubelet: Kubelet, scratch: Scratch) -> None:
    """From nothing: not even kubepods is there yet. Its first process is in the cgroup before it is in the
    namespace."""
    async with Following(kubelet).running() as following:
        assert following.pods.find(POD) is None
        assert "does a kubelet run" in following.pods.missing(POD)
        directory = kubelet.pod("shop", "web")
        process = kubelet.start(directory, scratch.path)
        process.enter()
        assert await following.found() == Place(f"/proc/{process.pid}/ns/net", scratch.place.inode, UID)


async def test_what_there_was_before_is_found_at_the_start(kubelet: Kubelet, scratch: Scratch) -> None:
    directory = kubelet.pod("shop", "web")
    kubelet.start(directory, scratch.path).enter()
    async with Following(kubelet).running() as following:
        place = following.pods.find(POD)
        assert place is not None
        assert place.inode == scratch.place.inode


async def test_it_is_told_what_is_missing(kubelet: Kubelet, scratch: Scratch) -> None:
    kubelet.pod("shop", "db", OTHER)
    async with Following(kubelet).running() as following:
        assert "has not begun with the pod" in following.pods.missing(POD)
        directory = kubelet.pod("shop", "web")
        await following.until(lambda: "none of its processes runs" in following.pods.missing(POD))
        kubelet.start(directory, scratch.path).enter()
        await following.found()


async def test_a_container_that_starts_again_changes_nothing(kubelet: Kubelet, scratch: Scratch) -> None:
    directory = kubelet.pod("shop", "web")
    kubelet.start(directory, scratch.path, "sandbox").enter()
    async with Following(kubelet).running() as following:
        place = await following.found()
        for container in ("c1", "c2"):
            with kubelet.running(directory, scratch.path, container):
                assert following.pods.find(POD) == place
        assert following.pods.exists(place)


async def test_a_pod_without_a_process_of_its_own_outlives_the_restart_of_its_container(
    kubelet: Kubelet, scratch: Scratch
) -> None:
    """CRI-O has no pause container."""
    directory = kubelet.pod("shop", "web")
    async with Following(kubelet).running() as following:
        with kubelet.running(directory, scratch.path, "c1"):
            place = await following.found()
        assert following.pods.exists(place)
        with kubelet.running(directory, scratch.path, "c2") as process:
            await following.until(lambda: str(process.pid) in str(following.pods.find(POD)))
            assert following.pods.exists(place)


async def test_a_new_sandbox_of_the_same_pod_takes_the_place_of_the_old_one(
    kubelet: Kubelet, scratch: Scratch
) -> None:
    directory = kubelet.pod("shop", "web")
    async with Following(kubelet).running() as following:
        with kubelet.running(directory, scratch.path, "s1"):
            old = await following.found()
        with Scratch("10.9.0.2/24") as other:
            kubelet.start(directory, other.path, "s2").enter()
            await following.until(lambda: (following.pods.find(POD) or old).inode == other.place.inode)
            await following.until(lambda: not following.pods.exists(old))


async def test_a_namespace_is_let_go_when_its_pod_has_no_process_any_more(
    kubelet: Kubelet, scratch: Scratch
) -> None:
    directory = kubelet.pod("shop", "web")
    async with Following(kubelet).running() as following:
        with kubelet.running(directory, scratch.path):
            place = await following.found()
        await following.until(lambda: not following.pods.exists(place))
        assert following.pods.find(POD) is None


async def test_a_pod_that_is_removed_is_gone_at_once(kubelet: Kubelet, scratch: Scratch) -> None:
    directory = kubelet.pod("shop", "web")
    process = kubelet.start(directory, scratch.path).enter()
    async with Following(kubelet).running() as following:
        place = await following.found()
        process.end()
        remove(directory)
        with trio.fail_after(1):
            await following.until(lambda: not following.pods.exists(place))


async def test_of_two_pods_of_one_name_the_one_with_the_uid_or_the_address_is_meant(
    kubelet: Kubelet, scratch: Scratch
) -> None:
    """web-0 was force-deleted and still runs, and its successor has begun."""
    first, second = kubelet.pod("shop", "web"), kubelet.pod("shop", "web", OTHER)
    with Scratch("10.9.0.2/24") as other:
        kubelet.start(first, scratch.path).enter()
        kubelet.start(second, other.path).enter()
        async with Following(kubelet).running() as following:
            assert (await following.found(POD)).inode == scratch.place.inode
            assert (await following.found(POD.at("10.9.0.2"))).inode == other.place.inode
            assert following.pods.find(POD.at("10.9.0.7")) is None
            assert "cannot be told yet" in following.pods.missing(POD.at("10.9.0.7"))
            for uid, inode in ((UID, scratch.place.inode), (OTHER, other.place.inode)):
                assert (await following.found(POD.with_uid(uid))).inode == inode


async def test_an_address_that_was_anothers_a_moment_ago_says_nothing(
    kubelet: Kubelet, scratch: Scratch
) -> None:
    """Old and new have the same address, and the world still has the old pod there."""
    directory = kubelet.pod("shop", "new", OTHER)
    kubelet.start(directory, scratch.path).enter()
    async with Following(kubelet).running() as following:
        await following.found(workload("new", "shop").on("n1").at("10.9.0.1"))
        assert following.pods.find(POD) is None


async def test_a_pod_that_makes_namespaces_of_its_own_is_known_by_its_address(
    kubelet: Kubelet, scratch: Scratch
) -> None:
    directory = kubelet.pod("shop", "web")
    with Scratch("172.17.0.2/16") as inner:
        kubelet.start(directory, scratch.path, "sandbox").enter()
        kubelet.start(directory, inner.path, "docker").enter()
        async with Following(kubelet).running() as following:
            assert (await following.found()).inode == scratch.place.inode
