"""Which pods are in the mesh is told to the control plane, as it changes and not faster than is heard."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.builders import BuiltWorkload, workload, world_of
from tests.pods.parts import Lines
from ztunnel.errors import ConfigError, Fault
from ztunnel.pods.announce import AGAIN_SECONDS, FORWARDS, SETTLE_SECONDS, Announcer
from ztunnel.pods.kubelet import Place
from ztunnel.rpc.status import Code, RpcError
from ztunnel.telemetry.export import Log
from ztunnel.telemetry.level import Levels
from ztunnel.telemetry.readiness import Readiness
from ztunnel.xds.enrolment import EnrolledPod

A, B = (workload(name, "shop").on("n1").hbone() for name in "ab")


class ControlPlane:
    """What a node proxy tells, and what becomes of that."""

    def __init__(self) -> None:
        self.told: list[tuple[float, list[str]]] = []
        self.failure: Exception | None = None
        self.machine = ""
        self.lines, self.readiness = Lines(), Readiness()
        log = Log(self.lines, Levels(), time.time_ns)  # type: ignore[arg-type]
        self.announcer = Announcer(log, self.readiness)

    def have(self, *pods: BuiltWorkload, place: str = "uid") -> None:
        held = {
            one.uid: SimpleNamespace(
                machine=self.machine, place=Place("/x", 7, place and f"{place}-{one.name}")
            )
            for one in pods
        }
        self.announcer.look(held, world_of(*pods))  # type: ignore[arg-type]

    async def report(self, pods: Iterable[EnrolledPod]) -> None:
        await trio.lowlevel.checkpoint()
        if self.failure is not None:
            raise self.failure
        self.told.append((trio.current_time(), ["/".join(one) for one in sorted(pods)]))

    @property
    def said(self) -> list[list[str]]:
        return [pods for _, pods in self.told]

    @property
    def detail(self) -> str:
        return self.readiness.render(0.0)[1].partition("\n")[2]

    @asynccontextmanager
    async def hearing(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.announcer.run, self.report)
            await wait_all_tasks_blocked()
            yield
            nursery.cancel_scope.cancel()


@pytest.fixture
def plane() -> ControlPlane:
    return ControlPlane()


async def test_pods_are_told_as_they_come_and_go(plane: ControlPlane, autojump_clock: object) -> None:
    plane.have(A)
    async with plane.hearing():
        assert plane.said == [["shop/a/uid-a"]]
        plane.have(A, B)
        await trio.sleep(SETTLE_SECONDS + 0.1)
        plane.have()
        await trio.sleep(SETTLE_SECONDS + 0.1)
        assert plane.said[1:] == [["shop/a/uid-a", "shop/b/uid-b"], []]


async def test_a_storm_of_pods_is_told_once_a_second(plane: ControlPlane, autojump_clock: object) -> None:
    pods = [workload(f"p{number}", "shop").on("n1").hbone() for number in range(100)]
    async with plane.hearing():
        for number in range(1, len(pods) + 1):
            plane.have(*pods[:number])
            await trio.sleep(0.05)
        await trio.sleep(SETTLE_SECONDS)
        times = [at for at, _ in plane.told]
        assert min(later - before for before, later in pairwise(times)) >= SETTLE_SECONDS
        assert len(plane.said[-1]) == 100


async def test_the_same_is_told_again_now_and_then(plane: ControlPlane, autojump_clock: object) -> None:
    """Somebody may have taken it off a pod, or the replica that was told has ended before it wrote."""
    plane.have(A)
    async with plane.hearing():
        plane.have(A)
        await trio.sleep(3 * (AGAIN_SECONDS + SETTLE_SECONDS) - 1)
        assert plane.said == [["shop/a/uid-a"]] * 3


def test_a_pod_of_which_a_part_goes_past_the_mesh_is_not_shown_as_enrolled(plane: ControlPlane) -> None:
    forwards = replace(A, forwards=True)
    plane.have(forwards, B)
    assert plane.announcer.show(forwards.uid) == {"hidden": FORWARDS}
    assert plane.announcer.show(B.uid) == {}
    plane.have(A, B)
    assert plane.announcer.hidden == {}
    plane.machine = "k6t-eth0"
    plane.have(A)
    assert "KubeVirt, interface k6t-eth0" in str(plane.announcer.show(A.uid)["hidden"])


async def test_the_laboratory_s_pods_are_nobody_s(plane: ControlPlane, autojump_clock: object) -> None:
    plane.have(A, place="")
    async with plane.hearing():
        assert plane.said == [[]]


@pytest.mark.parametrize(
    "failure",
    [
        lambda: RpcError(Code.UNAVAILABLE, "it is away"),
        lambda: RpcError(Code.PERMISSION_DENIED, "no such pod: it is away"),
        lambda: ConfigError(Fault("token", 0, "", "it is away")),
    ],
)
async def test_a_control_plane_that_does_not_take_it_is_asked_again(
    plane: ControlPlane, autojump_clock: object, failure: Callable[[], Exception]
) -> None:
    plane.failure = failure()
    plane.have(A)
    async with plane.hearing():
        await trio.sleep(600)
        assert "cannot be written on pods" in plane.detail
        assert "it is away" in plane.detail
        assert len(plane.lines.about("enrolment not reported")) == 1
        plane.failure = None
        await trio.sleep(60)
        assert plane.said == [["shop/a/uid-a"]]
        assert plane.detail == ""


async def test_a_control_plane_without_that_service_is_not_disturbed(
    plane: ControlPlane, autojump_clock: object
) -> None:
    """An istiod: nothing is wrong, and it is asked ever less often."""
    asked = []

    async def report(pods: Iterable[EnrolledPod]) -> None:
        await trio.lowlevel.checkpoint()
        asked.append(trio.current_time())
        raise RpcError(Code.UNIMPLEMENTED, "unknown service ztunnel.v1.EnrolmentService")

    plane.report = report  # type: ignore[method-assign]
    plane.have(A)
    async with plane.hearing():
        for _ in range(100):
            plane.have()
            plane.have(A)
            await trio.sleep(60)
    assert plane.detail == ""
    [said] = plane.lines.lines
    assert "ambient.istio.io/redirection: enabled" in str(said)
    assert len(asked) <= 8
    assert asked[1] - asked[0] >= 60
