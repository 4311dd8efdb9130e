"""What each waypoint that subscribes is sent, kept up to date; sans I/O.

What a change costs is what it names, and the services of the waypoints that it concerns. A pod that comes or
goes concerns none of them anew: whether a waypoint is sent it, and its labels, is asked of the pod's services
and of what it is attached to.

What a waypoint has to do with no more, it is sent for a while longer: it serves what was detached until every
node proxy knows of that, by its routes and under its policies."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from ztunnel.control.membership import set_member
from ztunnel.control.waypoints.behind import Behind
from ztunnel.control.waypoints.scope import (
    NOTHING,
    Handle,
    Names,
    Scope,
    Stands,
    handle_of,
    handles_of,
    provided_by,
    scope_of,
    waypoints_of,
)
from ztunnel.model.provider import ServicePort
from ztunnel.model.service import Service, ServiceName
from ztunnel.model.service_traffic import ServiceTraffic
from ztunnel.model.workload import Workload
from ztunnel.waypoint.attachment import GRACE_SECONDS
from ztunnel.xds.resource import ADDRESS, LABELS, PROVIDER, RATE_LIMIT, ROUTES, TRAFFIC, Resource, at_address
from ztunnel.xds.snapshot import Snapshot

LINGER_SECONDS: Final = 2 * GRACE_SECONDS
"""How long what a waypoint has to do with no more is sent to it."""

_Left = dict[tuple[str, str], tuple[float, ServiceName | None]]


@dataclass(slots=True)
class _Follower:
    """One waypoint's pod. `left`: what has left its scope, by type and name, until when it is in it all the
    same, and the service that it is where it is one."""

    own: frozenset[Handle] = frozenset()
    current: Scope = NOTHING
    scope: Scope = NOTHING
    left: _Left = field(default_factory=dict)
    sessions: int = 0


class Scopes:
    """Those of all waypoints that subscribe, by the uid of their pod.

    Attributes:
        due: when `expire` has something to do; infinity: nothing.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = Snapshot()
        self._attached: dict[Handle, set[str]] = {}
        self._serving: dict[ServiceName, set[str]] = {}
        self._behind = Behind()
        self._followers: dict[str, _Follower] = {}
        self._named: dict[Handle, set[str]] = {}
        self._hosts: dict[str, set[ServiceName]] = {}
        self._provided: dict[tuple[str, str], ServicePort] = {}
        self.due = math.inf
        self.advance(snapshot, -math.inf)

    def follow(self, uid: str) -> Scope:
        """Somebody subscribes as that pod; its scope is kept until `leave` was called as often."""
        follower = self._followers.get(uid)
        if follower is None:
            follower = self._followers[uid] = _Follower()
            self._own(uid, follower)
            follower.current = follower.scope = self._made(uid, follower)
        follower.sessions += 1
        return follower.scope

    def leave(self, uid: str) -> None:
        """One of them is gone."""
        follower = self._followers[uid]
        follower.sessions -= 1
        if not follower.sessions:
            for handle in follower.own:
                set_member(self._named, handle, uid, False)
            del self._followers[uid]

    def scope(self, uid: str) -> Scope:
        """That of a pod as which somebody subscribes."""
        return self._followers[uid].scope

    def advance(self, snapshot: Snapshot, now: float) -> Mapping[str, Names]:
        """Take `snapshot` for the current one. Of each waypoint whose scope is another one, the names of
        which it has something else to say."""
        before, self._snapshot = self._snapshot, snapshot
        follows = snapshot.follows(before)
        dirty, moved = set[str](), set[str]()
        for name, old, new in _changes(before, snapshot, ADDRESS, follows):
            if isinstance(old, Service) or isinstance(new, Service):
                self._put_service(name, old, new, dirty)
            if isinstance(old, Workload) or isinstance(new, Workload):
                pods = _workload(old), _workload(new)
                self._put_workload(name, *pods, dirty, moved)
                self._put_behind(name, *pods, dirty, now)
        for url, name, new in _providing(before, snapshot, follows):
            self._provide((url, name), provided_by(new), dirty)
        for name, old, new in _changes(before, snapshot, TRAFFIC, follows):
            dirty.update(self._needing(name, old, new))
        for name, _, _ in _changes(before, snapshot, ROUTES, follows):
            dirty.update(self._concerned(snapshot.origins[ADDRESS].get(name)))
            dirty.update(self._concerned(before.origins[ADDRESS].get(name)))
        found = {}
        for uid, follower in self._followers.items():
            names = dict(self._renew(uid, follower, now)) if uid in dirty else {}
            if moved:
                names[LABELS] = names.get(LABELS, frozenset()) | moved
            if names:
                found[uid] = names
        return found

    def expire(self, now: float) -> Mapping[str, Names]:
        """Let go of what has left long ago; the names, as `advance`."""
        found = {}
        for uid, follower in self._followers.items():
            gone = [key for key, (until, _) in follower.left.items() if until <= now]
            for key in gone:
                del follower.left[key]
            if gone:
                found[uid] = self._settle(follower)
        self._set_due()
        return found

    # --- what a change concerns

    def _put_service(self, name: str, old: Resource | None, new: Resource | None, dirty: set[str]) -> None:
        for one, there in ((old, False), (new, True)):
            if isinstance(one, Service):
                dirty.update(self._concerned(one), self._leading_to(one))
                for handle in waypoints_of(one):
                    set_member(self._attached, handle, name, there)
                set_member(self._hosts, one.hostname, one.key, there)
                if any(port.hostname == one.hostname for port in self._provided.values()):
                    dirty.update(self._followers)

    def _provide(self, key: tuple[str, str], port: ServicePort | None, dirty: set[str]) -> None:
        """What that resource has called is at `port`."""
        if self._provided.get(key) == port:
            return
        self._provided.pop(key, None)
        if port is not None:
            self._provided[key] = port
        dirty.update(self._followers)

    def _needing(self, name: str, *traffic: Resource | None) -> Iterator[str]:
        """The waypoints that call a service whose traffic policies need, or needed, credentials."""
        if any(isinstance(one, ServiceTraffic) and any(one.credentials()) for one in traffic):
            for uid, follower in self._followers.items():
                if name in follower.current.names.get(TRAFFIC, ()):
                    yield uid

    def _concerned(self, service: Resource | None) -> Iterator[str]:
        """The waypoints that a service is attached to, or that it is the service of."""
        if isinstance(service, Service):
            for handle in (*waypoints_of(service), service.key):
                yield from self._named.get(handle, ())

    def _leading_to(self, service: Service) -> Iterator[str]:
        """The waypoints whose routes lead to a service, or to the waypoint that it is the service of."""
        places = [at_address(self._snapshot.network, ip) for ip in service.addresses]
        for uid, follower in self._followers.items():
            scope = follower.current
            if service.key in scope.services or not scope.places.isdisjoint(places):
                yield uid

    def _put_behind(
        self, uid: str, old: Workload | None, new: Workload | None, dirty: set[str], now: float
    ) -> None:
        """A pod that is attached no more is sent for a while longer."""
        for handle in self._behind.put(uid, old, new):
            dirty.update(self._named.get(handle, ()))
        left = handle_of(old.waypoint) if old is not None else None
        if new is not None and left is not None and left != handle_of(new.waypoint):
            for each in self._named.get(left, ()):
                self._followers[each].left[ADDRESS, uid] = now + LINGER_SECONDS, None
                dirty.add(each)

    def _put_workload(
        self, uid: str, old: Workload | None, new: Workload | None, dirty: set[str], moved: set[str]
    ) -> None:
        before = old.services if old is not None else {}
        now = new.services if new is not None else {}
        if uid in self._followers:
            dirty.add(uid)
        if before.keys() == now.keys():
            return
        moved.add(uid)
        for service in before.keys() | now.keys():
            set_member(self._serving, service, uid, service in now)

    # --- what is made anew

    def _own(self, uid: str, follower: _Follower) -> None:
        """By what the pod is named now."""
        workload = self._snapshot.origins[ADDRESS].get(uid)
        own = handles_of(self._snapshot, workload) if isinstance(workload, Workload) else frozenset[Handle]()
        for handle in follower.own | own:
            set_member(self._named, handle, uid, handle in own)
        follower.own = own

    def _made(self, uid: str, follower: _Follower) -> Scope:
        attached = frozenset(name for one in follower.own for name in self._attached.get(one, ()))
        provided = frozenset(
            name
            for port in self._provided.values()
            for name in self._hosts.get(port.hostname, ())
            if port.namespace in ("", name.namespace)
        )
        through = frozenset(name for one in follower.own for name in self._behind.services(one))
        pods = any(self._behind.pods(one) for one in follower.own)
        return scope_of(self._snapshot, Stands(uid, follower.own, attached, through, provided, pods))

    def _renew(self, uid: str, follower: _Follower, now: float) -> Names:
        self._own(uid, follower)
        before, follower.current = follower.current, self._made(uid, follower)
        services = {str(one): one for one in before.services | before.beyond}
        for url, names in before.names.items():
            for name in names - follower.current.names.get(url, frozenset()):
                follower.left[url, name] = now + LINGER_SECONDS, services.get(name)
        for handle in before.own - follower.current.own:
            for each in self._behind.pods(handle):
                follower.left[ADDRESS, each] = now + LINGER_SECONDS, None
        for url, names in follower.current.names.items():
            for name in names:
                follower.left.pop((url, name), None)
        self._set_due()
        return self._settle(follower)

    def _settle(self, follower: _Follower) -> Names:
        """The scope with what has left it lately; the names of which that says something else."""
        before, current = follower.scope, follower.current
        names = dict(current.names)
        for url, name in follower.left:
            names[url] = names.get(url, frozenset()) | {name}
        left = {one for _, one in follower.left.values() if one is not None}
        follower.scope = replace(current, names=names, services=current.services | left)
        differing = {
            url: found
            for url in {*names, *before.names}
            if (found := names.get(url, frozenset()) ^ before.names.get(url, frozenset()))
        }
        pods = self._pods(follower.scope.services ^ before.services)
        if pods:
            differing[LABELS] = pods
        addresses = differing.get(ADDRESS, frozenset()) | self._addresses(before, follower.scope) | pods
        if addresses:
            differing[ADDRESS] = addresses
        return differing

    def _pods(self, services: Iterable[ServiceName]) -> frozenset[str]:
        return frozenset(uid for one in services for uid in self._serving.get(one, ()))

    def _addresses(self, before: Scope, scope: Scope) -> frozenset[str]:
        """Those that are in one of two scopes by what is attached, by where they are, or as another
        waypoint's."""
        attached = (self._behind.pods(handle) for handle in before.own ^ scope.own)
        placed = (self._snapshot.aliases.get(place, ()) for place in before.places ^ scope.places)
        return self._pods(before.beyond ^ scope.beyond).union(*attached, *placed)

    def _set_due(self) -> None:
        left = (until for one in self._followers.values() for until, _ in one.left.values())
        self.due = min(left, default=math.inf)


def _changes(
    before: Snapshot, now: Snapshot, type_url: str, follows: bool
) -> Iterable[tuple[str, Resource | None, Resource | None]]:
    old, new = before.origins[type_url], now.origins[type_url]
    names: Iterable[str] = now.changed[type_url] if follows else {*old, *new}
    return ((name, old.get(name), new.get(name)) for name in names)


def _providing(before: Snapshot, now: Snapshot, follows: bool) -> Iterator[tuple[str, str, Resource | None]]:
    """What says which services are called for waypoints themselves, by type and name."""
    for url in (PROVIDER, RATE_LIMIT):
        for name, _, new in _changes(before, now, url, follows):
            yield url, name, new


def _workload(one: Resource | None) -> Workload | None:
    return one if isinstance(one, Workload) else None
