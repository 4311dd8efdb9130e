"""Which policies of a kind are for the waypoint of a service, by what their `targetRefs` name.

Those of a Gateway are on the services by which it is called: its waypoint finds them at itself. Where a
service names one that its waypoint has not received (yet), the waypoint refuses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from ztunnel.control.index import Index
from ztunnel.control.policies.authorization import is_dry_run
from ztunnel.control.services.endpoint import Name
from ztunnel.control.settings import ISTIO_WAYPOINT_CLASS, WAYPOINT_CLASS, MeshSettings
from ztunnel.control.source.document import Key
from ztunnel.control.waypoints.waypoint import GATEWAY_NAME, Waypoints
from ztunnel.state.gateway import Gateway, GatewayClass
from ztunnel.state.istio import AuthorizationPolicy
from ztunnel.state.kube import Service
from ztunnel.state.networking import ServiceEntry
from ztunnel.state.rate_limit_policy import RateLimitPolicy
from ztunnel.state.request_authentication import RequestAuthentication
from ztunnel.state.telemetry import Telemetry

Targeted = AuthorizationPolicy | RequestAuthentication | RateLimitPolicy | Telemetry


class Guards:
    """The policies with targets, of one kind. Kept up to date by `put`."""

    def __init__(
        self,
        index: Index,
        waypoints: Waypoints,
        settings: MeshSettings,
        kind: str = AuthorizationPolicy.__name__,
    ) -> None:
        self._kind = kind
        self._index = index
        self._waypoints = waypoints
        self._settings = settings
        self._policies: dict[Key, dict[str, None]] = {}
        self._targets: dict[Name, tuple[Key, ...]] = {}
        self._telling: set[str] = set()

    def put(self, name: Name, new: Targeted | None) -> set[Key]:
        """The policy of that name is now `new`; the services and entries that this may concern."""
        targets = tuple(dict.fromkeys(_targets(new, self._settings))) if new is not None else ()
        before = self._targets.pop(name, ())
        text = f"{name[0]}/{name[1]}"
        self._telling.discard(text)
        if isinstance(new, AuthorizationPolicy) and (new.action == "AUDIT" or is_dry_run(new)):
            self._telling.add(text)
        for target in before:
            found = self._policies[target]
            del found[text]
            if not found:
                del self._policies[target]
        if targets:
            self._targets[name] = targets
        for target in targets:
            self._policies.setdefault(target, {})[text] = None
        return {key for target in {*before, *targets} for key in self._at(target)}

    def _at(self, target: Key) -> Iterator[Key]:
        if target.kind == GatewayClass.__name__:
            for gateway in self._waypoints.of_class(target.name):
                yield from self.serving(gateway)
        elif target.kind == Gateway.__name__:
            yield from self.serving((target.namespace, target.name))
        else:
            yield target

    def serving(self, gateway: Name) -> Iterator[Key]:
        """The services that a Gateway may be called by."""
        for name, service in self._index.services.get(gateway[0], {}).items():
            if gateway[1] in _gateways(name, service.meta.labels):
                yield Key(Service.__name__, gateway[0], name)

    def of(self, key: Key, labels: Mapping[str, str]) -> tuple[str, ...]:
        """The policies, `namespace/name`, for the waypoint of a service or entry with these labels, or for
        the waypoint that it is."""
        if not self._policies:
            return ()
        found = dict(self._policies.get(key, {}))
        if key.kind == Service.__name__:
            for name in _gateways(key.name, labels):
                of_class = self._waypoints.class_of((key.namespace, name))
                if of_class in (WAYPOINT_CLASS, ISTIO_WAYPOINT_CLASS):
                    found |= self._policies.get(Key(Gateway.__name__, key.namespace, name), {})
                    found |= self._policies.get(Key(GatewayClass.__name__, "", of_class), {})
        return tuple(sorted(found))

    def decide(self, names: Iterable[str]) -> bool:
        """Whether any of these policies decides about requests: AUDIT and those under trial only tell."""
        return any(name not in self._telling for name in names)

    def about(self, keys: Iterable[Key]) -> Iterator[Key]:
        """The policies that have one of these as a target."""
        for name in {name for key in keys for name in self._policies.get(key, ())}:
            yield Key(self._kind, *name.split("/"))


def _gateways(name: str, labels: Mapping[str, str]) -> set[str]:
    return {name, labels.get(GATEWAY_NAME, name)}


_KINDS: Final = (Service.__name__, ServiceEntry.__name__, Gateway.__name__)


def _targets(policy: Targeted, settings: MeshSettings) -> Iterator[Key]:
    """What it concerns; those of a GatewayClass are in the root namespace."""
    for kind, _, name in (target.partition(" ") for target in policy.targets):
        if kind in _KINDS:
            yield Key(kind, policy.meta.namespace, name)
        elif kind == GatewayClass.__name__ and policy.meta.namespace == settings.root_namespace:
            yield Key(kind, "", name)
