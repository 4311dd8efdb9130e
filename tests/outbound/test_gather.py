"""A ring buffer is read as it fills, and never so long that others wait."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.flow.driving import Bugs, Clock
from tests.outbound.parts import Here
from ztunnel.flow.engine import Engine
from ztunnel.outbound.gather import RECORDS, Gatherer, Namespaces
from ztunnel.redirect.enroll import PodNetwork


class Ring:
    """Readable while it holds something."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK)
        self.held = 0
        self.pulls: list[int] = []
        self.broken = False

    def fill(self, count: int) -> None:
        self.held += count
        os.eventfd_write(self.fd, 1)

    def pull(self) -> int:
        if self.broken:
            raise RuntimeError("a bug")
        taken = min(self.held, RECORDS)
        self.held -= taken
        if not self.held and taken:
            os.eventfd_read(self.fd)
        self.pulls.append(taken)
        return taken


@pytest.fixture
def ring(engine: Engine) -> Iterator[Ring]:
    ring = Ring()
    Gatherer(engine, ring.fd, ring.pull).watch()
    yield ring
    engine.forget(ring.fd)
    os.close(ring.fd)


def test_nothing_is_read_before_there_is_something(engine: Engine, ring: Ring) -> None:
    engine.round()
    assert ring.pulls == []


def test_a_few_are_read_at_once_and_those_that_follow_are_gathered(
    engine: Engine, ring: Ring, clock: Clock
) -> None:
    ring.fill(3)
    engine.round()
    assert ring.pulls == [3]
    ring.fill(2)
    engine.round()
    assert ring.pulls == [3], "gathered for a few milliseconds"
    clock.move(0.005)
    engine.round()
    assert ring.pulls == [3, 2]
    clock.move(0.005)
    engine.round()
    assert ring.pulls == [3, 2, 0]
    ring.fill(1)
    engine.round()
    assert ring.pulls == [3, 2, 0, 1]


def test_many_take_a_round_for_each_portion(engine: Engine, ring: Ring) -> None:
    ring.fill(2 * RECORDS + 5)
    for _ in range(5):
        engine.round()
    assert ring.pulls == [RECORDS, RECORDS, 5]


def test_a_bug_is_reported_and_does_not_end_the_reading(
    engine: Engine, ring: Ring, clock: Clock, bugs: Bugs
) -> None:
    ring.broken = True
    ring.fill(1)
    engine.round()
    assert len(bugs) == 1
    bugs.clear()
    ring.broken = False
    clock.move(1.1)
    engine.round()
    assert ring.pulls == [1]


def test_a_pod_is_known_by_its_namespace_while_it_has_it() -> None:
    pods = {"a": PodNetwork(1, Here(), None, None, ())}
    namespaces = Namespaces(pods)
    assert (namespaces.pod_of(1), namespaces.pod_of(2)) == ("a", "")
    pods["b"] = pods.pop("a")
    assert namespaces.pod_of(1) == "b"
    pods["b"] = PodNetwork(2, Here(), None, None, ())
    assert (namespaces.pod_of(1), namespaces.pod_of(2)) == ("", "b")


def test_once_stopped_nothing_is_read_until_it_is_watched_again(engine: Engine, clock: Clock) -> None:
    ring = Ring()
    gatherer = Gatherer(engine, ring.fd, ring.pull)
    gatherer.stop()
    gatherer.watch()
    ring.fill(3)
    engine.round()
    gatherer.stop()
    gatherer.stop()
    ring.fill(2)
    clock.move(1)
    for _ in range(3):
        engine.round()
    assert ring.pulls == [3]
    gatherer.watch()
    engine.round()
    assert ring.pulls[:2] == [3, 2]
    gatherer.stop()
    os.close(ring.fd)
