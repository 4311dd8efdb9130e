"""What the localities and labels of endpoints decide: who is asked first, and who gets which share
(istio/istio pilot/pkg/networking/core/loadbalancer)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ztunnel.model.traffic import Localities, Spread
from ztunnel.model.workload import Locality, Workload

_REGION, _ZONE = "topology.kubernetes.io/region", "topology.kubernetes.io/zone"
_SUBZONE, _NETWORK = "topology.istio.io/subzone", "topology.istio.io/network"
_CLUSTER, _HOST = "topology.istio.io/cluster", "kubernetes.io/hostname"

Labels = Mapping[str, str]


class Place(NamedTuple):
    """Where an endpoint, or the waypoint, is: `labels` with those of its node's topology among them."""

    locality: Locality
    labels: Labels


def place_of(workload: Workload, labels: Labels) -> Place:
    """That of a workload with these labels of its own; what Istio knows of its place comes before them."""
    locality = workload.locality
    topology = {
        _REGION: locality.region,
        _ZONE: locality.zone,
        _SUBZONE: locality.subzone,
        _NETWORK: workload.network,
        _CLUSTER: workload.cluster,
        _HOST: workload.node,
    }
    known = {name: value for name, value in topology.items() if value}
    return Place(locality, {**labels, **known})


def levels_of(localities: Localities, source: Place, places: Sequence[Place]) -> list[int]:
    """The level of each endpoint, 0 for those that are asked first; no level is without an endpoint."""
    if localities.priorities:
        found = [_by_labels(localities.priorities, source, place) for place in places]
    else:
        found = [_by_locality(localities.failover, source.locality, place.locality) for place in places]
    order = {level: number for number, level in enumerate(sorted(set(found)))}
    return [order[level] for level in found]


def _by_labels(priorities: Sequence[str], source: Place, place: Place) -> int:
    """How many labels are left from the first on which differs; `name=value` asks for that value, whatever
    the waypoint's own is."""
    for number, label in enumerate(priorities):
        name, equals, value = label.partition("=")
        wanted = value if equals else source.labels.get(name)
        if wanted != place.labels.get(name):
            return len(priorities) - number
    return 0


def _by_locality(failover: Sequence[tuple[str, str]], source: Locality, other: Locality) -> int:
    if source.region != other.region:
        for region, to in failover:
            if region == source.region:
                return 3 if to == other.region else 4
        return 3
    if source.zone != other.zone:
        return 2
    return 0 if source.subzone == other.subzone else 1


def spread_of(localities: Localities, source: Locality) -> Spread | None:
    """The first distribution that is for callers of that locality."""
    return next((one for one in localities.distribute if _is_in(source, one.source)), None)


def shares_of(spread: Spread, places: Sequence[Locality], weights: Sequence[int]) -> list[float]:
    """The share of each endpoint's locality; 0: it gets nothing. Where several localities are meant by one
    text, they divide its share by the weights of their endpoints.

    Args:
        spread: see `spread_of`.
        places: of the endpoints.
        weights: of the endpoints.
    """
    found = [0.0] * len(places)
    of_place: dict[Locality, int] = {}
    for place, weight in zip(places, weights, strict=True):
        of_place[place] = of_place.get(place, 0) + weight
    for text, share in spread.shares:
        total = sum(weight for place, weight in of_place.items() if _is_in(place, text))
        for number, place in enumerate(places):
            if total and not found[number] and _is_in(place, text):
                found[number] = share * of_place[place] / total
    return found


def _is_in(place: Locality, text: str) -> bool:
    """Whether it is what `region/zone/subzone` says, with `*` and what is left out for any."""
    region, _, rest = text.partition("/")
    zone, _, subzone = rest.partition("/")
    return all(
        said in ("", "*") or said == has
        for said, has in ((region, place.region), (zone, place.zone), (subzone, place.subzone))
    )
