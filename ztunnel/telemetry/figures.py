"""The registry of prometheus_client, to which every part of the proxy brings its figures.

A figure is read, not pushed: whoever owns a number gives a function that returns it, and the scrape calls it.
All functions are called on the thread that runs Trio, so they may look at anything without locks and must not
wait; one that has much to look at yields its samples, and others have the thread in between. What they gave
is kept as plain values, of which the library's own are made in a worker thread. Its Counter, Gauge and
Histogram can be registered as well, and are read there: they have locks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

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


class Reading(Collector):
    """A family of which the numbers are asked for when somebody scrapes."""

    def __init__(self, empty: Family, read: Read) -> None:
        self.empty = empty
        self._read = read

    def samples(self) -> Iterator[Sample]:
        """Read now, one by one: between two of them the caller may let others run, on the same thread."""
        value = self._read()
        if isinstance(value, int | float):
            yield (), value
        else:
            yield from value

    def describe(self) -> list[Metric]:
        """For the registry, which gives a name only once."""
        return [metric(self.empty)]

    def collect(self) -> Iterator[Metric]:
        """For the library; a family without samples is left out."""
        family = self.empty._replace(samples=list(self.samples()))
        if family.samples:
            yield metric(family)


class Figures(CollectorRegistry):
    """The registry. Names are unique; a counter's name ends in `_total`, a gauge's does not."""

    def __init__(self) -> None:
        super().__init__()
        self._readings: dict[str, Reading] = {}

    def counter(self, name: str, help_text: str, read: Read, labels: Sequence[str] = ()) -> None:
        """Register something that only grows. `read` gives one number, or one sample per set of label values.

        Raises:
            ValueError: the name is taken, or does not end in `_total`: a fault of the program.
        """
        if not name.endswith("_total"):
            raise ValueError(f"the name of a counter ends in _total: {name}")
        self._add(Family(name, help_text, Kind.COUNTER, tuple(labels), ()), read)

    def gauge(self, name: str, help_text: str, read: Read, labels: Sequence[str] = ()) -> None:
        """Register something that goes up and down. `read` as for `counter`.

        Raises:
            ValueError: the name is taken, or ends in `_total`: a fault of the program.
        """
        if name.endswith("_total"):
            raise ValueError(f"the name of a gauge does not end in _total: {name}")
        self._add(Family(name, help_text, Kind.GAUGE, tuple(labels), ()), read)

    def tally(self, name: str, help_text: str, labels: Sequence[str], limit: int = 1000) -> Tally:
        """Register a counter by label values and return what counts for it."""
        tally = Tally(len(labels), limit)
        self.counter(name, help_text, tally.samples, labels)
        return tally

    def drop(self, name: str) -> None:
        """Take a family out again: its owner has ended."""
        if name in self._readings:
            self.unregister(self._readings.pop(name))

    def readings(self) -> list[Reading]:
        """What has to be read on the thread that runs Trio, in the order of registration."""
        return list(self._readings.values())

    def others(self) -> list[Metric]:
        """Everything else, read now; from any thread."""
        readings = set(self._readings.values())
        collectors = [each for each in list(self._collector_to_names) if each not in readings]
        return [family for each in collectors for family in each.collect()]

    def families(self) -> list[Family]:
        """All readings, read now; a family without samples is left out."""
        read = [each.empty._replace(samples=list(each.samples())) for each in self.readings()]
        return [family for family in read if family.samples]

    def _add(self, empty: Family, read: Read) -> None:
        reading = Reading(empty, read)
        self.register(reading)
        self._readings[empty.name] = reading


def metric(family: Family) -> Metric:
    """The family as the library has it; what is no Unicode in a label is escaped."""
    kind = CounterMetricFamily if family.kind is Kind.COUNTER else GaugeMetricFamily
    made: CounterMetricFamily | GaugeMetricFamily = kind(family.name, family.help, labels=family.labels)
    for labels, value in family.samples:
        made.add_metric([each if each.isascii() else unicode(each) for each in labels], value)
    return made


def unicode(text: str) -> str:
    """The text without lone surrogates, which no encoding has."""
    return text.encode("utf-8", "backslashreplace").decode()
