"""How often something that happens by chance may have happened, and still be what it was meant to be."""

from __future__ import annotations

from math import exp, lgamma, log

ALPHA = 1e-6
"""A true share leaves its bounds in one of a million looks at it."""


def bounds(count: int, share: float, alpha: float = ALPHA) -> tuple[int, int]:
    """How many of `count` tries succeed at least and at most, each with chance `share`, but for `alpha` of
    all cases.

    Half of `alpha` lies below, half of it above: exact tails of the binomial distribution.
    """
    if not 0 < share < 1:
        sure = round(count * share)
        return sure, sure
    low, tail = 0, _chance(count, 0, share)
    while tail <= alpha / 2:
        low += 1
        tail += _chance(count, low, share)
    high, tail = count, _chance(count, count, share)
    while tail <= alpha / 2:
        high -= 1
        tail += _chance(count, high, share)
    return low, high


def _chance(count: int, hits: int, share: float) -> float:
    """Of exactly so many; in logarithms, as the binomial coefficient alone would be too large."""
    choices = lgamma(count + 1) - lgamma(hits + 1) - lgamma(count - hits + 1)
    return exp(choices + hits * log(share) + (count - hits) * log(1 - share))
