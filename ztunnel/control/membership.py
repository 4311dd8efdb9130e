"""Sets and mappings by name, of which none is empty: who belongs where."""

from __future__ import annotations

from typing import TypeVar

K = TypeVar("K")
L = TypeVar("L")
V = TypeVar("V")


def set_member(where: dict[K, set[V]], name: K, one: V, there: bool) -> None:
    """Have `one` in the set of that name, or not; a set that would be empty is gone."""
    if there:
        where.setdefault(name, set()).add(one)
    elif (found := where.get(name)) is not None:
        found.discard(one)
        if not found:
            del where[name]


def set_entry(where: dict[K, dict[L, V]], name: K, key: L, one: V | None) -> None:
    """Put `one` into the mapping of that name; None: take out what is there. An empty mapping is gone."""
    if one is not None:
        where.setdefault(name, {})[key] = one
    elif (found := where.get(name)) is not None:
        found.pop(key, None)
        if not found:
            del where[name]
