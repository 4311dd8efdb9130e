"""Places that many share. Where none is left, the newest of whoever holds the most gives way: so whoever
holds less than a fair share of them keeps what it has, and gets another one.

Fair first between pods, then between the sources of the pod that holds the most: an attacker with many
addresses takes places from the pod that it attacks, not from another one.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable


class Place:
    """One place, held by one connection."""

    __slots__ = ("give_way", "pod", "source")

    def __init__(self, pod: Hashable, source: Hashable, give_way: Callable[[], None]) -> None:
        self.pod = pod
        self.source = source
        self.give_way = give_way


class Shares:
    """`places` of them, all in all; without a number, one for everybody."""

    __slots__ = ("_held", "_most", "_pods", "gave_way_total", "refused_total")

    def __init__(self, places: int = 2**62) -> None:
        self._most = places
        self._held = 0
        self._pods: dict[Hashable, dict[Hashable, dict[Place, None]]] = {}
        self.gave_way_total = 0
        self.refused_total = 0

    def __len__(self) -> int:
        return self._held

    def enter(self, pod: Hashable, source: Hashable, give_way: Callable[[], None]) -> Place | None:
        """A place for a connection of `source` with `pod`; None where none is left and it is itself the
        newest of the greediest.

        `give_way()` is called, from within another's `enter`, when it has to make room: the place has been
        left by then.
        """
        if self._held >= self._most:
            newest = self._newest_of_the_greediest(pod, source)
            if newest is None:
                self.refused_total += 1
                return None
            self.leave(newest)
            self.gave_way_total += 1
            newest.give_way()
        place = Place(pod, source, give_way)
        self._pods.setdefault(pod, {}).setdefault(source, {})[place] = None
        self._held += 1
        return place

    def leave(self, place: Place) -> None:
        """The connection is over; harmless a second time."""
        sources = self._pods.get(place.pod)
        held = sources.get(place.source) if sources is not None else None
        if sources is None or held is None or place not in held:
            return
        del held[place]
        self._held -= 1
        if not held:
            del sources[place.source]
            if not sources:
                del self._pods[place.pod]

    def _newest_of_the_greediest(self, pod: Hashable, source: Hashable) -> Place | None:
        """Whose place goes to a newcomer; None where it is the newcomer that is one too many."""
        greediest, most = pod, self._count(pod) + 1
        for other, sources in self._pods.items():
            count = sum(map(len, sources.values())) if other != pod else 0
            if count > most:
                greediest, most = other, count
        sources = self._pods.get(greediest, {})
        own = greediest == pod
        chosen, most = source, len(sources.get(source, ())) + 1 if own else 0
        for other, held in sources.items():
            if len(held) > most and not (own and other == source):
                chosen, most = other, len(held)
        if own and chosen == source:
            return None
        return next(reversed(sources[chosen]))

    def _count(self, pod: Hashable) -> int:
        return sum(map(len, self._pods.get(pod, {}).values()))
