"""What an endpoint that is new gets of its share (Envoy's slow start, applySlowStartFactor)."""

from __future__ import annotations

from ztunnel.model.traffic import Warmup


def share_of(warmup: Warmup, age_seconds: float) -> float:
    """The part of its weight that an endpoint of that age has, from the least percentage up to 1."""
    if age_seconds >= warmup.seconds:
        return 1.0
    progress = max(age_seconds, 1.0) / warmup.seconds
    share: float = min(progress, 1.0) ** (1.0 / warmup.aggression)
    return max(share, warmup.least_percent / 100)
