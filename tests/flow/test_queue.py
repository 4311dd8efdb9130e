"""Whose piece is next."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from ztunnel.flow.queue import FairQueue


def test_pods_have_turns_and_so_have_the_sources_of_a_pod() -> None:
    queue: FairQueue[str] = FairQueue()
    for number in range(3):
        queue.push("a", "greedy", f"greedy {number}")
    queue.push("a", "honest", "honest 0")
    queue.push("b", "other", "other 0")
    assert [queue.pull() for _ in range(len(queue))] == [
        "greedy 0",
        "other 0",
        "honest 0",
        "greedy 1",
        "greedy 2",
    ]
    assert not queue


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=60))
def test_everything_comes_out_once_and_in_order_for_each_source(pushed: list[tuple[int, int]]) -> None:
    queue: FairQueue[tuple[int, int, int]] = FairQueue()
    for number, (pod, source) in enumerate(pushed):
        queue.push(pod, source, (pod, source, number))
    pulled = [queue.pull() for _ in range(len(queue))]
    assert sorted(pulled) == sorted((pod, source, number) for number, (pod, source) in enumerate(pushed))
    for of in set(pushed):
        own = [number for pod, source, number in pulled if (pod, source) == of]
        assert own == sorted(own)
    assert len(queue) == 0


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60))
def test_a_newcomer_waits_for_one_piece_of_each_pod_and_of_each_source_of_its_own(
    pushed: list[tuple[int, int]],
) -> None:
    queue: FairQueue[str] = FairQueue()
    for pod, source in pushed:
        queue.push(pod, source, "another's")
    queue.push(0, "newcomer", "the newcomer's")
    sources = len({source for pod, source in pushed if pod == 0}) + 1
    pods = len(Counter(pod for pod, _ in pushed) | Counter([0]))
    before = 0
    while queue.pull() != "the newcomer's":
        before += 1
    assert before < sources * pods
