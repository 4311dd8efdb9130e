"""What a node proxy's metrics page says, as samples that can be summed up."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_LINE = re.compile(r"(?P<name>\w+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of the page; label values are as the page escapes them."""

    name: str
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Samples:
    """One scrape."""

    samples: tuple[Sample, ...]

    def total(self, name: str, **labels: str) -> float:
        """The sum over all samples of this name that have these label values, 0 where there is none."""
        return sum(
            sample.value
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


def parse_samples(text: str) -> Samples:
    """Prometheus' text format; comments, and lines that are no samples, are left out."""
    found = (_LINE.match(line) for line in text.splitlines() if not line.startswith("#"))
    return Samples(
        tuple(
            Sample(match["name"], dict(_LABEL.findall(match["labels"] or "")), float(match["value"]))
            for match in found
            if match
        )
    )
