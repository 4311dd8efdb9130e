"""Metric families as plain values, and the register to which every part of the proxy brings its figures.

A figure is read, not pushed: whoever owns a number gives a function that returns it, and the scrape calls it.
All functions are called on the thread that runs Trio, so they may look at anything without locks and must not
wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import NamedTuple

Sample = tuple[tuple[str, ...], float]
"""The values of the labels, in the order of the family's label names, and the number."""

Read = Callable[[], float | Iterable[Sample]]


class Kind(StrEnum):
    """The type of a family as the exposition formats call it."""

    COUNTER = "counter"
    GAUGE = "gauge"


class Family(NamedTuple):
    """Everything of one name. `name` is that of the samples: a counter's ends in `_total`."""

    name: str
    help: str
    kind: Kind
    labels: tuple[str, ...]
    samples: Sequence[Sample]


class Tally:
    """Counts of events by label values, at most `limit` different ones: beyond, all values are `unknown`.

    So a peer that invents names costs one series. `cut` says how often that happened.
    """

    __slots__ = ("_counts", "_limit", "_rest", "cut")

    def __init__(self, label_count: int, limit: int = 1000) -> None:
        self._counts: dict[tuple[str, ...], int] = {}
        self._limit = limit
        self._rest = ("unknown",) * label_count
        self.cut = 0

    def add(self, *labels: str, by: int = 1) -> None:
        """Count `by` events under these label values."""
        if labels not in self._counts and len(self._counts) >= self._limit:
            labels = self._rest
            self.cut += by
        self._counts[labels] = self._counts.get(labels, 0) + by

    def samples(self) -> list[Sample]:
        """What was counted."""
        return list(self._counts.items())


class _Entry(NamedTuple):
    name: str
    help: str
    kind: Kind
    labels: tuple[str, ...]
    read: Read


class Figures:
    """The register. Names are unique; a counter's name ends in `_total`, a gauge's does not."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}

    def counter(self, name: str, help_text: str, read: Read, labels: Sequence[str] = ()) -> None:
        """Register something that only grows. `read` gives one number, or one sample per set of label values.

        Raises:
            ValueError: the name is taken, or does not end in `_total`: a fault of the program.
        """
        if not name.endswith("_total"):
            raise ValueError(f"the name of a counter ends in _total: {name}")
        self._register(_Entry(name, help_text, Kind.COUNTER, tuple(labels), read))

    def gauge(self, name: str, help_text: str, read: Read, labels: Sequence[str] = ()) -> None:
        """Register something that goes up and down. `read` as for `counter`.

        Raises:
            ValueError: the name is taken, or ends in `_total`: a fault of the program.
        """
        if name.endswith("_total"):
            raise ValueError(f"the name of a gauge does not end in _total: {name}")
        self._register(_Entry(name, help_text, Kind.GAUGE, tuple(labels), read))

    def tally(self, name: str, help_text: str, labels: Sequence[str], limit: int = 1000) -> Tally:
        """Register a counter by label values and return what counts for it."""
        tally = Tally(len(labels), limit)
        self.counter(name, help_text, tally.samples, labels)
        return tally

    def drop(self, name: str) -> None:
        """Take a family out again: its owner has ended."""
        self._entries.pop(name, None)

    def families(self) -> list[Family]:
        """Read everything now, in the order of registration; a family without samples is left out."""
        families = []
        for entry in self._entries.values():
            value = entry.read()
            samples = [((), value)] if isinstance(value, int | float) else list(value)
            if samples:
                families.append(Family(entry.name, entry.help, entry.kind, entry.labels, samples))
        return families

    def _register(self, entry: _Entry) -> None:
        if entry.name in self._entries:
            raise ValueError(f"two figures of one name: {entry.name}")
        self._entries[entry.name] = entry
