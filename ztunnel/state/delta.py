"""Applies what the control plane sent to a world, and says exactly what the difference can touch (`change`).

The cost of a delta is that of what it names, never that of the world: each index is a persistent map whose
untouched parts are shared. What arrives again unchanged (a reconnection sends everything) costs one
comparison and is no change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from operator import attrgetter
from typing import Any, Final, TypeVar

from immutables import Map

from ztunnel.model.address import IPAddress
from ztunnel.model.credential import Credential
from ztunnel.model.http_policy import HttpPolicy
from ztunnel.model.jwt import JwtPolicy
from ztunnel.model.labels import WorkloadLabels
from ztunnel.model.mesh_defaults import MeshDefaults
from ztunnel.model.policy import Policy, PolicyScope
from ztunnel.model.provider import ExtensionProvider
from ztunnel.model.rate_limit import RateLimitPolicy
from ztunnel.model.route import Routes
from ztunnel.model.service import Service, ServiceName
from ztunnel.model.service_traffic import ServiceTraffic
from ztunnel.model.telemetry import Telemetry
from ztunnel.model.workload import TunnelProtocol, Workload
from ztunnel.state.change import Change, Pairs, change_of
from ztunnel.state.groups import Groups
from ztunnel.state.world import EVERYWHERE, Served, World, serve
from ztunnel.xds.resource import HttpResource

_T = TypeVar("_T")

_HELD: Final[Mapping[type[Any], str]] = {
    HttpPolicy: "http_policies",
    JwtPolicy: "jwt_policies",
    RateLimitPolicy: "rate_limits",
    WorkloadLabels: "labels",
    Routes: "routes",
    ServiceTraffic: "traffic",
    Credential: "credentials",
    ExtensionProvider: "providers",
    MeshDefaults: "defaults",
    Telemetry: "telemetries",
}
"""Where a world holds each kind of what only waypoints have, by its `key`."""

_Wanted = dict[type[Any], dict[str, Any]]
_NONE: Final[Mapping[type[Any], Iterable[str]]] = {}


def apply(
    world: World,
    upserts: Iterable[Workload | Service | Policy | HttpResource],
    removals: Iterable[str] = (),
    removed_policies: Iterable[str] = (),
    removed_http: Mapping[type[Any], Iterable[str]] = _NONE,
) -> tuple[World, Change]:
    """The world after a delta.

    Args:
        world: what is known so far.
        upserts: what is new or may have changed; of several with one key the last counts.
        removals: keys of the Address type: a workload's uid holds more than one "/", a service's
            `namespace/hostname` one. Unknown keys are ignored. A key that is upserted too is not removed.
        removed_policies: keys of the Authorization type, `namespace/name`.
        removed_http: keys of resources of waypoints, by their class.
    """
    workloads: dict[str, Workload | None] = {}
    services: dict[ServiceName, Service | None] = {}
    policies: dict[str, Policy | None] = dict.fromkeys(removed_policies)
    http: _Wanted = {kind: dict.fromkeys(keys) for kind, keys in removed_http.items()}
    _take_out(removals, workloads, services)
    for item in upserts:
        if isinstance(item, Workload):
            workloads[item.uid] = item
        elif isinstance(item, Service):
            services[item.key] = item
        elif isinstance(item, Policy):
            policies[item.key] = item
        else:
            http.setdefault(type(item), {})[item.key] = item
    moved = _differing(world.workloads, workloads)
    ruled = _differing(world.policies, policies)
    world, touched = _serve(world, moved, services)
    change = change_of(moved, touched, ruled)
    if moved:
        world = _move(world, moved)
    if ruled:
        world = _rule(world, ruled)
    if http:
        world, held = _hold_all(world, http)
        change = replace(change, http=held)
    return world, change


def _take_out(
    removals: Iterable[str],
    workloads: dict[str, Workload | None],
    services: dict[ServiceName, Service | None],
) -> None:
    """Names of the Address type are those of both."""
    for key in removals:
        if key.count("/") > 1:
            workloads[key] = None
        else:
            namespace, _, hostname = key.partition("/")
            services[ServiceName(namespace, hostname)] = None


def _hold_all(world: World, http: _Wanted) -> tuple[World, frozenset[tuple[str, str]]]:
    """Resources of waypoints; also which of them really change."""
    changed: frozenset[tuple[str, str]] = frozenset()
    for kind, wanted in http.items():
        world, of_kind = _hold(world, kind, wanted)
        changed |= of_kind
    return world, changed


def _hold(world: World, kind: type[Any], wanted: dict[str, Any]) -> tuple[World, frozenset[tuple[str, str]]]:
    """Those of one kind."""
    name = _HELD[kind]
    held: Map[str, Any] = getattr(world, name)
    changed = {key: new for key, new in wanted.items() if held.get(key) != new}
    if not changed:
        return world, frozenset()
    made = held.mutate()
    for key, new in changed.items():
        if new is None:
            del made[key]
        else:
            made[key] = new
    found: dict[str, Any] = {name: made.finish()}
    return replace(world, **found), frozenset((kind.__name__, key) for key in changed)


def _differing(current: Map[str, _T], wanted: dict[str, _T | None]) -> Pairs[_T]:
    """(old, new) of what really changes."""
    pairs = ((current.get(key), new) for key, new in wanted.items())
    return [(old, new) for old, new in pairs if old is not new and old != new]


def _move(world: World, moved: Pairs[Workload]) -> World:
    """Workloads into their own three indexes."""
    addresses = Groups(world.addresses.get, _preference)
    nodes = Groups(world.nodes.get, _uid)
    workloads = world.workloads.mutate()
    for old, new in moved:
        if old:
            addresses.take_out(_addresses(world, old), old)
            nodes.take_out(_node(old), old)
            del workloads[old.uid]
        if new:
            addresses.put_in(_addresses(world, new), new)
            nodes.put_in(_node(new), new)
            workloads[new.uid] = new
    return replace(
        world,
        workloads=workloads.finish(),
        addresses=addresses.update(world.addresses),
        nodes=nodes.update(world.nodes),
    )


def _serve(
    world: World, moved: Pairs[Workload], wanted: dict[ServiceName, Service | None]
) -> tuple[World, set[ServiceName]]:
    """Services and endpoints; also the names of those of which either changed."""
    changed = {name: new for name, new in wanted.items() if world.service(name) != new}
    endpoints = Groups(world.endpoints, _uid)
    most = 1
    for old, new in moved:
        if old:
            endpoints.take_out(old.services, old)
        if new:
            endpoints.put_in(new.services, new)
            most = max(most, new.capacity)
    touched = changed.keys() | endpoints.members.keys()
    if not touched:
        return world, set()
    served = world.served.mutate()
    for name in touched:
        before = served.get(name, _NOBODY)
        service = changed.get(name, before.service)
        serving = endpoints.members.get(name)
        members = before.endpoints if serving is None else tuple(serving)
        if service or members:
            served[name] = serve(service, members, max(most, before.most))
        elif name in served:
            del served[name]
    result = replace(world, served=served.finish())
    return (_name(result, world, changed) if changed else result), touched


def _name(result: World, before: World, changed: dict[ServiceName, Service | None]) -> World:
    """Services by hostname and by virtual address."""
    hostnames = Groups(before.hostnames.get, _precedence)
    virtual = Groups(before.virtual.get, _precedence)
    for name, new in changed.items():
        if old := before.service(name):
            hostnames.take_out((old.hostname,), old)
            virtual.take_out(dict.fromkeys(old.addresses), old)
        if new:
            hostnames.put_in((new.hostname,), new)
            virtual.put_in(dict.fromkeys(new.addresses), new)
    return replace(
        result, hostnames=hostnames.update(before.hostnames), virtual=virtual.update(before.virtual)
    )


def _rule(world: World, ruled: Pairs[Policy]) -> World:
    """Policies by key and by the namespace that they rule."""
    scoped = Groups(world.scoped.get, attrgetter("key"))
    policies = world.policies.mutate()
    for old, new in ruled:
        if old:
            scoped.take_out(_rules(old), old)
            del policies[old.key]
        if new:
            scoped.put_in(_rules(new), new)
            policies[new.key] = new
    return replace(world, policies=policies.finish(), scoped=scoped.update(world.scoped))


_uid = attrgetter("uid")
_NOBODY = Served(None)


def _precedence(service: Service) -> tuple[bool, ServiceName]:
    """Of several services of one name or address, whoever is in the namespace of none means the first."""
    return not service.canonical, service.key


def _preference(workload: Workload) -> tuple[bool, bool, str]:
    """Of several workloads at one address the first is meant (ztunnel src/state/workload.rs)."""
    return "//Pod/" not in workload.uid, workload.protocol is not TunnelProtocol.HBONE, workload.uid


def _addresses(world: World, workload: Workload) -> Iterable[IPAddress]:
    if workload.host_network or workload.network != world.network:
        return ()
    return dict.fromkeys(workload.addresses)


def _node(workload: Workload) -> tuple[str, ...]:
    return (workload.node,) if workload.node else ()


def _rules(policy: Policy) -> tuple[str, ...]:
    if policy.scope is PolicyScope.GLOBAL:
        return (EVERYWHERE,)
    return (policy.namespace,) if policy.scope is PolicyScope.NAMESPACE else ()
