"""What a request has been tried at in vain, and what that means for its next try (Envoy's previous_hosts and
previous_priorities, as Istio's routes ask for them)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from ztunnel.l7.balancing.ring import Endpoints

_EVERY: Final = 2
"""So many tries are at the same levels (Istio's update_frequency)."""


class Tried(NamedTuple):
    """The endpoints that were tried, in their order.

    Attributes:
        others: one that was not tried is preferred (`retryIgnorePreviousHosts`).
        remote: after every second try, levels that were tried are passed over (`retryRemoteLocalities`).
    """

    endpoints: Endpoints
    others: bool = True
    remote: bool = False


def passed_over(levels: Sequence[int], serves: Callable[[frozenset[int]], bool]) -> frozenset[int]:
    """The levels that are not asked any more (Envoy's PreviousPrioritiesRetryPriority). Where that would
    leave nobody it begins anew.

    Args:
        levels: of each try.
        serves: whether somebody is left without these levels.
    """
    seen: list[int] = []
    over = frozenset[int]()
    for level in levels:
        seen.append(level)
        if len(seen) % _EVERY == 0:
            over |= frozenset(seen)
            if not serves(over):
                over = frozenset()
                seen.clear()
    return over
