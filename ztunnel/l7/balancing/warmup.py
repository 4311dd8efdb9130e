"""What an endpoint that is new gets of its share (Envoy's slow start, applySlowStartFactor).

Envoy does that within a locality only: where a new endpoint is alone in its own it gets all of that at once
(istio/istio#54435, envoyproxy/envoy#29008). Here a level and a locality count for less, too, while what they
have is new; beside what is as new as they are they count whole."""

from __future__ import annotations

from collections.abc import Sequence

from ztunnel.l7.balancing.host import Host
from ztunnel.model.traffic import Balance, Balancing, Warmup


def share_of(warmup: Warmup, age_seconds: float) -> float:
    """The part of its weight that an endpoint of that age has, from the least percentage up to 1."""
    if age_seconds >= warmup.seconds:
        return 1.0
    progress = max(age_seconds, 1.0) / warmup.seconds
    share: float = min(progress, 1.0) ** (1.0 / warmup.aggression)
    return max(share, warmup.least_percent / 100)


def warmup_of(balancing: Balancing | None) -> Warmup | None:
    """Of a way to choose that knows of it: by turns, or by what is under way."""
    if balancing is None or balancing.by_hash is not None or balancing.simple is Balance.RANDOM:
        return None
    return balancing.warmup


def warmths_of(warmup: Warmup, groups: Sequence[Sequence[Host]], now: float) -> list[float]:
    """Of each group of endpoints, the part that they have on average, beside the warmest of all; 1 for a
    group without any."""
    shares = [[share_of(warmup, now - host.since) for host in group] for group in groups]
    warmest = max((max(each) for each in shares if each), default=1.0)
    return [sum(each) / len(each) / warmest if each else 1.0 for each in shares]
