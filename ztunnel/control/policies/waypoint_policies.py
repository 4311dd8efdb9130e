"""The policies that waypoints enforce, of all kinds: which are for what, and what becomes of targets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from ztunnel.control.delta import Delta, HttpResources, Touched
from ztunnel.control.index import Index
from ztunnel.control.mesh_config import MeshConfigs
from ztunnel.control.policies.guard import Guards, Targeted
from ztunnel.control.policies.jwt_policies import JwtPolicies, KeysOf
from ztunnel.control.policies.policy_targets import PolicyTargets, Target
from ztunnel.control.policies.rate_limits import RateLimits
from ztunnel.control.services.ownership import Entries
from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.document import Key, Object
from ztunnel.control.telemetry import Telemetries
from ztunnel.control.waypoints.waypoint import Waypoints
from ztunnel.model.service import Service
from ztunnel.model.workload import Workload
from ztunnel.state.istio import AuthorizationPolicy
from ztunnel.state.rate_limit_policy import RateLimitPolicy
from ztunnel.state.request_authentication import RequestAuthentication
from ztunnel.state.telemetry import Telemetry


class Parts(NamedTuple):
    """What targets are looked up in. All of it is kept up to date; `objects` are all that there are."""

    indexed: Index
    waypoints: Waypoints
    entries: Entries
    settings: MeshSettings
    objects: Mapping[Key, Object]


class WaypointPolicies:
    """All of them.

    Attributes:
        guards: AuthorizationPolicies.
        jwt: RequestAuthentications.
        targets: of policies of any kind.
        telemetries: what is reported.
    """

    def __init__(self, parts: Parts, http: HttpResources, keys_of: KeysOf, mesh: MeshConfigs) -> None:
        """`http` is where what waypoints are sent is kept; `mesh` has the providers."""
        index, waypoints, entries, settings, objects = parts
        self.targets = PolicyTargets(index, waypoints, entries, settings, objects)
        kinds = AuthorizationPolicy, RequestAuthentication, RateLimitPolicy
        self.guards, tokens, limits = (Guards(index, waypoints, settings, kind.__name__) for kind in kinds)
        self.jwt = JwtPolicies(tokens, self.targets, http, keys_of)
        self._limits = RateLimits(limits, self.targets, http)
        wishes = Guards(index, waypoints, settings, Telemetry.__name__)
        self.telemetries = Telemetries(settings.root_namespace, wishes, self.targets, mesh, http)

    def put(self, key: Key, old: Object | None, new: Object | None, touched: Touched, delta: Delta) -> None:
        """The object of that key is now `new`, and was `old`. AuthorizationPolicies are put by themselves."""
        self.jwt.put(key, new, touched, delta)
        self._limits.put(key, old, new, touched, delta)
        self.telemetries.put(key, new, delta)

    def decide(self, key: Key, labels: Mapping[str, str]) -> bool:
        """Whether there are policies about a service that only its waypoint enforces. Rate limits are no
        reason to refuse what has no waypoint yet."""
        return self.guards.decide(self.guards.of(key, labels)) or bool(self.jwt.of(key, labels))

    def named(self, service: Service, key: Key, labels: Mapping[str, str]) -> Service:
        """A service with the policies that are for it."""
        return replace(
            service,
            guards=self.guards.of(key, labels),
            jwt_policies=self.jwt.of(key, labels),
            rate_limits=self._limits.of(key, labels),
        )

    def of_entry(self, key: Key, resources: Iterable[Service | Workload]) -> Iterator[Service | Workload]:
        """What an entry gives, its services with the policies that are for them."""
        for one in resources:
            yield self.named(one, key, {}) if isinstance(one, Service) else one

    def renew(self, touched: Touched, changed: Iterable[Key]) -> set[Key]:
        """These have changed, or come or gone: the policies that have one of them as a target."""
        about = list(touched.targets())
        return self.targets.renew(
            self.guards.about(about),
            self.jwt.about(about),
            self._limits.about(about, changed),
            self.telemetries.about(about),
        )

    def targets_of(self, key: Key, one: Object | None) -> tuple[Target, ...]:
        """What becomes of the targets of an object; none where it has none."""
        if not isinstance(one, Targeted) or not one.targets:
            return ()
        return tuple(self.targets.of(key.kind, one.meta, one.targets))
