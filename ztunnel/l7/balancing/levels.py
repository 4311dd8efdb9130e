"""Which level of endpoints, and which locality of it, a request goes to (Envoy's priority levels and
locality-weighted load balancing)."""

from __future__ import annotations

from collections.abc import Sequence

OVERPROVISIONED = 1.4
"""A level gives nothing up before less than 1 / 1.4 of its endpoints are left (Envoy's
overprovisioning_factor, 140)."""


def shares_of_levels(levels: Sequence[tuple[float, int]]) -> list[float]:
    """The part of all requests that each level gets, the first as much as it can take. All are 0 where no
    endpoint is left.

    Args:
        levels: of each, how many of its endpoints are left (parts of some that are new), and how many it has.
    """
    health = [min(OVERPROVISIONED * left / count, 1.0) if count else 0.0 for left, count in levels]
    total = min(sum(health), 1.0)
    shares, rest = [], 1.0
    for each in health:
        share = min(each / total, rest) if total else 0.0
        rest -= share
        shares.append(share)
    return shares


def panics(levels: Sequence[tuple[int, int]], least_percent: int) -> list[bool]:
    """Of each level, whether so few of its endpoints are left that all are used, the ejected as well; not
    where all levels together can take everything. 0 percent: never."""
    if not least_percent or sum(OVERPROVISIONED * left / count for left, count in levels if count) >= 1:
        return [False] * len(levels)
    return [count > 0 and 100 * left < least_percent * count for left, count in levels]


def weight_of_place(weight: float, left: int, count: int) -> float:
    """What a locality of that weight has, with so many of its endpoints left."""
    return weight * min(OVERPROVISIONED * left / count, 1.0) if count else 0.0
