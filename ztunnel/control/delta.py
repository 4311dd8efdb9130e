"""What a translation gives, what an update of it changes, and what an update has to make anew."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ztunnel.control.routes.route_parts import Problem
from ztunnel.control.services.endpoint import Name
from ztunnel.control.source.document import Key
from ztunnel.model.policy import Policy
from ztunnel.model.route import Routes
from ztunnel.model.service import Service
from ztunnel.model.workload import Workload
from ztunnel.state.kube import Pod
from ztunnel.xds.resource import ADDRESS, AUTHORIZATION, ROUTES, HttpResource, Resource, type_of

_FIRST = "AuthorizationPolicy"


@dataclass(frozen=True, slots=True)
class Translation:
    """Resources by their names in xDS: addresses (workloads and services), policies, routes by services;
    those of waypoints by type URL and name; and what the operator should know. `problems` are those of
    objects that route."""

    addresses: Mapping[str, Workload | Service] = field(default_factory=dict)
    policies: Mapping[str, Policy] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    routes: Mapping[str, Routes] = field(default_factory=dict)
    http: Mapping[str, Mapping[str, HttpResource]] = field(default_factory=dict)
    problems: Mapping[Key, tuple[Problem, ...]] = field(default_factory=dict)


class HttpResources:
    """What waypoints are sent, by type URL and name; kept up to date."""

    def __init__(self) -> None:
        self.in_force: dict[str, dict[str, HttpResource]] = {}

    def put(self, type_url: str, name: str, new: HttpResource | None, delta: Delta) -> None:
        """The resource of that name is now `new`."""
        held = self.in_force.setdefault(type_url, {})
        if held.get(name) == new:
            return
        delta.http.setdefault(type_url, {})[name] = new
        if new is None:
            del held[name]
        else:
            assert type_of(new) == type_url
            held[name] = new


@dataclass(slots=True)
class Delta:
    """What an update changed, by name; None where the resource is gone. `unsettled` are objects about
    whose standing beside others something else is to be said than before."""

    addresses: dict[str, Workload | Service | None] = field(default_factory=dict)
    policies: dict[str, Policy | None] = field(default_factory=dict)
    routes: dict[str, Routes | None] = field(default_factory=dict)
    unsettled: set[Key] = field(default_factory=set)
    http: dict[str, dict[str, HttpResource | None]] = field(default_factory=dict)

    def by_type(self) -> Mapping[str, Mapping[str, Resource | None]]:
        """As `xds.snapshot.advance` takes it."""
        return {ADDRESS: self.addresses, AUTHORIZATION: self.policies, ROUTES: self.routes, **self.http}


@dataclass(slots=True)
class Touched:
    """What has to be made anew."""

    pods: set[Name] = field(default_factory=set)
    services: set[Name] = field(default_factory=set)
    attached: set[Name] = field(default_factory=set)
    entries: set[Key] = field(default_factory=set)
    gateways: set[Name] = field(default_factory=set)
    peers: bool = False

    def targets(self) -> Iterator[Key]:
        """What policies may have as targets, of it."""
        yield from (Key(Service.__name__, *name) for name in self.services)
        yield from (Key("Gateway", *name) for name in self.gateways)
        yield from self.entries

    def take(self, key: Key) -> None:
        """A service, pod or entry."""
        if key.kind == Service.__name__:
            self.services.add((key.namespace, key.name))
        elif key.kind == Pod.__name__:
            self.pods.add((key.namespace, key.name))
        else:
            self.entries.add(key)


def arrange(remarks: Mapping[Key, tuple[str, ...]]) -> tuple[list[str], list[str]]:
    """Remarks about AuthorizationPolicies, and those about all others, each in order of their objects."""
    ordered = sorted(remarks.items())
    first = [text for key, texts in ordered if key.kind == _FIRST for text in texts]
    return first, [text for key, texts in ordered if key.kind != _FIRST for text in texts]
