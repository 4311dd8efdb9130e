"""Consistent hashing: requests with one key go to one endpoint, and few move where one comes or goes.

`Ring` is Envoy's RING_HASH: each endpoint has places on a circle of 64 bits, and a key belongs to the next
place. `Maglev` is a table in which endpoints take turns to fill the places that each prefers (Eisenbud and
others, NSDI 2016, section 3.4): more even, and a few more keys move."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from math import ceil
from typing import Final

from ztunnel.l7.balancing.host import Host, hash_of
from ztunnel.model.address import Endpoint

Endpoints = tuple[Endpoint, ...]
"""Where one request was tried in vain."""
NOT_TRIED: Final[Endpoints] = ()

MOST_POINTS = 8 << 20
"""Envoy's maximum_ring_size."""


class Ring:
    """A circle of at least so many places, in proportion to the weights."""

    __slots__ = ("_hosts", "_points")

    def __init__(self, hosts: Sequence[Host], least: int) -> None:
        total = sum(host.weight for host in hosts)
        lightest = min(host.weight for host in hosts) / total
        scale = min(ceil(lightest * least) / lightest, MOST_POINTS)
        found: list[tuple[int, int]] = []
        target, current = 0.0, 0
        for number, host in enumerate(hosts):
            target += scale * host.weight / total
            count = max(ceil(target - 1e-6) - current, 0)
            current += count
            found += [(point, number) for point in host.points(count)[:count]]
        found.sort()
        self._points = [point for point, _ in found]
        self._hosts = [hosts[number] for _, number in found]

    def __len__(self) -> int:
        return len(self._points)

    def choose(self, key: int, tried: Endpoints = NOT_TRIED) -> Host:
        """Whose the key is; none of those that were tried, where there is another one."""
        size = len(self._hosts)
        at = bisect_left(self._points, key) % size
        if not tried:
            return self._hosts[at]
        for step in range(size):
            host = self._hosts[(at + step) % size]
            if host.endpoint not in tried:
                return host
        return self._hosts[at]


class Maglev:
    """A table of so many places: a prime number, so that each endpoint's preferences are all of them. It is
    of use when `advance` has filled it."""

    __slots__ = ("_at", "_credit", "_heaviest", "_hosts", "_left", "_size", "_skips", "_table")

    def __init__(self, hosts: Sequence[Host], size: int) -> None:
        self._size = size = next_prime(size)
        self._hosts = list(hosts)
        self._table: list[Host | None] = [None] * size
        self._heaviest = max(host.weight for host in hosts)
        names = [str(host.endpoint).encode() for host in hosts]
        self._at = [hash_of(name) % size for name in names]
        self._skips = [hash_of(name + b"/skip") % (size - 1) + 1 for name in names]
        self._credit = [0] * len(hosts)
        self._left = size

    def __len__(self) -> int:
        return self._size

    def advance(self, places: int) -> bool:
        """Fill about so many more; whether all are filled."""
        table, at, credit, size, left = self._table, self._at, self._credit, self._size, self._left
        enough = max(left - places, 0)
        while left > enough:
            for number, host in enumerate(self._hosts):
                credit[number] += host.weight
                if credit[number] < self._heaviest:
                    continue
                credit[number] -= self._heaviest
                place, skip = at[number], self._skips[number]
                while table[place] is not None:
                    place += skip
                    if place >= size:
                        place -= size
                table[place] = host
                at[number] = (place + skip) % size
                left -= 1
                if not left:
                    break
        self._left = left
        return not left

    def choose(self, key: int, tried: Endpoints = NOT_TRIED) -> Host:
        """Whose the key is; none of those that were tried, where there is another one."""
        at, first = key % self._size, None
        for step in range(self._size):
            host = self._table[(at + step) % self._size]
            if host is None:
                continue
            if not tried or host.endpoint not in tried:
                return host
            if first is None:
                first = host
        assert first is not None
        return first


def next_prime(number: int) -> int:
    """The least one that is not less."""
    number = max(number, 2)
    while any(number % each == 0 for each in range(2, int(number**0.5) + 1)):
        number += 1
    return number
