"""Whether calls are spread evenly: each share against what a fair choice for each call would give."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt

SIGMAS = 5.0
"""A fair balancer leaves these bounds, for any of four endpoints, in two runs of a million."""


def tolerance(count: int, endpoints: int) -> float:
    """How far from its expectation the share of one of `endpoints` may be after `count` calls."""
    chance = 1 / endpoints
    return SIGMAS * sqrt(count * chance * (1 - chance))


def is_even(answers: Mapping[str, int], count: int, endpoints: int) -> bool:
    """Whether every endpoint answered its share of `count` calls, and nobody else answered."""
    if len(answers) != endpoints or sum(answers.values()) != count:
        return False
    return all(abs(share - count / endpoints) <= tolerance(count, endpoints) for share in answers.values())
