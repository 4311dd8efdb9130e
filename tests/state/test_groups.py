"""Lists of an index are rewritten, and all others are shared."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from immutables import Map

from ztunnel.state.groups import Groups

_pairs = st.sets(st.tuples(st.sampled_from("abc"), st.integers(0, 9)))


def index_of(pairs: set[tuple[str, int]]) -> Map[str, tuple[int, ...]]:
    keys = sorted({key for key, _ in pairs})
    return Map({key: tuple(sorted(item for each, item in pairs if each == key)) for key in keys})


@given(_pairs, _pairs)
def test_what_comes_and_goes_gives_the_index_of_what_is_left(
    before: set[tuple[str, int]], after: set[tuple[str, int]]
) -> None:
    index = index_of(before)
    groups: Groups[str, int] = Groups(index.get, lambda item: item)
    for key, item in before - after:
        groups.take_out([key], item)
    for key, item in after - before:
        groups.put_in([key], item)
    assert groups.update(index) == index_of(after)
    assert index == index_of(before)
    assert groups.members.keys() == {key for key, _ in before ^ after}


def test_one_item_may_be_in_several_lists_and_each_is_sorted() -> None:
    groups: Groups[str, int] = Groups(index_of({("a", 5)}).get, lambda item: -item)
    groups.put_in("ab", 7)
    groups.put_in("a", 6)
    assert groups.members == {"a": [7, 6, 5], "b": [7]}
