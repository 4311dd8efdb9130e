"""The endpoints of a service at a port, or of a subset of it, and which of them a request goes to (Envoy's
cluster).

```
level 0 ┬ locality ── endpoints ── chooser          levels: by how many of their endpoints are left
        └ locality ── endpoints ── chooser          localities: by their shares
level 1 ─ locality ── endpoints ── chooser          endpoints: by the algorithm, but for the ejected
```

What has happened to an endpoint stays with it for as long as it is one, whatever else changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import inf
from typing import Final, NamedTuple

from ztunnel.l7.balancing.balance import Chooser, chooser_of
from ztunnel.l7.balancing.circuit import Circuit
from ztunnel.l7.balancing.host import Host
from ztunnel.l7.balancing.levels import panics, shares_of_levels, weight_of_place
from ztunnel.l7.balancing.outlier import Outliers
from ztunnel.l7.balancing.tried import Tried, passed_over
from ztunnel.l7.balancing.warmup import warmths_of, warmup_of
from ztunnel.l7.chance import Rng
from ztunnel.model.address import Endpoint
from ztunnel.model.traffic import NO_TRAFFIC, Balancing, Traffic
from ztunnel.model.workload import Workload

_ALL = Balancing()

_MOMENT: Final = 0.25
"""Seconds: so often it is looked at what new endpoints can take."""


class Member(NamedTuple):
    """An endpoint as the world has it. `share`: of its locality beside the others of its level; 0: nothing is
    said of localities."""

    endpoint: Endpoint
    workload: Workload
    weight: int = 1
    level: int = 0
    place: str = ""
    share: float = 0.0


@dataclass(slots=True)
class _Group:
    """The endpoints of a locality that may be chosen; `count`, how many it has; `warmth`: which part of its
    share they can take."""

    hosts: list[Host]
    count: int
    share: float
    warmth: float = 1.0
    chooser: Chooser | None = None


class Cluster:
    """One of them.

    Attributes:
        traffic: the policies for it.
        circuit: what it has under way.
        hosts: its endpoints.
        outliers: None: nobody is ejected.
    """

    def __init__(self, rng: Rng, circuit: Circuit) -> None:
        """`circuit` may be another one's, too: that of the addresses of the other family."""
        self._rng = rng
        self._members: tuple[Member, ...] = ()
        self._groups: list[list[_Group]] = []
        self._levels: list[float] = []
        self._counts: list[tuple[int, int]] = []
        self._health: list[tuple[float, int]] = []
        self._weigh_at = inf
        self._choosers: dict[tuple[int, str], Chooser] = {}
        self._filling: list[Chooser] = []
        self._stale = True
        self.traffic = NO_TRAFFIC
        self.circuit = circuit
        self.hosts: dict[Endpoint, Host] = {}
        self.outliers: Outliers | None = None

    def configure(self, traffic: Traffic, now: float) -> None:
        """These are its policies now. With another way of finding outliers all endpoints are in use again."""
        before, self.traffic = self.traffic, traffic
        self.circuit.limit(traffic.pool, traffic.budget)
        if traffic.outlier != before.outlier:
            if self.outliers is not None:
                self.outliers.stop()
            self.outliers = Outliers(traffic.outlier, now) if traffic.outlier is not None else None
        if traffic.balancing != before.balancing or traffic.outlier != before.outlier:
            self._choosers.clear()
            self._stale = True

    def replace(self, members: Sequence[Member], now: float) -> None:
        """These are its endpoints now. One that was there before is the one that it was."""
        hosts: dict[Endpoint, Host] = {}
        for member in members:
            host = self.hosts.get(member.endpoint)
            if host is None or host.workload.uid != member.workload.uid:
                host = Host(member.endpoint, member.workload, now)
            host.workload = member.workload
            host.weight = max(member.weight, 1)
            host.level = member.level
            hosts[member.endpoint] = host
        self.hosts = hosts
        self._members = tuple(members)
        if self.outliers is not None:
            self.outliers.take_over(set(hosts.values()))
        self._stale = True

    def pick(self, key: int | None, tried: Tried | None, now: float) -> Host | None:
        """The endpoint for a request.

        Args:
            key: by which it is hashed; None: it has none.
            tried: where it was tried in vain; None: this is its first try.
            now: monotonic seconds.

        Returns:
            None where there is none.
        """
        if self._stale:
            self._arrange(now)
        elif now >= self._weigh_at:
            self._weigh(now)
        shares = self._levels if tried is None or not tried.remote else self._other_levels(tried)
        groups = self._level(shares)
        if groups is None:
            return None
        group = groups[0] if len(groups) == 1 else self._place(groups)
        chooser = group.chooser
        if chooser is None:
            return None
        host = chooser.choose(key, now, self._rng)
        if tried is not None and tried.others and host.endpoint in tried.endpoints:
            host = chooser.other(key, tried.endpoints, now, self._rng)
        return host

    def responded(self, host: Host, status: int, now: float) -> bool:
        """An endpoint has answered. Whether it was ejected for that."""
        outliers = self.outliers
        if outliers is None or not outliers.responded(host, status, len(self.hosts), now):
            return False
        self._stale = True
        return True

    def failed(self, host: Host, timed_out: bool, now: float) -> bool:
        """An endpoint could not be reached, broke off, or was too slow. Whether it was ejected for that."""
        outliers = self.outliers
        if outliers is None or not outliers.failed(host, timed_out, len(self.hosts), now):
            return False
        self._stale = True
        return True

    def look(self, now: float) -> None:
        """Time has passed: who was ejected for long enough is in use again."""
        if self.outliers is not None and self.outliers.look(now):
            self._stale = True

    def go_on(self) -> bool:
        """Prepare a part of what is not ready; whether there is more."""
        self._filling = [chooser for chooser in self._filling if chooser.go_on()]
        return bool(self._filling)

    @property
    def unready(self) -> bool:
        """Whether there is something to go on with."""
        return bool(self._filling)

    # --- how they are arranged

    def _arrange(self, now: float) -> None:
        self._stale = False
        count = max((member.level for member in self._members), default=-1) + 1
        places: list[dict[str, _Group]] = [{} for _ in range(count)]
        healths = [[0, 0] for _ in range(count)]
        for member in self._members:
            left = self.hosts[member.endpoint].available
            healths[member.level][0] += left
            healths[member.level][1] += 1
        health = [(left, total) for left, total in healths]
        percent = self.traffic.outlier.least_healthy_percent if self.traffic.outlier else 0
        panicking = panics(health, percent)
        for member in self._members:
            host, found = self.hosts[member.endpoint], places[member.level]
            group = found.get(member.place)
            if group is None:
                group = found[member.place] = _Group([], 0, member.share)
            group.count += 1
            if host.available or panicking[member.level]:
                group.hosts.append(host)
        self._counts = [
            (total if panicking[level] else left, total) for level, (left, total) in enumerate(health)
        ]
        self._groups = [list(found.values()) for found in places]
        self._weigh(now)
        self._choose(places, now)

    def _weigh(self, now: float) -> None:
        """What levels and localities are asked for, as their endpoints are at the moment."""
        warmup = warmup_of(self.traffic.balancing)
        health = [(float(left), total) for left, total in self._counts]
        self._weigh_at = inf
        if warmup is not None:
            for groups in self._groups:
                warmths = warmths_of(warmup, [each.hosts for each in groups], now)
                for group, warmth in zip(groups, warmths, strict=True):
                    group.warmth = warmth
            levels = [[host for group in groups for host in group.hosts] for groups in self._groups]
            warmths = warmths_of(warmup, levels, now)
            health = [(left * warmth, total) for (left, total), warmth in zip(health, warmths, strict=True)]
            if any(now - host.since < warmup.seconds for host in self.hosts.values()):
                self._weigh_at = now + _MOMENT
        self._health = health
        self._levels = list(accumulate(shares_of_levels(health)))

    def _choose(self, places: list[dict[str, _Group]], now: float) -> None:
        before, self._choosers = self._choosers, {}
        balancing = self.traffic.balancing or _ALL
        self._filling = []
        for level, found in enumerate(places):
            for place, group in found.items():
                if not group.hosts:
                    continue
                known = before.get((level, place))
                chooser = chooser_of(balancing, group.hosts, known, now, self._rng)
                group.chooser = self._choosers[level, place] = chooser
                self._filling.append(chooser)
        self.go_on()

    def _other_levels(self, tried: Tried) -> list[float]:
        """The parts of the levels for a request that was tried."""
        health = self._health
        known = [self.hosts[each].level for each in tried.endpoints if each in self.hosts]
        over = passed_over(
            known,
            lambda levels: any(left for number, (left, _) in enumerate(health) if number not in levels),
        )
        if not over:
            return self._levels
        left = [(0 if number in over else each[0], each[1]) for number, each in enumerate(health)]
        return list(accumulate(shares_of_levels(left)))

    def _level(self, shares: list[float]) -> list[_Group] | None:
        """The localities of the level that is asked; None where no endpoint is left."""
        if not shares or shares[-1] <= 0:
            return None
        if shares[0] >= 1:
            return self._groups[0]
        point = self._rng.random() * shares[-1]
        for number, share in enumerate(shares):
            if point < share:
                return self._groups[number]
        return self._groups[-1]

    def _place(self, groups: list[_Group]) -> _Group:
        """The locality that is asked."""
        weights = [weight_of_place(each.share * each.warmth, len(each.hosts), each.count) for each in groups]
        total = sum(weights)
        if total <= 0:
            return next((each for each in groups if each.hosts), groups[0])
        point = self._rng.random() * total
        for group, weight in zip(groups, weights, strict=True):
            point -= weight
            if point < 0 and group.hosts:
                return group
        return next(each for each in reversed(groups) if each.hosts)
