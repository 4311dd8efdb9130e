"""What a proxy that has ended has left with the holder of its node, to be given to the next one."""

from __future__ import annotations

import trio

from ztunnel.run.incumbent import Offer
from ztunnel.run.successor import Inherited


class Kept:
    """Until the next one has it, this is who it asks (`incumbent.Giver`).

    Attributes:
        over: set once the next one has taken over.
    """

    def __init__(self, inherited: Inherited) -> None:
        self.over = trio.Event()
        self._inherited = inherited
        self._asked = trio.Lock()

    @property
    def is_asked(self) -> bool:
        """Whether somebody is taking it over now."""
        return self._asked.locked()

    async def step_back(self) -> Offer:
        """One at a time is given all of it."""
        await self._asked.acquire()
        left = self._inherited
        return Offer(left.listeners, left.calls, left.since_ns, ())

    def step_up(self) -> None:
        """It has not taken over: the next one may."""
        self._asked.release()

    def hand_over(self, pages: bool) -> None:
        """It serves."""
        self._inherited.close()
        self.over.set()
