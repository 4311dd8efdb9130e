"""Shares of requests: which request is one of so many."""

from __future__ import annotations

from typing import Protocol

from ztunnel.model.route_policy import MILLION


class Rng(Protocol):
    """The part of `random.Random` that a choice needs."""

    def random(self) -> float:
        """From 0 up to 1."""


def hits(per_million: int, rng: Rng) -> bool:
    """Whether a request is one of that share."""
    return per_million >= MILLION or (per_million > 0 and int(rng.random() * MILLION) < per_million)
