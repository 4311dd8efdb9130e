"""Chooses a service's endpoint for one connection: by mode and scope, then at random by capacity.

As kube-proxy does it, endpoints that terminate and still serve are chosen where no other may be, whatever
their place; and addresses of the family that was called where there are such.

Two ways lead to the same distribution. Where the endpoints are few, or scopes rank them, the candidates are
worked out once and kept with the service's record (`Served.memo`) until that changes; all pods of a node
share them. Where they are many and equal, endpoints are drawn until one may be used: a change among ten
thousand of them must not cost the next connection a look at each. Source: ztunnel src/state.rs,
`load_balance`."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate
from operator import attrgetter
from typing import Any, Final, NamedTuple, Protocol

from ztunnel.model.address import Endpoint
from ztunnel.model.service import LoadBalancing, Scope, Service
from ztunnel.model.workload import Workload
from ztunnel.state.lookup import address_of, target_port
from ztunnel.state.world import Served, World

_MOST_KEPT: Final = 256
"""Sets of candidates kept for one service (ports, addresses, places of sources); then it starts afresh."""

_FEW: Final = 8
"""Up to so many endpoints are worked out; of more, one is drawn."""

_DRAWS: Final = 16
"""Draws before giving up (most endpoints unhealthy, or of small capacity) and working all of them out."""

_IN_COMMON: dict[Scope, Callable[[Workload], Any]] = {
    Scope.REGION: attrgetter("locality.region"),
    Scope.ZONE: attrgetter("locality.zone"),
    Scope.SUBZONE: attrgetter("locality.subzone"),
    Scope.NODE: attrgetter("node"),
    Scope.CLUSTER: attrgetter("cluster"),
    Scope.NETWORK: attrgetter("network"),
}


class Rng(Protocol):
    """The part of `random.Random` that a choice needs."""

    def random(self) -> float:
        """A number in [0, 1)."""


class Choice(NamedTuple):
    """An endpoint of a service: who, and where to connect to (their own address and port)."""

    workload: Workload
    endpoint: Endpoint


class _Candidates(NamedTuple):
    choices: tuple[Choice, ...]
    cumulative: tuple[int, ...]
    by_endpoint: dict[Endpoint, Choice]


def choose(served: Served, asked: Endpoint, source: Workload, rng: Rng) -> Choice | None:
    """The endpoint for one new connection.

    Args:
        served: the service; its mode is not PASSTHROUGH (that has no endpoint but the address asked for).
        asked: the service's virtual address and port that the source called.
        source: who calls.
        rng: the one source of chance.

    Returns:
        None when there is no endpoint to send to; `why_none` says why.
    """
    if _draws(served) and (drawn := _draw(served, asked, source, rng)):
        return drawn
    found = _candidates(served, asked, source)
    if not found.choices:
        return None
    if len(found.choices) == 1:
        return found.choices[0]
    point = rng.random() * found.cumulative[-1]
    return found.choices[bisect_right(found.cumulative, point, 0, len(found.choices) - 1)]


def usable(served: Served, asked: Endpoint, source: Workload) -> list[tuple[int, Choice]]:
    """All that may be chosen, as who balances by other rules needs them: each with its level, 0 for those
    that share the most of the service's scopes with the source. Those that terminate only where there is no
    other, and then all alike."""
    service = served.service
    if service is None:
        return []
    strict = service.load_balancing is LoadBalancing.STRICT and asked.ip not in service.external
    scopes = len(service.routing_preference)
    ranks = service.load_balancing is LoadBalancing.FAILOVER
    for draining in (False, True):
        found = _ranked(service, served.endpoints, asked, source, draining)
        if strict:
            found = [each for each in found if each[0] == scopes]
        if found:
            return [(scopes - rank if ranks and not draining else 0, choice) for rank, choice in found]
    return []


def honour(world: World, served: Served, asked: Endpoint, source: Workload, pick: Endpoint) -> Choice | None:
    """The endpoint that the kernel's slot table has picked, if `choose` could choose it too."""
    if _draws(served) and served.service:
        workload = world.by_ip(pick.ip)
        if workload is None or served.service.key not in workload.services:
            return None
        choice = _use(served.service, workload, asked, source)
        if choice:
            return choice if choice.endpoint == pick and pick.ip.version == asked.ip.version else None
    return _candidates(served, asked, source).by_endpoint.get(pick)


def shares(served: Served, asked: Endpoint, source: Workload) -> tuple[tuple[Endpoint, int], ...]:
    """The distribution of `choose` as (endpoint, weight), for the kernel's slot tables; each endpoint once.

    Empty where the kernel must not pick, because the connection does not go to an endpoint of this service as
    it is: no endpoint, a waypoint before them, PASSTHROUGH.
    """
    service = served.service
    if service is None or service.waypoint or service.load_balancing is LoadBalancing.PASSTHROUGH:
        return ()
    weights: dict[Endpoint, int] = {}
    for workload, endpoint in _candidates(served, asked, source).choices:
        weights[endpoint] = weights.get(endpoint, 0) + workload.capacity
    return tuple(weights.items())


