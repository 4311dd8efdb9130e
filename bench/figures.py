"""From what the load generators print to medians, spreads and ratios."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench.cells import Cell, Load


class Unmeasured(Exception):
    """A load did not run as it should, so its figures would say nothing. The message is what it printed."""


Sample = tuple[float, ...]  # one value for each of Cell.figures: per second, seconds, bytes/s


def parse_wrk(cell: Cell, printed: str) -> Sample:
    """The figures of a run of wrk with load.lua.

    Raises:
        Unmeasured: there is no result in it, or a request failed.
    """
    measured = _last_object(printed)
    if measured["errors"] or not measured["requests"]:
        raise Unmeasured(f"{cell.name}: {measured['errors']} errors in {measured['requests']} requests")
    rate = measured["requests"] / (measured["duration"] / 1e6)
    if cell.load is not Load.CONNECTIONS:
        return rate, measured["p50"] / 1e6, measured["p99"] / 1e6
    return (rate,)


def parse_h2load(cell: Cell, printed: str, log: str) -> Sample:
    """The figures of a run of h2load for a time, and of its log, which has the microseconds of each request.

    Raises:
        Unmeasured: there is no result in it, or a request failed.
    """
    rate = re.search(r"^finished in .*?, ([\d.]+) req/s", printed, re.MULTILINE)
    failed = re.search(r" (\d+) failed, (\d+) errored, (\d+) timeout", printed)
    others = re.search(r"^status codes: \d+ 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", printed, re.MULTILINE)
    if rate is None or failed is None or others is None:
        raise Unmeasured(printed.strip() or "nothing was printed")
    errors = sum(map(int, (*failed.groups(), *others.groups())))
    seconds = sorted(int(line.split()[2]) / 1e6 for line in log.splitlines())
    if errors or not seconds:
        raise Unmeasured(f"{cell.name}: {errors} errors in {len(seconds)} requests")
    return float(rate[1]), seconds[len(seconds) // 2], seconds[len(seconds) * 99 // 100]


def parse_bulk(printed: str) -> Sample:
    """The figures of a run of `bench.bulk`.

    Raises:
        Unmeasured: there is no result in it.
    """
    measured = _last_object(printed)
    return (measured["bytes"] / measured["seconds"],)


def _last_object(printed: str) -> dict[str, Any]:
    try:
        measured: dict[str, Any] = json.loads(printed.strip().splitlines()[-1])
    except (ValueError, IndexError):
        raise Unmeasured(printed.strip() or "nothing was printed") from None
    return measured


@dataclass(frozen=True, slots=True)
class Result:
    """All samples of a cell, by contestant, in the order in which they were taken.

    Attributes:
        repeated: rounds that were thrown away because others had the machine.
        disturbed: rounds that count although they had.
        failure: why there are no samples, or not all.
    """

    cell: Cell
    samples: Mapping[str, Sequence[Sample]]
    repeated: int = 0
    disturbed: int = 0
    failure: str = ""

    def median(self, contestant: str, place: int) -> float:
        """Of the figure at `place` in Cell.figures; 0 without samples."""
        found = self.samples[contestant]
        return median(sample[place] for sample in found) if found else 0.0

    def spread(self, contestant: str, place: int) -> float:
        """Half of what lies between the least and the greatest sample, of their median."""
        values = [sample[place] for sample in self.samples[contestant]]
        middle = self.median(contestant, place)
        return (max(values) - min(values)) / 2 / middle if middle else 0.0

    def ratio(self, ours: str, rival: str, place: int) -> float | None:
        """Our median divided by a rival's; None where that is 0: it has none, or was not measured."""
        theirs = self.median(rival, place)
        return self.median(ours, place) / theirs if theirs else None
