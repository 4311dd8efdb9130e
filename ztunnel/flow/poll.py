"""Polls an epoll set: what is ready, in the order in which it has its turn.

A few that are ready come as the kernel tells them. Where there are more, or a round did not come to all, each
source (`Share`) has one before any has its second, the descriptor first that has waited for longest: a pod
that ends with three thousand connections, or a client that closes as many at once, stands before nobody
else's bytes.

```
set ── descriptors of sources with up to 128
 └──── a set for each source with more, of which a round is told only some
```

To be told of three thousand takes longer than what a round does for them. Of those in a set of their own the
kernel tells the next ones each time.
"""

from __future__ import annotations

import select
from collections import Counter
from typing import Final

from ztunnel.flow.held import Share

FEW_EVENTS: Final = 64
"""Fewer are handled as they come, unless that takes long."""

CROWD: Final = 128
"""A source with more descriptors has a set of its own, as long as it has any."""

_MOST_EVENTS: Final = 4096
_MOST_OF_A_SOURCE: Final = 256

Event = tuple[int, int]
"""A descriptor, and the mask of what it is ready for."""


class _Source:
    """Whose descriptors these are.

    Attributes:
        key: the share's.
        events: by descriptor, what is waited for.
        epoll: the set that they are in: that of all, or their own.
        batch: of how many in it a round is told.
        told: of how many the last one was.
    """

    __slots__ = ("batch", "epoll", "events", "key", "told")

    def __init__(self, key: int, epoll: select.epoll) -> None:
        self.key = key
        self.events: dict[int, int] = {}
        self.epoll = epoll
        self.batch = FEW_EVENTS
        self.told = 0

    def next(self) -> list[Event]:
        """What is ready in its own set, the next ones. Those that are told of go to the end of the kernel's
        list, whatever becomes of them: so they are as many as the last rounds came to, and a few more."""
        events = self.epoll.poll(0, self.batch)
        self.told = len(events)
        if self.told == self.batch:
            self.batch = min(self.batch + self.batch // 8 + 1, _MOST_OF_A_SOURCE)
        return events

    def leave(self, count: int) -> None:
        """So many of those were not handled."""
        self.batch = max(self.told - count, 1)


class Poll:
    """What is registered, with whose it is.

    Attributes:
        busy: what it told of last has an order, and it is to be told what is `served`.
    """

    __slots__ = ("_epoll", "_left", "_of", "_round", "_served", "_sets", "_sources", "busy")

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._of: dict[int, _Source] = {}  # by descriptor
        self._sources: dict[int, _Source] = {}  # by key
        self._sets: dict[int, _Source] = {}  # by the descriptor of their own set
        self._served: dict[int, int] = {}
        self._round = 0
        self._left = False
        self.busy = False

    def close(self) -> None:
        """Let go of the epoll set, and of no descriptor."""
        self._epoll.close()
        for source in self._sets.values():
            source.epoll.close()
        for known in (self._of, self._sources, self._sets):
            known.clear()

    def fileno(self) -> int:
        """Readable when a descriptor is ready."""
        return self._epoll.fileno()

    def register(self, fd: int, events: int, share: Share | None) -> None:
        """`share`: whose it is, beside whose others it waits for its turn; None: nobody else's."""
        if share is None:
            self._epoll.register(fd, events)
            return
        key = share.key
        source = self._sources.get(key)
        if source is None:
            source = _Source(key, self._epoll)
        source.epoll.register(fd, events)
        self._sources[key] = self._of[fd] = source
        source.events[fd] = events
        count = len(source.events)
        if source.epoll is self._epoll and count > CROWD and count % CROWD == 1:
            self._set_apart(source)

    def _set_apart(self, source: _Source) -> None:
        """Give it a set of its own; without a descriptor for one all stay where they are."""
        epoll = None
        try:
            epoll = select.epoll()
            for fd, events in source.events.items():
                epoll.register(fd, events)
            self._epoll.register(epoll.fileno(), select.EPOLLIN)
        except OSError:
            if epoll is not None:
                epoll.close()
            return
        for fd in source.events:
            self._epoll.unregister(fd)
        source.epoll = epoll
        self._sets[epoll.fileno()] = source

    def modify(self, fd: int, events: int) -> None:
        """Wait for other events."""
        source = self._of.get(fd)
        if source is None:
            self._epoll.modify(fd, events)
            return
        source.epoll.modify(fd, events)
        source.events[fd] = events

    def unregister(self, fd: int) -> None:
        """It is not waited for any more."""
        source = self._of.get(fd)
        (self._epoll if source is None else source.epoll).unregister(fd)
        self.forget(fd)

    def forget(self, fd: int) -> None:
        """As `unregister`, for one that is closed at once: then the kernel takes it out by itself."""
        source = self._of.pop(fd, None)
        if source is None:
            return
        del source.events[fd]
        if not source.events:
            del self._sources[source.key]
            if source.epoll is not self._epoll:
                del self._sets[source.epoll.fileno()]
                source.epoll.close()

    def ready(self, wait_seconds: float) -> list[Event]:
        """What is ready, after a wait of up to so long. Whoever asks may leave the last ones and say so
        (`leave`): they are ready the next time."""
        left, self._left = self._left, False
        events = self._poll(wait_seconds, _MOST_EVENTS if self.busy or left else FEW_EVENTS)
        if len(events) < FEW_EVENTS and not left:
            if self.busy:
                self.busy = False
                self._served.clear()
            return events
        if not self.busy:
            self.busy = True
            if not left:
                # What was seen just now is ready still, and is reported again.
                events = self._poll(0, _MOST_EVENTS)
        self._round += 1
        return self._in_turn(events)

    def _poll(self, wait_seconds: float, most: int) -> list[Event]:
        events = self._epoll.poll(wait_seconds, most)
        sets = self._sets
        if sets:
            several = [sets[fd] for fd, _ in events if fd in sets]
            if several:
                events = [event for event in events if event[0] not in sets]
            for source in several:
                events += source.next()
        return events

    def is_waited_for(self, events: list[Event]) -> bool:
        """Whether others have become ready beside a crowd whose turns are among `events`."""
        sets = self._sets
        if not sets:
            return False
        told = {fd for fd, _ in events}
        return any(fd not in sets and fd not in told for fd, _ in self._epoll.poll(0, FEW_EVENTS))

    def served(self, fd: int) -> None:
        """It has had its turn."""
        self._served[fd] = self._round

    def leave(self, events: list[Event], last: int) -> None:
        """Of these, those behind the descriptor `last` have not had their turn."""
        self._left = True
        place = next(place for place, event in enumerate(events) if event[0] == last) + 1
        if not self.busy:
            self._round += 1
            for fd, _ in events[:place]:
                self.served(fd)
        if self._sets:
            rest = Counter(self._of.get(fd) for fd, _ in events[place:])
            for source, count in rest.items():
                if source is not None and source.epoll is not self._epoll:
                    source.leave(count)

    def _in_turn(self, events: list[Event]) -> list[Event]:
        """The first of each source, the second of each, and so on."""
        served, sources = self._served, self._of
        if served:
            again = [event for event in events if event[0] in served]
            again.sort(key=lambda event: served[event[0]])
            events = [event for event in events if event[0] not in served]
            events += again
        seen: dict[_Source, int] = {}
        turns: list[list[Event]] = []
        for event in events:
            source = sources.get(event[0])
            if source is None:
                turn = 0
            else:
                turn = seen.get(source, 0)
                seen[source] = turn + 1
            if turn == len(turns):
                turns.append([])
            turns[turn].append(event)
        return [event for turn in turns for event in turn]
