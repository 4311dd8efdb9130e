"""The endpoints of a service as a waypoint chooses among them: in levels and shares, by where they are.

Who says what comes first: a DestinationRule's `localityLbSetting`, then the service's own traffic
distribution, then Istio's default, which holds where outliers are looked for (istio/istio
ApplyLocalityLoadBalancer: nothing fails over that nobody finds to fail)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ztunnel.l7.balancing.cluster import Member
from ztunnel.l7.balancing.locality import Place, levels_of, place_of, shares_of, spread_of
from ztunnel.model.service import LoadBalancing, Service
from ztunnel.model.traffic import Localities, Traffic
from ztunnel.model.workload import Workload
from ztunnel.state.balancer import Choice
from ztunnel.state.world import World

_DEFAULT: Final = Localities()


def members_of(
    world: World, source: Workload, service: Service, found: Sequence[tuple[int, Choice]], traffic: Traffic
) -> list[Member]:
    """Those of `found`, which are by the service's own levels (`state.balancer.usable`)."""
    said = traffic.balancing.localities if traffic.balancing is not None else None
    own = service.load_balancing is LoadBalancing.FAILOVER
    if said is None and not own and traffic.outlier is not None:
        said = _DEFAULT
    if said is None or not said.enabled:
        flat = said is not None
        return _in_levels(found, [0 if flat else level for level, _ in found])
    spread = spread_of(said, source.locality)
    if said.distribute:
        if spread is None:
            return _in_levels(found, [0] * len(found))
        localities = [choice.workload.locality for _, choice in found]
        shares = shares_of(spread, localities, [choice.workload.capacity for _, choice in found])
        return [
            Member(choice.endpoint, choice.workload, choice.workload.capacity, 0, _text(choice), share)
            for (_, choice), share in zip(found, shares, strict=True)
            if share > 0
        ]
    if traffic.outlier is None:
        return _in_levels(found, [0] * len(found))
    places = [_place(world, choice.workload) for _, choice in found]
    return _in_levels(found, levels_of(said, _place(world, source), places))


def decides_places(one: Traffic, other: Traffic) -> bool:
    """Whether the two may come to other levels and shares."""
    said = [each.balancing.localities if each.balancing is not None else None for each in (one, other)]
    return said[0] != said[1] or (one.outlier is None) != (other.outlier is None)


def _in_levels(found: Sequence[tuple[int, Choice]], levels: Sequence[int]) -> list[Member]:
    order = {level: number for number, level in enumerate(sorted(set(levels)))}
    return [
        Member(choice.endpoint, choice.workload, choice.workload.capacity, order[level])
        for (_, choice), level in zip(found, levels, strict=True)
    ]


def _place(world: World, workload: Workload) -> Place:
    labels = world.labels.get(workload.uid)
    return place_of(workload, dict(labels.labels) if labels is not None else {})


def _text(choice: Choice) -> str:
    locality = choice.workload.locality
    return f"{locality.region}/{locality.zone}/{locality.subzone}"
