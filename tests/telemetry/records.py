"""Requests that have ended, in one expression: their records, and what is counted of them."""

from __future__ import annotations

from copy import copy
from typing import Any, TypeVar

from ztunnel.telemetry.access_log import Record
from ztunnel.telemetry.request_counts import RequestCounts, RequestLabels
from ztunnel.telemetry.request_log import RequestRecord

_Record = TypeVar("_Record", Record, RequestRecord)


def record_of(time_ns: int = 0, **known: Any) -> RequestRecord:
    """One of which this is known."""
    return changed(RequestRecord(time_ns), **known)


def changed(record: _Record, **other: Any) -> _Record:
    """The same, but for this."""
    made = copy(record)
    for name, value in other.items():
        setattr(made, name, value)
    return made


def count(
    counts: RequestCounts,
    labels: RequestLabels,
    milliseconds: float,
    *bodies: int,
    messages: tuple[int, int] | None = None,
) -> None:
    """One that took so long; `bodies` are the bytes of the request's and of the response's."""
    received, sent = bodies
    counts.of(labels).add((milliseconds, float(received), float(sent)), messages)
