"""Chooses among endpoints that may all be chosen: each algorithm as Envoy has it (load_balancer_impl.cc).

Where weights differ, or endpoints are new, ROUND_ROBIN and LEAST_REQUEST are a schedule: an endpoint has its
next turn so much after its last as its share is small, and with LEAST_REQUEST the more it has under way."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from typing import Protocol

from ztunnel.l7.balancing.host import Host
from ztunnel.l7.balancing.ring import NOT_TRIED, Endpoints, Maglev, Ring
from ztunnel.l7.balancing.warmup import share_of
from ztunnel.l7.chance import Rng
from ztunnel.model.traffic import Balance, Balancing, Warmup

_DRAWS = 5
"""So often it is drawn again where it is the one that is to be avoided (Istio's
host_selection_retry_max_attempts)."""

_PLACES = 4096
"""Of a Maglev table, that are filled at a time."""


class Chooser(Protocol):
    """One algorithm over the endpoints of one group, of which there is at least one."""

    def choose(self, key: int | None, now: float, rng: Rng) -> Host:
        """One of them; `key`: of the request, None where it has none."""

    def other(self, key: int | None, tried: Endpoints, now: float, rng: Rng) -> Host:
        """One that was not tried, where that can be had."""

    def go_on(self) -> bool:
        """Do a part of what it has to prepare; whether there is more."""


class Drawn:
    """Those that can be drawn again, which is all but hashes."""

    def __init__(self, hosts: Sequence[Host]) -> None:
        self._hosts = hosts

    def choose(self, key: int | None, now: float, rng: Rng) -> Host:
        """One of them."""
        raise NotImplementedError

    def other(self, key: int | None, tried: Endpoints, now: float, rng: Rng) -> Host:
        """Drawn until it is another one, a few times; then any other."""
        for _ in range(_DRAWS):
            found = self.choose(key, now, rng)
            if found.endpoint not in tried:
                return found
        hosts, count = self._hosts, len(self._hosts)
        at = int(rng.random() * count)
        for step in range(count):
            found = hosts[(at + step) % count]
            if found.endpoint not in tried:
                return found
        return hosts[at]

    def go_on(self) -> bool:
        """Nothing is prepared."""
        return False


class AtRandom(Drawn):
    """RANDOM: all alike, whatever their weights."""

    def choose(self, key: int | None, now: float, rng: Rng) -> Host:
        """One of them."""
        return self._hosts[int(rng.random() * len(self._hosts))]


class LeastOfTwo(Drawn):
    """LEAST_REQUEST of equals: of two at random the one with less under way."""

    def choose(self, key: int | None, now: float, rng: Rng) -> Host:
        """One of them."""
        hosts, count = self._hosts, len(self._hosts)
        one = hosts[int(rng.random() * count)]
        two = hosts[int(rng.random() * count)]
        return two if two.active < one.active else one


class InTurn(Drawn):
    """ROUND_ROBIN of equals, from a place of its own: waypoints that start together do not all begin with the
    same endpoint."""

    def __init__(self, hosts: Sequence[Host], rng: Rng) -> None:
        super().__init__(hosts)
        self._next = int(rng.random() * len(hosts))

    def choose(self, key: int | None, now: float, rng: Rng) -> Host:
        """The next one."""
        at, count = self._next, len(self._hosts)
        self._next = (at + 1) % count
        return self._hosts[at]


class Schedule(Drawn):
    """By weight: whose next turn is the first."""

    def __init__(
        self, hosts: Sequence[Host], by_load: bool, warmup: Warmup | None, now: float, rng: Rng
    ) -> None:
        super().__init__(hosts)
        self._by_load = by_load
        self._warmup = warmup
        turns = [(rng.random() / self._share(host, now), number) for number, host in enumerate(hosts)]
        heapify(turns)
        self._turns = turns

    def _share(self, host: Host, now: float) -> float:
        share = float(host.weight)
        if self._warmup is not None:
            share *= share_of(self._warmup, now - host.since)
        return share / (host.active + 1) if self._by_load else share

    def choose(self, key: int | None, now: float, rng: Rng) -> Host:
        """Whose turn it is."""
        turn, number = heappop(self._turns)
        host = self._hosts[number]
        heappush(self._turns, (turn + 1 / self._share(host, now), number))
        return host


class Hashed:
    """Consistent hashing; a request without a key goes anywhere.

    A Maglev table is filled in parts, so that nobody waits for it: until then the one before is used, but for
    those of it that may not be chosen any more."""

    def __init__(self, hosts: Sequence[Host], size: int, maglev: bool, before: Hashed | None) -> None:
        self._hosts = hosts
        self._any = AtRandom(hosts)
        self._made: Ring | Maglev | None = None
        self._filling: Maglev | None = None
        if not maglev:
            self._made = Ring(hosts, size)
            return
        filling = Maglev(hosts, size)
        if before is None or before._made is None:
            filling.advance(len(filling))
            self._made = filling
        else:
            self._made, self._filling = before._made, filling
        self._may = frozenset(hosts)

    def choose(self, key: int | None, now: float, rng: Rng) -> Host:
        """Whose the key is."""
        return self._any.choose(key, now, rng) if key is None else self._chosen(key, NOT_TRIED, now, rng)

    def other(self, key: int | None, tried: Endpoints, now: float, rng: Rng) -> Host:
        """Whose the key would be without these."""
        return self._any.other(key, tried, now, rng) if key is None else self._chosen(key, tried, now, rng)

    def _chosen(self, key: int, tried: Endpoints, now: float, rng: Rng) -> Host:
        made = self._made
        assert made is not None
        found = made.choose(key, tried)
        if self._filling is not None and found not in self._may:
            found = made.choose(key, (*tried, found.endpoint))
            if found not in self._may or found.endpoint in tried:
                return self._any.other(key, tried, now, rng)
        return found

    def go_on(self) -> bool:
        """Fill a part of the table."""
        filling = self._filling
        if filling is not None and filling.advance(_PLACES):
            self._made, self._filling = filling, None
        return self._filling is not None


def chooser_of(
    balancing: Balancing, hosts: Sequence[Host], before: Chooser | None, now: float, rng: Rng
) -> Chooser:
    """The chooser among these. PASSTHROUGH is LEAST_REQUEST here: who calls an endpoint by its own address
    has it before anybody asks.

    Args:
        balancing: what was asked for.
        hosts: at least one.
        before: the chooser that this one follows.
        now: monotonic seconds.
        rng: for where it begins.
    """
    by_hash, warmup = balancing.by_hash, balancing.warmup
    if by_hash is not None:
        known = before if isinstance(before, Hashed) else None
        if by_hash.maglev_size:
            return Hashed(hosts, by_hash.maglev_size, True, known)
        return Hashed(hosts, by_hash.ring_size, False, None)
    if balancing.simple is Balance.RANDOM:
        return AtRandom(hosts)
    if warmup is not None and not any(now - host.since < warmup.seconds for host in hosts):
        warmup = None
    in_turn = balancing.simple is Balance.ROUND_ROBIN
    if warmup is not None or any(host.weight != hosts[0].weight for host in hosts):
        return Schedule(hosts, not in_turn, warmup, now, rng)
    return InTurn(hosts, rng) if in_turn else LeastOfTwo(hosts)
