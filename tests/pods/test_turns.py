"""No turn on the engine's thread is longer for the number of pods, whatever happens to all at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.builders import BuiltWorkload, workload
from tests.kernel.lab import Kernel
from tests.pods.parts import NODE, Node, Scratch
from tests.turns import Turns
from ztunnel.pods.lifecycle import STARTS_SECONDS
from ztunnel.pods.repair import SWEEP_SECONDS
from ztunnel.pods.serve import GRACE_SECONDS, Pods
from ztunnel.pods.watch import LOOK_AGAIN_SECONDS

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

FEW, MANY = 2, 8
A_LITTLE = 1.2
"""For what is looked up of each in a dictionary or two."""

ONE_LOOK = 1000
"""Calls of functions, some 300 us: a pod is looked at in several turns."""


class Crowded:
    """A node of so many pods, each in a namespace of its own."""

    def __init__(self, kernel: Kernel, stack: ExitStack, count: int) -> None:
        self.places = [stack.enter_context(Scratch(*addresses(number))) for number in range(1, count + 1)]
        self.pods: list[BuiltWorkload] = [
            workload(place.name).on(NODE).hbone().at(*(each.partition("/")[0] for each in place.addresses))
            for place in self.places
        ]
        self.node = Node(kernel.redirection, "/run/netns/{name}", *self.pods)
        stack.callback(self.node.close)

    def say(self, change: Callable[[BuiltWorkload], BuiltWorkload] = lambda pod: pod) -> None:
        self.node.desk.publish(*map(change, self.pods))

    def delete(self) -> None:
        for place in self.places:
            place.delete()


def addresses(number: int) -> tuple[str, str]:
    return f"10.9.0.{number}/24", f"fd09::{number:x}/64"


@asynccontextmanager
async def turns(found: dict[str, int], what: str, seconds: float = 0.0) -> AsyncIterator[None]:
    """What the pods' task did in the block, and for so long after it."""
    with Turns() as counted:
        yield
        await trio.sleep(seconds)
        await wait_all_tasks_blocked()
    found[what] = counted.longest[f"{Pods.__module__}.{Pods.run.__qualname__}"]


async def longest(kernel: Kernel, count: int) -> dict[str, int]:
    """The longest turn of each thing that may happen to pods."""
    found: dict[str, int] = {}
    with ExitStack() as stack:
        crowded = Crowded(kernel, stack, count)
        async with crowded.node.running():
            assert set(crowded.node.state.values()) == {"Up"}
            async with turns(found, "a sweep", SWEEP_SECONDS + LOOK_AGAIN_SECONDS):
                pass
            async with turns(found, "all leave"):
                crowded.say(lambda pod: pod.plain())
            assert set(crowded.node.state.values()) == {"Draining"}
            async with turns(found, "all are let go", GRACE_SECONDS + LOOK_AGAIN_SECONDS):
                pass
            assert crowded.node.state == {}
            async with turns(found, "all come"):
                crowded.say()
            assert set(crowded.node.state.values()) == {"Up"}
            crowded.delete()
            async with turns(found, "all are gone", LOOK_AGAIN_SECONDS + STARTS_SECONDS):
                pass
            assert set(crowded.node.state.values()) == {"Pending"}
    return found


async def test_no_turn_grows_with_the_number_of_pods(kernel: Kernel, autojump_clock: MockClock) -> None:
    await longest(kernel, 1)  # what is read once, and remembered
    few = await longest(kernel, FEW)
    many = await longest(kernel, MANY)
    assert {what: calls for what, calls in many.items() if calls > few[what] * A_LITTLE + 100} == {}
    assert many["a sweep"] < ONE_LOOK
