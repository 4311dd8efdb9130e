"""Which endpoint of a service with session affinity each pod keeps, where no program of the kernel has it."""

from __future__ import annotations

from ztunnel.model.address import Endpoint

_REMEMBERED = 16384
"""Pairs of a pod and a service; the one goes that was not used for longest."""


class AffinityTable:
    """The memory of one process (`outbound.accept.Memory`): a new one chooses anew."""

    def __init__(self, limit: int = _REMEMBERED) -> None:
        self._limit = limit
        self._kept: dict[tuple[int, Endpoint], tuple[Endpoint, int]] = {}

    def kept(self, cookie: int, vip: Endpoint, seconds: int, now_ns: int) -> Endpoint | None:
        """The endpoint of this pod's last call, if that was no longer ago; it may be none any more."""
        found = self._kept.get((cookie, vip))
        return found[0] if found is not None and now_ns - found[1] < seconds * 1_000_000_000 else None

    def keep(self, cookie: int, vip: Endpoint, endpoint: Endpoint, now_ns: int) -> None:
        """Its call goes to that endpoint."""
        self._kept.pop((cookie, vip), None)
        if len(self._kept) >= self._limit:
            del self._kept[next(iter(self._kept))]
        self._kept[cookie, vip] = endpoint, now_ns
