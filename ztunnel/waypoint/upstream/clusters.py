"""The endpoints of all services that are called through a waypoint, with what has happened to them: brought
up to date with the world when one is asked for, and kept as long as somebody asks.

A service at a port, or a subset of it, is one cluster for each of its addresses, as these decide which
addresses of endpoints are called. What they have under way counts together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from ztunnel.l7.balancing.circuit import NAMES, Circuit
from ztunnel.l7.balancing.cluster import Cluster
from ztunnel.l7.balancing.outlier import Outliers
from ztunnel.l7.chance import Rng
from ztunnel.model.address import Endpoint
from ztunnel.model.labels import Label
from ztunnel.model.service import ServiceName
from ztunnel.model.service_traffic import ServiceTraffic
from ztunnel.model.traffic import NO_TRAFFIC
from ztunnel.model.workload import Workload
from ztunnel.state.balancer import Choice, usable
from ztunnel.state.change import Change
from ztunnel.state.world import Served, World
from ztunnel.waypoint.upstream.members import decides_places, members_of

_UNUSED_SECONDS: Final = 3600.0
"""What nobody asks for so long is forgotten, unless something is under way."""

_REST: Final = 20.0
"""So much longer than it takes is waited before a cluster is brought up to date once more."""

_OUTDATED: Final = Served(None)
_LABELS = "WorkloadLabels"


class Subset(NamedTuple):
    """A part of a service's endpoints: those with all these labels. `name`: whose policies hold for it."""

    name: str = ""
    labels: tuple[Label, ...] = ()


WHOLE: Final = Subset()

_Key = tuple[ServiceName, Endpoint, Subset]


@dataclass(slots=True)
class Kept:
    """A cluster, and what it was made of: it is up to date while `served` is the world's."""

    cluster: Cluster
    name: str
    choices: dict[Endpoint, Choice]
    served: Served | None = None
    source: Workload | None = None
    said: ServiceTraffic | None = None
    used_at: float = 0.0
    due: float = 0.0


class Clusters:
    """All of them.

    Attributes:
        rng: for all choices.
        now: gives monotonic seconds.
        ejections, overflows: of those that were forgotten.
    """

    def __init__(self, rng: Rng, now: Callable[[], float]) -> None:
        self.rng = rng
        self.now = now
        self._kept: dict[_Key, Kept] = {}
        self._circuits: dict[tuple[ServiceName, int, Subset], Circuit] = {}
        self.ejections = 0
        self.overflows = [0] * len(NAMES)

    def __len__(self) -> int:
        return len(self._kept)

    def find(
        self, world: World, served: Served, asked: Endpoint, source: Workload, subset: Subset = WHOLE
    ) -> Kept:
        """The cluster for a call, and what its endpoints are; where thousands of them change all the time,
        what they were a moment ago (`renew`).

        Args:
            world: of the moment.
            served: the service.
            asked: its address and port.
            source: the waypoint's own workload.
            subset: which endpoints.
        """
        service = served.service
        assert service is not None
        key = service.key, asked, subset
        kept = self._kept.get(key)
        if kept is None:
            circuit = self._circuits.setdefault((service.key, asked.port, subset), Circuit())
            kept = self._kept[key] = Kept(Cluster(self.rng, circuit), str(service.key), {})
        now = kept.used_at = self.now()
        said = world.traffic.get(kept.name)
        if kept.said is not said or kept.source is not source:
            traffic = said.at(source.namespace, asked.port, subset.name) if said is not None else NO_TRAFFIC
            if kept.source is not source or decides_places(kept.cluster.traffic, traffic):
                kept.served = None
            kept.said, kept.source = said, source
            kept.cluster.configure(traffic, now)
        if kept.served is not served and (kept.served is None or now >= kept.due):
            found = usable(served, asked, source)
            if subset.labels:
                found = _of_subset(world, found, subset.labels)
            kept.served = served
            kept.choices = {choice.endpoint: choice for _, choice in reversed(found)}
            found = [each for each in found if kept.choices[each[1].endpoint] is each[1]]
            kept.cluster.replace(members_of(world, source, service, found, kept.cluster.traffic), now)
            kept.due = now + _REST * (self.now() - now)
        return kept

    def renew(self, served: Served, asked: Endpoint, subset: Subset) -> bool:
        """What was chosen is not there any more, or nothing was: whether `find` has another answer now."""
        kept = self._kept.get((served.service.key, asked, subset)) if served.service is not None else None
        if kept is None or kept.served is served:
            return False
        kept.served = None
        return True

    def changed(self, before: World, world: World, change: Change) -> None:
        """The world is another one: forget what is there no more, and see to labels that are others."""
        gone = {name for name in change.services if world.service(name) is None}
        for key in [key for key in self._kept if key[0] in gone] if gone else ():
            self._forget(key)
        relabelled = {uid for kind, uid in change.http if kind == _LABELS}
        found = [world.workload(uid) or before.workload(uid) for uid in relabelled]
        names = {name for one in found if one is not None for name in one.services}
        for (name, _, subset), kept in self._kept.items() if relabelled else ():
            own = kept.source is not None and kept.source.uid in relabelled
            if _needs_labels(kept, subset) and (own or name in names):
                kept.served = _OUTDATED

    def look(self, now: float) -> None:
        """Time has passed."""
        for key, kept in tuple(self._kept.items()):
            kept.cluster.look(now)
            if now - kept.used_at > _UNUSED_SECONDS and not any(kept.cluster.circuit.used):
                self._forget(key)

    def _forget(self, key: _Key) -> None:
        kept = self._kept.pop(key)
        outliers = kept.cluster.outliers
        if outliers is not None:
            self.ejections += outliers.ejections
        name, asked, subset = key
        shared = name, asked.port, subset
        if any((one[0], one[1].port, one[2]) == shared for one in self._kept):
            return
        circuit = self._circuits.pop(shared)
        self.overflows = [one + more for one, more in zip(self.overflows, circuit.overflows, strict=True)]

    # Figures.

    def ejected(self) -> float:
        """How many endpoints are, now."""
        return sum(len(one.ejected) for one in self._outliers())

    def all_ejections(self) -> float:
        """How often one was."""
        return self.ejections + sum(one.ejections for one in self._outliers())

    def all_overflows(self) -> list[tuple[tuple[str, ...], float]]:
        """By the name of the limit, how often one was in the way."""
        found = list(self.overflows)
        for circuit in self._circuits.values():
            found = [one + more for one, more in zip(found, circuit.overflows, strict=True)]
        return [((name,), count) for name, count in zip(NAMES, found, strict=True)]

    def _outliers(self) -> Iterator[Outliers]:
        for kept in self._kept.values():
            if kept.cluster.outliers is not None:
                yield kept.cluster.outliers


def _of_subset(
    world: World, found: list[tuple[int, Choice]], labels: tuple[Label, ...]
) -> list[tuple[int, Choice]]:
    wanted = frozenset(labels)
    return [
        each
        for each in found
        if (has := world.labels.get(each[1].workload.uid)) is not None and wanted <= has.labels
    ]


def _needs_labels(kept: Kept, subset: Subset) -> bool:
    balancing = kept.cluster.traffic.balancing
    localities = balancing.localities if balancing is not None else None
    return bool(subset.labels) or (localities is not None and bool(localities.priorities))
