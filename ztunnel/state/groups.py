"""Changes the lists of an index, of which all that is not touched is shared with the index before."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Generic, TypeVar

from immutables import Map

_K = TypeVar("_K", bound=Hashable)
_T = TypeVar("_T")


class Groups(Generic[_K, _T]):
    """The lists of one index that a delta rewrites, each sorted by `order`, which is unique in a list."""

    def __init__(self, read: Callable[[_K], Sequence[_T] | None], order: Callable[[_T], Any]) -> None:
        self._read = read
        self._order = order
        self.members: dict[_K, list[_T]] = {}

    def _list(self, key: _K) -> list[_T]:
        found = self.members.get(key)
        if found is None:
            found = self.members[key] = list(self._read(key) or ())
        return found

    def take_out(self, keys: Iterable[_K], item: _T) -> None:
        for key in keys:
            members = self._list(key)
            del members[bisect_left(members, self._order(item), key=self._order)]

    def put_in(self, keys: Iterable[_K], item: _T) -> None:
        for key in keys:
            insort(self._list(key), item, key=self._order)

    def update(self, index: Map[_K, tuple[_T, ...]]) -> Map[_K, tuple[_T, ...]]:
        """The index with these lists in it, and without those that ran empty."""
        changed = index.mutate()
        for key, members in self.members.items():
            if members:
                changed[key] = tuple(members)
            elif key in changed:
                del changed[key]
        return changed.finish()