def why_none(served: Served, asked: Endpoint, source: Workload) -> str:
    """Why `choose` found nothing, in words for the operator."""
    service, endpoints = served.service, served.endpoints
    if service is None:
        return "the service is unknown"
    if not endpoints:
        return f"{service.key} has no endpoints"
    ready = [each for each in endpoints if each.healthy or each.draining or service.include_unhealthy]
    if not ready:
        return f"none of the {len(endpoints)} endpoints of {service.key} is healthy"
    near = [each for each in ready if each.network == source.network]
    if not near:
        return f"the endpoints of {service.key} are in other networks, and no gateway to them is known"
    if not any(target_port(service, each, asked.port) for each in near):
        return f"no endpoint of {service.key} serves port {asked.port}"
    if not any(_rank(service, each, source) == len(service.routing_preference) for each in near):
        return f"no endpoint of {service.key} is in the source's scope"
    return f"no endpoint of {service.key} has an address of its families and a capacity"


def _draws(served: Served) -> bool:
    service = served.service
    return service is not None and (
        len(served.endpoints) > _FEW and service.load_balancing is LoadBalancing.STANDARD
    )


def _draw(served: Served, asked: Endpoint, source: Workload, rng: Rng) -> Choice | None:
    """One endpoint by rejection: each is drawn alike, and kept in proportion to its capacity if it may be
    used."""
    service, endpoints, most = served.service, served.endpoints, served.most
    for _ in range(_DRAWS):
        workload = endpoints[int(rng.random() * len(endpoints))]
        if service and (workload.capacity == most or rng.random() * most < workload.capacity):
            choice = _use(service, workload, asked, source)
            if choice and choice.endpoint.ip.version == asked.ip.version:
                return choice
    return None


def _use(
    service: Service, workload: Workload, asked: Endpoint, source: Workload, draining: bool = False
) -> Choice | None:
    """Where to connect to for an endpoint, None if it may not be used; with `draining`, for one of those that
    terminate.

    Endpoints of other networks may not: their addresses mean nothing, or others, in ours.
    """
    if workload.network != source.network:
        return None
    if not (workload.draining if draining else workload.healthy or service.include_unhealthy):
        return None
    ip = address_of(workload, asked.ip, service.ip_families)
    port = target_port(service, workload, asked.port)
    if ip is None or not port or workload.capacity <= 0:
        return None
    return Choice(workload, Endpoint(ip, port))


def _candidates(served: Served, asked: Endpoint, source: Workload) -> _Candidates:
    service = served.service
    if service is None:
        return _NOBODY
    where = tuple([_IN_COMMON[scope](source) for scope in service.routing_preference])
    key = (asked.ip, asked.port, source.network, where)
    found: _Candidates | None = served.memo.get(key)
    if found is None:
        if len(served.memo) >= _MOST_KEPT:
            served.memo.clear()
        found = served.memo[key] = _work_out(service, served.endpoints, asked, source)
    return found


def _work_out(
    service: Service, endpoints: tuple[Workload, ...], asked: Endpoint, source: Workload
) -> _Candidates:
    choices: tuple[Choice, ...] = ()
    for draining in (False, True):
        if not choices:
            ranked = _ranked(service, endpoints, asked, source, draining)
            # What binds calls of a cluster's own addresses to a node does not bind those of others.
            mode = service.load_balancing
            if mode is LoadBalancing.STRICT and asked.ip in service.external:
                mode = LoadBalancing.STANDARD
            choices = _best(service, mode, ranked, draining)
    cumulative = tuple(accumulate(choice.workload.capacity for choice in choices))
    return _Candidates(choices, cumulative, {choice.endpoint: choice for choice in reversed(choices)})


def _ranked(
    service: Service, endpoints: tuple[Workload, ...], asked: Endpoint, source: Workload, draining: bool
) -> list[tuple[int, Choice]]:
    """Those that may be used, with their ranks; of the family that was called if there are such."""
    ranked: list[tuple[int, Choice]] = []
    for workload in endpoints:
        choice = _use(service, workload, asked, source, draining)
        if choice:
            ranked.append((_rank(service, workload, source), choice))
    alike = [each for each in ranked if each[1].endpoint.ip.version == asked.ip.version]
    return alike or ranked


def _best(
    service: Service, mode: LoadBalancing, ranked: list[tuple[int, Choice]], draining: bool
) -> tuple[Choice, ...]:
    """STANDARD: all. STRICT: those with which all scopes are shared. FAILOVER: those that share the most, but
    of those that terminate all."""
    wanted = 0
    if mode is LoadBalancing.STRICT:
        wanted = len(service.routing_preference)
    elif mode is LoadBalancing.FAILOVER and not draining:
        wanted = max((rank for rank, _ in ranked), default=0)
    return tuple(choice for rank, choice in ranked if rank >= wanted)


def _rank(service: Service, workload: Workload, source: Workload) -> int:
    """How many leading scopes of the service's preference the two have in common."""
    for rank, scope in enumerate(service.routing_preference):
        common = _IN_COMMON[scope]
        if common(workload) != common(source):
            return rank
    return len(service.routing_preference)


_NOBODY: Final = _Candidates((), (), {})
