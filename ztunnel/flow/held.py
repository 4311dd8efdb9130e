"""Bytes that applications have not taken yet, which the process holds for them: how many, for whom, and who
gives way where there are too many.

Fair first between pods, then between the sources of a pod, as places are (`share`). From three quarters of
the limit on, whoever holds the most gets nothing new; beyond the limit its newest flow is ended, of those
that hold as much as its others do. So whoever reads what it asked for is never ended for somebody who does
not.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from typing import Protocol

_PER_ROUND = 64
"""Flows that are ended in one round of the engine: some milliseconds."""

_NOTHING_NEW = 0.75


class Holder(Protocol):
    """A flow that bytes are held for."""

    @property
    def opened_at(self) -> float:
        """When, in monotonic seconds."""

    @property
    def held_bytes(self) -> int:
        """As many as it has told its `Share` of."""

    def give_way(self) -> None:
        """End now: nothing is held for it any more when this returns."""


class Rounds(Protocol):
    """The engine, as far as it concerns this."""

    def next_round(self, callback: Callable[[], None], /) -> None:
        """Call back in the next round."""


class _Pod:
    __slots__ = ("held_bytes", "sources")

    def __init__(self) -> None:
        self.held_bytes = 0
        self.sources: dict[Hashable, _Source] = {}


class _Source:
    """Attributes: live: whether it is in the table, which it is while it holds something."""

    __slots__ = ("held_bytes", "holders", "live", "pod")

    def __init__(self, pod: _Pod) -> None:
        self.pod = pod
        self.live = True
        self.held_bytes = 0
        self.holders: dict[Holder, None] = {}


class HeldBytes:
    """All of them.

    Attributes:
        total_bytes: how many there are.
        gave_way_total: flows that were ended for others.
        refused_total: flows that were not begun.
    """

    __slots__ = ("_limit_bytes", "_pods", "_relieving", "gave_way_total", "refused_total", "total_bytes")

    def __init__(self, limit_bytes: int = 2**62) -> None:
        self._limit_bytes = limit_bytes
        self._pods: dict[Hashable, _Pod] = {}
        self._relieving = False
        self.total_bytes = 0
        self.gave_way_total = 0
        self.refused_total = 0

    def share(self, pod: Hashable, source: Hashable) -> Share:
        """For the flows of a pod with one other end."""
        return Share(self, pod, source)

    def refuses(self, pod: Hashable, source: Hashable) -> bool:
        """Whether a new flow of theirs is one too many; it is counted then."""
        if self.total_bytes < self._limit_bytes * _NOTHING_NEW:
            return False
        greediest, held = self._greediest_pod()
        refused = held is None or (greediest == pod and _greediest_source(held)[0] == source)
        self.refused_total += refused
        return refused

    def make_room(self, rounds: Rounds) -> None:
        """End what is too much, the rest of it in later rounds. Not to be called from within a flow."""
        self._relieving = False
        for _ in range(_PER_ROUND):
            if self.total_bytes <= self._limit_bytes:
                return
            _, pod = self._greediest_pod()
            if pod is None:
                return
            source = _greediest_source(pod)[1]
            holder = _newest(source)
            before = source.held_bytes
            self.gave_way_total += 1
            holder.give_way()
            if source.held_bytes >= before and source.live:
                raise RuntimeError("a flow gave way, and what is held for it stays")
        self.relieve(rounds)

    def relieve(self, rounds: Rounds) -> None:
        """Have room made, where too much is held."""
        if self.total_bytes > self._limit_bytes and not self._relieving:
            self._relieving = True
            rounds.next_round(partial(self.make_room, rounds))

    def _greediest_pod(self) -> tuple[Hashable, _Pod | None]:
        most, greediest, found = -1, None, None
        for key, pod in self._pods.items():
            if pod.held_bytes > most:
                most, greediest, found = pod.held_bytes, key, pod
        return greediest, found

    def enter(self, pod: Hashable, source: Hashable) -> _Source:
        """The account of who begins to hold something."""
        of_pod = self._pods.get(pod)
        if of_pod is None:
            of_pod = self._pods[pod] = _Pod()
        found = of_pod.sources.get(source)
        if found is None:
            found = of_pod.sources[source] = _Source(of_pod)
        return found

    def leave(self, pod: Hashable, source: Hashable) -> None:
        """It holds nothing any more."""
        of_pod = self._pods[pod]
        of_pod.sources.pop(source).live = False
        if not of_pod.sources:
            del self._pods[pod]


class Share:
    """What is held for the flows of one pod with one other end; there may be several for the same two.

    Attributes:
        key: of the two, equal where they are.
    """

    __slots__ = ("_account", "_all", "key", "pod", "source")

    def __init__(self, held: HeldBytes, pod: Hashable, source: Hashable) -> None:
        self._all = held
        self._account: _Source | None = None
        self.pod = pod
        self.source = source
        self.key = hash((pod, source))

    @property
    def refuses(self) -> bool:
        """Whether a new flow is one too many; it is counted then."""
        return self._all.refuses(self.pod, self.source)

    def hold(self, holder: Holder, count: int, rounds: Rounds) -> None:
        """`count` bytes more are held for `holder`."""
        account = self._account
        if account is None or not account.live:
            account = self._account = self._all.enter(self.pod, self.source)
        account.holders[holder] = None
        account.held_bytes += count
        account.pod.held_bytes += count
        self._all.total_bytes += count
        self._all.relieve(rounds)

    def drop(self, holder: Holder, count: int) -> None:
        """`count` bytes of those have left our hands; the holder's own figure says so already."""
        account = self._account
        assert account is not None
        account.held_bytes -= count
        account.pod.held_bytes -= count
        self._all.total_bytes -= count
        if not holder.held_bytes:
            del account.holders[holder]
            if not account.holders:
                self._all.leave(self.pod, self.source)


def _greediest_source(pod: _Pod) -> tuple[Hashable, _Source]:
    return max(pod.sources.items(), key=lambda item: item[1].held_bytes)


def _newest(source: _Source) -> Holder:
    """Of those that hold as much as the others do."""
    mean = source.held_bytes / len(source.holders)
    chosen: Holder | None = None
    for holder in source.holders:
        if holder.held_bytes >= mean and (chosen is None or holder.opened_at >= chosen.opened_at):
            chosen = holder
    assert chosen is not None
    return chosen
