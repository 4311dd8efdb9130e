"""Bytes that are held for applications: who is refused, and who gives way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.flow.held import HeldBytes, Share


@dataclass
class Rounds:
    """The next round of an engine, when a test wants it."""

    waiting: list[Callable[[], None]] = field(default_factory=list)

    def next_round(self, callback: Callable[[], None], /) -> None:
        self.waiting.append(callback)

    def run(self) -> None:
        while self.waiting:
            self.waiting.pop(0)()


@dataclass(eq=False)
class Flow:
    """A flow that is never read, until it gives way."""

    share: Share
    rounds: Rounds
    opened_at: float = 0.0
    held_bytes: int = 0
    ended: bool = False

    def get(self, count: int) -> Flow:
        self.held_bytes += count
        self.share.hold(self, count, self.rounds)
        return self

    def read(self, count: int) -> None:
        self.held_bytes -= count
        self.share.drop(self, count)

    def give_way(self) -> None:
        self.ended = True
        self.read(self.held_bytes)


@dataclass
class Node:
    held: HeldBytes
    rounds: Rounds = field(default_factory=Rounds)
    flows: list[Flow] = field(default_factory=list)

    def flow(self, pod: str, source: str, count: int = 0) -> Flow:
        made = Flow(self.held.share(pod, source), self.rounds, float(len(self.flows)))
        self.flows.append(made)
        if count:
            made.get(count)
        return made

    def ended(self) -> list[int]:
        """The flows that gave way, by their number."""
        self.rounds.run()
        return [number for number, flow in enumerate(self.flows) if flow.ended]


@pytest.fixture
def node() -> Node:
    return Node(HeldBytes(1000))


def test_what_is_held_is_counted_and_forgotten(node: Node) -> None:
    one, two = node.flow("a", "x", 300), node.flow("a", "x", 200)
    assert node.held.total_bytes == 500
    one.read(300)
    two.read(200)
    assert node.held.total_bytes == 0
    assert not node.held._pods
    one.get(10)
    assert node.held.total_bytes == 10


def test_below_three_quarters_nobody_is_refused_and_above_only_the_greediest(node: Node) -> None:
    node.flow("a", "x", 500)
    node.flow("a", "y", 100)
    node.flow("b", "x", 100)
    assert not node.held.refuses("a", "x")
    node.flow("b", "x", 50)
    assert node.held.refuses("a", "x")
    assert not node.held.refuses("a", "y")
    assert not node.held.refuses("a", "z")
    assert not node.held.refuses("b", "x")
    assert not node.held.refuses("c", "x")
    assert node.held.refused_total == 1
    assert node.held.share("a", "x").refuses


def test_at_the_limit_nobody_is_ended_and_beyond_it_the_newest_of_the_greediest(node: Node) -> None:
    node.flow("b", "x", 400)
    node.flow("a", "x", 200)
    node.flow("a", "x", 200)
    node.flow("a", "y", 200)
    assert node.ended() == []
    node.flow("c", "x", 1)
    assert node.ended() == [2]
    assert node.held.gave_way_total == 1
    assert node.held.total_bytes == 801


def test_a_neighbour_that_needs_room_gets_it_from_the_greediest(node: Node) -> None:
    greedy = [node.flow("a", "x", 100) for _ in range(10)]
    honest = node.flow("b", "x")
    for _ in range(4):
        honest.get(100)
        node.rounds.run()
    assert not honest.ended
    assert [flow.ended for flow in greedy] == [False] * 6 + [True] * 4


def test_who_holds_little_is_not_ended_for_those_of_its_own_source_that_hold_much(node: Node) -> None:
    """A flow that is being read, newer than all the others, between the same two."""
    for _ in range(3):
        node.flow("a", "x", 330)
    node.flow("a", "x", 20)
    assert node.ended() == [2]


def test_bugs_of_a_flow_do_not_spin(node: Node) -> None:
    flow = node.flow("a", "x", 1001)
    flow.give_way = lambda: None  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="stays"):
        node.rounds.run()
    flow.get(1)
    assert len(node.rounds.waiting) == 1


def test_very_many_are_ended_in_several_rounds(node: Node) -> None:
    for _ in range(250):
        node.flow("a", "x", 6)
    node.rounds.waiting.pop(0)()
    assert len([flow for flow in node.flows if flow.ended]) == 64
    assert node.held.total_bytes == 186 * 6
    assert node.ended() == list(range(166, 250))
    assert node.held.total_bytes <= 1000


STEPS = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.integers(1, 400), st.booleans()), max_size=60
)


@given(STEPS)
def test_the_limit_holds_after_each_round_and_no_pod_below_half_of_it_loses_anything(
    steps: list[tuple[str, str, int, bool]],
) -> None:
    node = Node(HeldBytes(1000))
    for pod, source, count, reads in steps:
        before = {each: sum(f.held_bytes for f in node.flows if f.share.pod == each) for each in "ab"}
        alive = [flow for flow in node.flows if not flow.ended]
        if reads and alive:
            flow = alive[count % len(alive)]
            if flow.held_bytes:
                flow.read(flow.held_bytes)
            continue
        new = node.flow(pod, source, count)
        node.rounds.run()
        assert node.held.total_bytes == sum(flow.held_bytes for flow in node.flows) <= 1000
        for each in "ab":
            holds = before[each] + (count if each == pod else 0)
            lost = [f for f in (*alive, new) if f.ended and f.share.pod == each]
            assert not lost or holds >= 500
