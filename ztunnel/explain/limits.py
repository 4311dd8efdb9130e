"""Which rate limits a request would count against at a waypoint, by the code that counts there
(`l7/limits/compiled.py`). What they have counted is known by each waypoint alone."""

from __future__ import annotations

from collections.abc import Iterator

from ztunnel.l7.limits.compiled import CompiledPolicy, CompiledRule
from ztunnel.l7.limits.limits import RateLimits
from ztunnel.l7.policy.attributes import Attributes
from ztunnel.l7.request import Request
from ztunnel.model.connection import Connection
from ztunnel.model.rate_limit import LimitKey
from ztunnel.model.service import Service
from ztunnel.model.workload import Workload
from ztunnel.state.lookup import rate_limits_of
from ztunnel.state.world import World


def limits_at(
    world: World, ends: tuple[Workload, Service | None], connection: Connection, request: Request, route: str
) -> str:
    """A clause for each; empty where there are none. `ends` are the waypoint and what is called, `route` is
    the object whose rule the request goes by, empty where there is none."""
    names = rate_limits_of(world, *ends)
    asked = Attributes(request, connection.source.ip)
    found: list[str] = []
    for policy in RateLimits().of(world.rate_limits, names, route):
        found += _of_policy(policy, asked, connection)
    return "".join(f"; {each}" for each in found)


def _of_policy(policy: CompiledPolicy, asked: Attributes, connection: Connection) -> Iterator[str]:
    for rule in policy.rules:
        if rule.key(asked, connection, "") is not None:
            yield f"counts against {rule.name}: {_limit(rule)}"
    service, descriptors = policy.policy.service, policy.descriptors(asked, connection)
    if service is not None and descriptors:
        told = ", ".join(
            "(" + ", ".join(f"{key}={value}" for key, value in entries) + ")" for entries in descriptors
        )
        yield f"{policy.policy.key} asks {service.host}:{service.port}, domain {service.domain}, about {told}"


def _limit(rule: CompiledRule) -> str:
    keys = ", ".join(map(_named, rule.rule.keys))
    return f"{rule.rule.limit}{f', for each {keys}' if keys else ''}"


def _named(key: LimitKey) -> str:
    name = f"[{'.'.join(key.argument)}]" if key.argument else ""
    return f"{key.attribute.value}{name}"
