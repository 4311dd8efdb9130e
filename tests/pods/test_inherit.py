"""What a predecessor has left is taken over, or let go."""

from __future__ import annotations

import errno
import time
from itertools import pairwise

import trio

from tests.pods.parts import Lines
from ztunnel.model.address import parse_ip
from ztunnel.pods.inherit import Predecessor
from ztunnel.pods.listen import Listeners
from ztunnel.redirect.enroll import EnrolledPod
from ztunnel.telemetry.export import Log
from ztunnel.telemetry.level import Levels


class Kernel:
    """Pods by cookie, each with one address; refuses to let go of some."""

    def __init__(self, *pods: int) -> None:
        self.pods = set(pods)
        self.stuck: set[int] = set()

    def enrolled(self) -> dict[int, EnrolledPod]:
        return {pod: EnrolledPod(None, None, frozenset({parse_ip(f"fd77::{pod}")})) for pod in self.pods}

    def withdraw_cookie(self, cookie: int) -> None:
        if cookie in self.stuck:
            raise OSError(errno.EPERM, "not permitted")
        self.pods.remove(cookie)


class Listener:
    """Of one pod."""

    closed = False

    def close(self) -> None:
        self.closed = True


def made(kernel: Kernel) -> tuple[Predecessor, Lines]:
    lines = Lines()
    log = Log(lines, Levels(), time.time_ns)  # type: ignore[arg-type] (they are only put there)
    predecessor = Predecessor(kernel, log)  # type: ignore[arg-type] (what it asks of one)
    predecessor.begin()
    return predecessor, lines


async def test_pods_that_nobody_has_taken_over_are_let_go_but_for_those_that_are_waited_for() -> None:
    kernel = Kernel(1, 2, 3)
    predecessor, _ = made(kernel)
    assert set(predecessor.left.known) == {1, 2, 3}
    assert predecessor.took_over(1)
    assert not predecessor.took_over(1)
    await predecessor.withdraw({parse_ip("fd77::2")})
    assert (kernel.pods, set(predecessor.left.known)) == ({1, 2}, {2})
    await predecessor.withdraw(())
    assert (kernel.pods, set(predecessor.left.known)) == ({1}, set())


async def test_one_that_the_kernel_does_not_let_go_is_said_and_tried_again() -> None:
    kernel = Kernel(1, 2)
    kernel.stuck = {1}
    predecessor, lines = made(kernel)
    await predecessor.withdraw(())
    assert kernel.pods == {1}
    assert len(lines.about("pod of an earlier run not removed")) == 1
    kernel.stuck = set()
    await predecessor.withdraw(())
    assert kernel.pods == set()


async def test_others_have_the_thread_after_each() -> None:
    kernel = Kernel(*range(1, 6))
    predecessor, _ = made(kernel)
    seen: list[int] = []

    async def watch() -> None:
        while kernel.pods:
            seen.append(len(kernel.pods))
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await trio.lowlevel.checkpoint()
        await predecessor.withdraw(())
    assert len(seen) > 2
    assert all(before - after <= 2 for before, after in pairwise(seen))


def test_listeners_that_nobody_needs_are_closed() -> None:
    predecessor, _ = made(Kernel(1))
    listener = Listener()
    listeners: Listeners = listener  # type: ignore[assignment] (closed, and no more)
    predecessor.listeners[1] = listeners
    assert predecessor.left.listeners == {1: listener}
    predecessor.forget_listeners()
    assert listener.closed
    assert predecessor.listeners == {}
