"""When to renew a certificate, when to try again, and whose turn it is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Protocol

from ztunnel.model.identity import SpiffeId

_INITIAL_SECONDS = 1.0  # ztunnel src/identity/manager.rs
_CAP_SECONDS = 150.0
_SPREAD = 0.2
_EARLIER = 0.05  # of the lifetime


class Rng(Protocol):
    """The part of `random.Random` that is used here."""

    def random(self) -> float:
        """Evenly from [0, 1)."""


class Priority(IntEnum):
    """Who goes first when more certificates are due than may be fetched at a time; the lowest first."""

    CALLER = 0
    PREFETCH = 1
    REFRESH = 2


@dataclass(frozen=True, slots=True)
class Expiry:
    """How one identity stands, for telemetry."""

    identity: SpiffeId
    seconds: float | None
    """Until its certificate expires, negative if it has; None before the first one."""
    failures: int
    """Fetches that failed since the last one that did not."""
    cause: str
    """Of the last failure; empty without one."""


def renew_at(not_before: datetime, not_after: datetime, received: datetime, rng: Rng) -> datetime:
    """Half of the lifetime, or up to a twentieth of it earlier, so that a mesh does not renew all at once.

    A certificate that was past its half when it came (a CA that sets `not_before` far back) is renewed at
    half of what was left then; without this it would be renewed in a loop.
    """
    lifetime = not_after - not_before
    due = not_before + lifetime * (0.5 - _EARLIER * rng.random())
    return due if due > received else received + (not_after - received) / 2


def backoff(attempt: int, rng: Rng) -> float:
    """Seconds to wait after the `attempt`-th failure in a row (1, 2, ...): 1, 2, 4 ... 150, each +-20 %."""
    exponential = _INITIAL_SECONDS * 2.0 ** min(max(attempt, 1) - 1, 16)
    return min(exponential, _CAP_SECONDS) * (1 - _SPREAD + 2 * _SPREAD * rng.random())


def retry_at(now: datetime, attempt: int, not_after: datetime | None, rng: Rng) -> datetime:
    """When to try again: not later than the expiry of what is still valid (`not_after`; None: nothing is)."""
    due = now + timedelta(seconds=backoff(attempt, rng))
    return min(due, not_after) if not_after is not None and not_after > now else due
