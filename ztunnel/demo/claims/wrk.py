"""How fast a way is, out of what wrk prints."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ztunnel.demo.failure import LaboratoryFailed

_RATE = re.compile(r"Requests/sec:\s+([\d.]+)")
_HALF = re.compile(r"50%\s+([\d.]+)(us|ms|s)\b")
_ERRORS = re.compile(r"(?:Socket errors|Non-2xx or 3xx responses).*")
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


@dataclass(frozen=True, slots=True)
class WrkResult:
    """Requests a second, and the median of their latencies in seconds."""

    rate: float
    p50_seconds: float


def parse_wrk(text: str) -> WrkResult:
    """What `wrk --latency` printed.

    Raises:
        LaboratoryFailed: it did not measure, or some requests failed.
    """
    rate, half, errors = _RATE.search(text), _HALF.search(text), _ERRORS.search(text)
    if errors or rate is None or half is None:
        raise LaboratoryFailed(f"wrk: {errors[0] if errors else text.strip() or 'printed nothing'}")
    return WrkResult(float(rate[1]), float(half[1]) * _UNITS[half[2]])


def best(results: Sequence[WrkResult]) -> WrkResult:
    """The best of each figure by itself: whatever else runs on the machine only makes a run worse."""
    return WrkResult(max(result.rate for result in results), min(result.p50_seconds for result in results))


def thousands(rate: float) -> str:
    """`12.3 k`."""
    return f"{rate / 1000:.1f} k"


def micros(seconds: float) -> str:
    """`123 us`."""
    return f"{seconds * 1e6:.0f} us"
