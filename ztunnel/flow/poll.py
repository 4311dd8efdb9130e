"""Polls an epoll set: what is ready, in the order in which it has its turn.

A few that are ready come as the kernel tells them. Where there are more, each source (`Share`) has one before
any has its second, the descriptor first that has waited for longest: a pod that ends with three thousand
connections, or a client that closes as many at once, stands before nobody else's bytes.
"""

from __future__ import annotations

import select
from collections.abc import Hashable
from typing import Final

from ztunnel.flow.held import Share

FEW_EVENTS: Final = 64
"""Of so many the order does not matter: they are some milliseconds together."""

_MOST_EVENTS: Final = 4096

Event = tuple[int, int]
"""A descriptor, and the mask of what it is ready for."""


class Poll:
    """What is registered, with whose it is.

    Attributes:
        busy: more than a few were ready when it was asked last.
    """

    __slots__ = ("_epoll", "_round", "_served", "_shares", "busy")

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._shares: dict[int, Share] = {}
        self._served: dict[int, int] = {}
        self._round = 0
        self.busy = False

    def close(self) -> None:
        """Let go of the epoll set, and of no descriptor."""
        self._epoll.close()
        self._shares.clear()

    def fileno(self) -> int:
        """Readable when a descriptor is ready."""
        return self._epoll.fileno()

    def register(self, fd: int, events: int, share: Share | None) -> None:
        """`share`: whose it is, beside whose others it waits for its turn; None: nobody else's."""
        self._epoll.register(fd, events)
        if share is not None:
            self._shares[fd] = share

    def modify(self, fd: int, events: int) -> None:
        """Wait for other events."""
        self._epoll.modify(fd, events)

    def unregister(self, fd: int) -> None:
        """It is not waited for any more."""
        self._epoll.unregister(fd)
        self.forget(fd)

    def forget(self, fd: int) -> None:
        """As `unregister`, for one that is closed at once: then the kernel takes it out by itself."""
        self._shares.pop(fd, None)

    def ready(self, wait_seconds: float) -> list[Event]:
        """What is ready, after a wait of up to so long. Where it is `busy`, whoever asks may leave the
        last ones: they are ready the next time."""
        events = self._epoll.poll(wait_seconds, _MOST_EVENTS if self.busy else FEW_EVENTS)
        if len(events) < FEW_EVENTS:
            if self.busy:
                self.busy = False
                self._served.clear()
            return events
        if not self.busy:
            self.busy = True
            # What was seen just now is ready still, and is reported again.
            events = self._epoll.poll(0, _MOST_EVENTS)
        self._round += 1
        return self._in_turn(events)

    def served(self, fd: int) -> None:
        """It has had its turn, while many were ready."""
        self._served[fd] = self._round

    def _in_turn(self, events: list[Event]) -> list[Event]:
        """The first of each source, the second of each, and so on."""
        served, shares = self._served, self._shares
        events.sort(key=lambda event: served.get(event[0], 0))
        seen: dict[Hashable, int] = {}
        turns: list[list[Event]] = []
        for event in events:
            share = shares.get(event[0])
            if share is None:
                turn = 0
            else:
                source = (share.pod, share.source)
                turn = seen.get(source, 0)
                seen[source] = turn + 1
            if turn == len(turns):
                turns.append([])
            turns[turn].append(event)
        return [event for turn in turns for event in turn]
