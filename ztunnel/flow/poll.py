"""Polls an epoll set: what is ready, in the order in which it has its turn.

A few that are ready come as the kernel tells them. Where there are more, or a round did not come to all, each
source (`Share`) has one before any has its second, the descriptor first that has waited for longest: a pod
that ends with three thousand connections, or a client that closes as many at once, stands before nobody
else's bytes.
"""

from __future__ import annotations

import select
from typing import Final

from ztunnel.flow.held import Share

FEW_EVENTS: Final = 64
"""Fewer are handled as they come, unless that takes long."""

_MOST_EVENTS: Final = 4096
_ENOUGH: Final = 256
"""Of one source: a round handles some tens."""

Event = tuple[int, int]
"""A descriptor, and the mask of what it is ready for."""


class Poll:
    """What is registered, with whose it is.

    Attributes:
        busy: what it told of last has an order, and it is to be told what is `served`.
    """

    __slots__ = ("_epoll", "_left", "_round", "_served", "_shares", "busy")

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._shares: dict[int, Share] = {}
        self._served: dict[int, int] = {}
        self._round = 0
        self._left = False
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
        """What is ready, after a wait of up to so long. Whoever asks may leave the last ones and say so
        (`leave`): they are ready the next time."""
        left, self._left = self._left, False
        events = self._epoll.poll(wait_seconds, _MOST_EVENTS if self.busy or left else FEW_EVENTS)
        if len(events) < FEW_EVENTS and not left:
            if self.busy:
                self.busy = False
                self._served.clear()
            return events
        if not self.busy:
            self.busy = True
            if not left:
                # What was seen just now is ready still, and is reported again.
                events = self._epoll.poll(0, _MOST_EVENTS)
        self._round += 1
        return self._in_turn(events)

    def served(self, fd: int) -> None:
        """It has had its turn."""
        self._served[fd] = self._round

    def leave(self, events: list[Event], last: int) -> None:
        """Of these, those behind the descriptor `last` have not had their turn."""
        self._left = True
        if not self.busy:
            self._round += 1
            for fd, _ in events:
                self.served(fd)
                if fd == last:
                    return

    def _in_turn(self, events: list[Event]) -> list[Event]:
        """The first of each source, the second of each, and so on; what no round comes to is left out."""
        served, shares = self._served, self._shares
        if served:
            again = [event for event in events if event[0] in served]
            again.sort(key=lambda event: served[event[0]])
            events = [event for event in events if event[0] not in served]
            events += again
        seen: dict[int, int] = {}
        turns: list[list[Event]] = []
        for event in events:
            share = shares.get(event[0])
            if share is None:
                turn = 0
            else:
                turn = seen.get(share.key, 0)
                if turn >= _ENOUGH:
                    continue
                seen[share.key] = turn + 1
            if turn == len(turns):
                turns.append([])
            turns[turn].append(event)
        return [event for turn in turns for event in turn]
