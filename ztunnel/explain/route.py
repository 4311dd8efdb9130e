"""Which rule a waypoint sends a request by, and where to, by the code that it decides with
(`l7/routing/router.py`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ztunnel.l7.request import Request
from ztunnel.l7.routing.route import Route
from ztunnel.l7.routing.router import Router, decide_about
from ztunnel.model.route import Rule
from ztunnel.model.route_action import Destination, DirectResponse, Forward
from ztunnel.model.route_policy import MILLION
from ztunnel.model.service import Service
from ztunnel.state.world import World


@dataclass(frozen=True, slots=True)
class Share:
    """A destination of a rule, and of a hundred requests so many."""

    destination: Destination
    percent: float

    def __str__(self) -> str:
        to = f"{self.destination.service}"
        if self.destination.port:
            to += f":{self.destination.port}"
        if self.destination.subset:
            to += f", subset {self.destination.subset}"
        return f"{self.percent:g} % to {to}"


@dataclass(frozen=True, slots=True)
class Routed:
    """What routes make of a request: `shares` of it are sent; none: the waypoint answers it. `why` is for the
    operator; `source`: the object whose rule it goes by."""

    why: str
    shares: tuple[Share, ...] = ()
    source: str = ""


def route_at(world: World, service: Service | None, port: int, request: Request) -> Routed | None:
    """What the routes of a service's port make of a request; None: there are none."""
    routes = world.routes.get(str(service.key)) if service is not None else None
    if routes is None:
        return None
    try:
        router = Router(routes, port)
    except ValueError as error:
        return Routed(f"its routes cannot be compiled, so it is answered 503: {error}")
    if router.empty:
        return None
    route = decide_about(router, request)
    if route is None:
        sources = ", ".join(dict.fromkeys(str(rule.source) for rule in routes.at(port)))
        return Routed(f"no rule of {sources} is for it: 404")
    return _routed(route, request, port)


def _routed(route: Route, request: Request, port: int) -> Routed:
    rule, name = route.rule, f" rule {route.name!r}" if route.name else ""
    by = f"{rule.source}{name}"
    extras = "".join(f"; {each}" for each in _besides(rule))
    if route.location is not None:
        where = route.location.of(request.scheme, request.authority, request.path, port).decode()
        return Routed(f"{by}: redirected to {where} ({route.location.status}){extras}", (), str(rule.source))
    if isinstance(rule.action, DirectResponse):
        return Routed(f"{by}: answered {rule.action.status}{extras}", (), str(rule.source))
    assert isinstance(rule.action, Forward)
    total = sum(target.destination.weight for target in route.targets) or 1
    alone = len(route.targets) == 1
    shares = tuple(
        Share(target.destination, 100 if alone else 100 * target.destination.weight / total)
        for target in route.targets
    )
    refused = [each for each in shares if each.destination.refusal is not None]
    told = [
        f"{each} is answered {refusal.status}: {refusal.reason}"
        if (refusal := each.destination.refusal) is not None
        else str(each)
        for each in shares
    ]
    sent = tuple(each for each in shares if each not in refused)
    return Routed(f"{by}: {', '.join(told)}{extras}", sent, str(rule.source))


def _besides(rule: Rule) -> Iterator[str]:
    """What else becomes of requests of that rule."""
    fault = rule.fault
    if fault is not None and fault.delay is not None:
        yield f"{_percent(fault.delay.per_million)} of them wait {fault.delay.seconds:g} s"
    if fault is not None and fault.abort is not None:
        status = fault.abort.status or f"gRPC status {fault.abort.grpc_status}"
        yield f"{_percent(fault.abort.per_million)} of them are answered {status}"
    if rule.timeout_seconds:
        yield f"after {rule.timeout_seconds:g} s answered 504"
    if rule.retry is not None:
        yield f"tried again up to {rule.retry.attempts} times"
    for mirror in rule.mirrors:
        yield f"{_percent(mirror.per_million)} of them are copied to {mirror.destination.service}"


def _percent(per_million: int) -> str:
    return f"{100 * per_million / MILLION:g} %"
