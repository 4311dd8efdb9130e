"""Places that many share."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from ztunnel.flow.share import Place, Shares


class Crowd:
    """Who holds a place, in the order in which they came."""

    def __init__(self, places: int) -> None:
        self.shares = Shares(places)
        self.held: dict[int, Place] = {}
        self.gone: list[int] = []
        self._number = 0

    def come(self, pod: str, source: str) -> int | None:
        self._number += 1
        number = self._number
        place = self.shares.enter(pod, source, lambda: self._give_way(number))
        if place is None:
            return None
        self.held[number] = place
        return number

    def _give_way(self, number: int) -> None:
        del self.held[number]
        self.gone.append(number)

    def count(self) -> Counter[str]:
        return Counter(str(place.pod) for place in self.held.values())


def test_while_there_is_room_everybody_gets_a_place() -> None:
    crowd = Crowd(10)
    assert None not in [crowd.come("a", "x") for _ in range(10)]
    assert len(crowd.shares) == 10


def test_the_greediest_is_refused_when_it_wants_more() -> None:
    crowd = Crowd(10)
    for _ in range(9):
        crowd.come("a", "x")
    crowd.come("b", "y")
    assert crowd.come("a", "x") is None
    assert crowd.gone == []
    assert crowd.shares.refused_total == 1


def test_the_newest_of_the_greediest_gives_way_to_another() -> None:
    crowd = Crowd(10)
    numbers = [crowd.come("a", "x") for _ in range(10)]
    assert crowd.come("b", "y") is not None
    assert crowd.gone == [numbers[-1]]
    assert crowd.shares.gave_way_total == 1
    assert len(crowd.shares) == 10


def test_many_sources_of_one_pod_take_nothing_from_another_pods() -> None:
    crowd = Crowd(40)
    for number in range(38):
        crowd.come("a", f"x{number}")
    kept = [crowd.come("b", "y") for _ in range(4)]
    for number in range(40):
        crowd.come("a", f"z{number}")
    assert set(kept) <= set(crowd.held)
    assert crowd.count() == {"a": 36, "b": 4}


def test_within_a_pod_the_greediest_source_gives_way() -> None:
    crowd = Crowd(10)
    greedy = [crowd.come("a", "x") for _ in range(9)]
    other = crowd.come("a", "y")
    third = crowd.come("a", "z")
    assert crowd.gone == [greedy[-1]]
    assert {other, third} <= set(crowd.held)


def test_a_place_that_is_left_is_free_and_leaving_twice_frees_one() -> None:
    crowd = Crowd(1)
    number = crowd.come("a", "x")
    assert number is not None
    place = crowd.held[number]
    crowd.shares.leave(place)
    crowd.shares.leave(place)
    assert len(crowd.shares) == 0
    assert crowd.come("b", "y") is not None
    crowd.shares.leave(place)
    assert len(crowd.shares) == 1


HOLDERS = st.tuples(st.sampled_from("abcd"), st.sampled_from("xyz"))


@given(st.lists(HOLDERS, max_size=120))
def test_whoever_holds_less_than_a_fair_share_loses_nothing(arrivals: list[tuple[str, str]]) -> None:
    crowd = Crowd(16)
    for pod, source in arrivals:
        before = crowd.count()
        number = crowd.come(pod, source)
        after = crowd.count()
        assert sum(after.values()) <= 16
        assert len(crowd.shares) == len(crowd.held)
        if number is None:
            assert before[pod] + 1 >= max(before.values())
        for other in before:
            if before[other] <= 4:
                assert after[other] >= before[other]
