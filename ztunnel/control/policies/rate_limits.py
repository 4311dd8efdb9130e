"""What waypoints are told of RateLimitPolicies: for which services and routes each is, and what it says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from ztunnel.control.delta import Delta, HttpResources, Touched
from ztunnel.control.policies.guard import Guards
from ztunnel.control.policies.policy_targets import ROUTE_KINDS, PolicyTargets
from ztunnel.control.source.document import Key, Object
from ztunnel.model import rate_limit as model
from ztunnel.state.rate_limit_policy import RateLimitPolicy
from ztunnel.xds.resource import RATE_LIMIT

_KIND: Final = RateLimitPolicy.__name__


class RateLimits:
    """All of them. Kept up to date by `put`."""

    def __init__(self, guards: Guards, targets: PolicyTargets, http: HttpResources) -> None:
        """All of these are kept up to date, too; `guards` are of these policies alone."""
        self._guards = guards
        self._targets = targets
        self._http = http
        self._of_route: dict[Key, set[Key]] = {}

    def put(self, key: Key, old: Object | None, new: Object | None, touched: Touched, delta: Delta) -> None:
        """The object of that key is now `new`, and was `old`; of another kind it is none of ours."""
        if key.kind != _KIND:
            return
        for route in _routes(old):
            self._of_route[route].discard(key)
            if not self._of_route[route]:
                del self._of_route[route]
        for route in _routes(new):
            self._of_route.setdefault(route, set()).add(key)
        found = new if isinstance(new, RateLimitPolicy) else None
        made = _converted(found) if found is not None else None
        self._http.put(RATE_LIMIT, f"{key.namespace}/{key.name}", made, delta)
        meta, targets = (found.meta, found.targets) if found is not None else (None, ())
        self._targets.put(key, meta, targets)
        for each in self._guards.put((key.namespace, key.name), found):
            touched.take(each)
            delta.unsettled.add(each)

    def of(self, key: Key, labels: Mapping[str, str]) -> tuple[str, ...]:
        """Those, `namespace/name`, for a service with these labels, or for the waypoint that it is."""
        return self._guards.of(key, labels)

    def about(self, keys: Iterable[Key], changed: Iterable[Key]) -> Iterator[Key]:
        """Those that have one of these as a target; `changed` are objects that came, went or changed."""
        yield from self._guards.about(keys)
        for each in changed:
            yield from self._of_route.get(each, ())


def _routes(one: Object | None) -> Iterator[Key]:
    """The routes that it is for."""
    if isinstance(one, RateLimitPolicy):
        for kind, _, name in (target.partition(" ") for target in dict.fromkeys(one.targets)):
            if kind in ROUTE_KINDS:
                yield Key(kind, one.meta.namespace, name)


def _converted(found: RateLimitPolicy) -> model.RateLimitPolicy:
    meta = found.meta
    return model.RateLimitPolicy(
        meta.name,
        meta.namespace,
        tuple(map(str, _routes(found))),
        found.rules,
        found.service,
        found.tells,
        found.exhausted,
    )
