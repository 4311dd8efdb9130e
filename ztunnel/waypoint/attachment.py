"""What a waypoint stands for while that changes: node proxies hear of a change a moment before or after it.

A waypoint is asked for what was just attached to it by node proxies that know already: it may hear of it in a
moment. It is asked for what was detached by those that do not know yet. Neither is to cost a call; and what
has never been attached stays refused.
"""

from __future__ import annotations

from typing import Final

from ztunnel.errors import NoDestination
from ztunnel.model.address import Endpoint
from ztunnel.model.workload import Workload
from ztunnel.state.world import World
from ztunnel.waypoint.chain import Chain, chain_of

GRACE_SECONDS: Final = 5.0
"""How long what was detached is served: pushes take a second at most, and calls that wait are made then."""
WAIT_SECONDS: Final = 1.0
"""How long a call waits for what it is for to be attached."""
_MOST: Final = 4096
"""Addresses that are remembered, unless more are attached."""


class Attachments:
    """What was asked for lately, and was attached."""

    def __init__(self) -> None:
        self._seen_at: dict[Endpoint, float] = {}

    def chain(self, world: World, waypoint: Workload, asked: Endpoint, now: float) -> Chain:
        """As `chain_of`, also of what was attached until a moment ago.

        Raises:
            NoDestination: the waypoint does not stand for it.
        """
        try:
            chain = chain_of(world, waypoint, asked)
        except NoDestination:
            if now - self._seen_at.get(asked, -GRACE_SECONDS) >= GRACE_SECONDS:
                raise
            return chain_of(world, waypoint, asked, attached=False)
        if len(self._seen_at) >= _MOST and asked not in self._seen_at:
            self._forget(now)
        self._seen_at[asked] = now
        return chain

    def _forget(self, now: float) -> None:
        self._seen_at = {one: at for one, at in self._seen_at.items() if now - at < GRACE_SECONDS}


def may_come(world: World, waypoint: Workload, asked: Endpoint) -> bool:
    """Whether there is such an address, to which the waypoint might be attached in a moment."""
    try:
        chain_of(world, waypoint, asked, attached=False)
    except NoDestination:
        return False
    return True
