"""The publishing side of one delta xDS stream, sans I/O: what to send for a snapshot, a request, an answer.

For each type at most one response awaits its answer. While one does, snapshots only replace each other; upon
the answer the newest is compared with what was sent. So a subscriber that is slow, or answers never, costs
one response and no queue.

A response is not cut into parts: a subscriber that had half of the first one would take the other half for
strangers. But it is made in pieces: what takes long yields None in between, so that others have the thread,
and until it is at its end the publisher is told nothing else.

Order within the stream, so that nothing refers to what is not there. Addresses name policies; routes name
services, with their traffic policies and the labels of their endpoints; and a service that comes to a
waypoint is not to be without its routes:

    policies, labels, traffic  <  routes of services that come  <  addresses  <  other routes

What is new and changed goes in this order; removals wait until all that may refer to them was answered for.

On demand: an address that is asked for by its name, or by who is at it (`network/ip`), is sent whatever the
scope, and kept current until it is asked for no more. That nobody is there is an answer, too. Who asks for
nothing else, a node proxy, is sent more than that (`followed.py`).

    unsubscribed --request--> settled --differs--> awaiting --ACK or NACK--> settled
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from sys import intern
from typing import Final, Protocol

from ztunnel.errors import PeerError
from ztunnel.xds.followed import is_followed, is_service, node_of
from ztunnel.xds.pb import discovery_pb2
from ztunnel.xds.resource import ADDRESS, ROUTES, TYPES
from ztunnel.xds.snapshot import Snapshot
from ztunnel.xds.topic import Topic, TypeStatus

_REFERRED: Final = tuple(url for url in TYPES if url not in (ADDRESS, ROUTES))
"""Types that addresses and routes refer to."""
_EVERYTHING = "*"
_AT_ONCE: Final = 1000
"""Names looked at, or resources put into a response, at a time: some milliseconds."""
_SORTED: Final = 5000
"""Up to so many resources stand in a response in order of their names, for whoever reads it."""

Response = discovery_pb2.DeltaDiscoveryResponse
Steps = Generator[Response | None, None, None]
"""Responses to send, and None wherever others may have their turn."""


class Scope(Protocol):
    """What one subscriber has to do with; a value, which does not change."""

    def holds(self, snapshot: Snapshot, type_url: str, name: str) -> bool:
        """Whether the resource of that name concerns it."""


@dataclass(frozen=True, slots=True)
class _Difference:
    upserts: list[discovery_pb2.Resource] = field(default_factory=list)
    removals: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.upserts or self.removals)


class Publisher:
    """One subscriber's stream. Feed it requests and snapshots; send what it returns, in order."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._topics: dict[str, Topic] = {}
        self._scope: Scope | None = None
        self._responses = 0
        self.node = discovery_pb2.Node()

    @property
    def rejections(self) -> dict[str, str]:
        """By type URL what the subscriber said about the last response, where it refused any of it."""
        return {url: topic.rejection for url, topic in self._topics.items() if topic.rejection}

    @property
    def status(self) -> dict[str, TypeStatus]:
        """By type URL, of the types that were subscribed to."""
        return {
            url: TypeStatus(topic.nonce, topic.acknowledged, topic.rejection, topic.doubtful == set())
            for url, topic in self._topics.items()
        }

    @property
    def settled(self) -> bool:
        """Whether the subscriber has answered for all of the current snapshot that it subscribed to."""
        return not any(topic.awaited or topic.doubtful != set() for topic in self._topics.values())

    def publish(self, snapshot: Snapshot) -> list[Response]:
        """Take `snapshot` for the current one; what can be sent of it now."""
        self.advance(snapshot)
        return [one for one in self.work() if one is not None]

    def receive(self, untrusted: discovery_pb2.DeltaDiscoveryRequest) -> list[Response]:
        """Act on a request; what to send now. Raises PeerError, as `take`."""
        return [one for one in chain(self.take(untrusted), self.work()) if one is not None]

    def advance(self, snapshot: Snapshot) -> None:
        """Take `snapshot` for the current one. Costs what it has changed; `work` sends it."""
        follows = snapshot.follows(self._snapshot)
        self._snapshot = snapshot
        for url, topic in self._topics.items():
            if topic.doubtful is not None:
                topic.doubtful = topic.doubtful | snapshot.changed[url] if follows else None

    def narrow(self, scope: Scope, doubtful: Mapping[str, Iterable[str]] | None = None) -> None:
        """Send no more than what is in `scope` from now on, and have what is not removed. `doubtful`: names
        by type that the scope before has another answer for; None: there was none."""
        self._scope = scope
        for url, topic in self._topics.items():
            if doubtful is None:
                topic.doubtful = None
            elif topic.doubtful is not None:
                topic.doubtful = topic.doubtful.union(doubtful.get(url, ()))

    def take(self, untrusted: discovery_pb2.DeltaDiscoveryRequest) -> Steps:
        """Act on a request: a first one of its type, an ACK, a NACK, or a changed subscription. `work` sends
        what it asks for.

        Raises:
            PeerError: a type that is not served here; the stream ends.
        """
        url = untrusted.type_url
        if url not in TYPES:
            raise PeerError(f"no resources of the type {url[:200]!r}")
        if untrusted.HasField("node"):
            self.node.CopyFrom(untrusted.node)
        topic = self._topics.get(url)
        begins = topic is None
        if topic is None:
            topic = self._topics[url] = Topic()
            topic.everything = not untrusted.resource_names_subscribe
            for number, (name, version) in enumerate(untrusted.initial_resource_versions.items(), 1):
                topic.sent[intern(name)] = intern(version)
                if number % _AT_ONCE == 0:
                    yield None
        if untrusted.response_nonce and untrusted.response_nonce == topic.awaited:
            topic.awaited = ""
            if not untrusted.HasField("error_detail"):
                topic.acknowledged = topic.nonce
            topic.rejection = untrusted.error_detail.message if untrusted.HasField("error_detail") else ""
        self._subscribe(topic, untrusted.resource_names_subscribe, begins)
        self._unsubscribe(topic, untrusted.resource_names_unsubscribe, begins)

    def _subscribe(self, topic: Topic, names: Iterable[str], begins: bool) -> None:
        """What is asked for by name is answered, even where it was sent before (xDS protocol, delta); but not
        what a stream `begins` with: there the versions say what is known."""
        for name in names:
            if name == _EVERYTHING:
                topic.doubtful = None
                topic.everything = True
                continue
            topic.names.add(name)
            topic.asked.add(name)
            for one in (name, *self._snapshot.aliases.get(name, ())):
                if not begins:
                    topic.sent.pop(one, None)
                self._doubt(topic, one)

    def _unsubscribe(self, topic: Topic, names: Iterable[str], begins: bool) -> None:
        """What bears a name that was asked for is forgotten by whoever asked. What was found by another name
        is removed, unless it is sent for another reason, too: that is not known there. So is what somebody
        has who `begins` with nothing."""
        for name in names:
            if name == _EVERYTHING:
                topic.doubtful = None
                topic.everything = False
                if not begins:
                    topic.sent = {one: version for one, version in topic.sent.items() if one in topic.names}
                continue
            topic.names.discard(name)
            topic.asked.discard(name)
            if not topic.everything:
                topic.sent.pop(name, None)
            for one in (name, *self._snapshot.aliases.get(name, ())):
                self._doubt(topic, one)

    def _doubt(self, topic: Topic, name: str) -> None:
        """Look at it again; at everything for the endpoints of a service, of which there is no list here."""
        if not topic.everything and is_service(self._snapshot, name):
            topic.doubtful = None
        elif topic.doubtful is not None:
            topic.doubtful.add(name)

    def work(self) -> Steps:
        """Send what can be sent now; nothing else may be told to the publisher until that is at its end."""
        found = {}
        for url in TYPES:
            found[url] = yield from self._difference(url)
        owes = False
        referring = any(self._is_under_way(url, found[url]) for url in (ADDRESS, ROUTES))
        for url in _REFERRED:
            if referring:
                found[url].removals.clear()  # until what may name them is answered for
            owes |= yield from self._try(url, found[url])
        if not owes:
            yield from self._work_on_addresses(found[ADDRESS], found[ROUTES])

    def _work_on_addresses(self, addresses: _Difference, routes: _Difference) -> Steps:
        """Routes go before a service that comes, and after the services that they name."""
        first, rest = self._divide(routes, addresses)
        if first and (yield from self._try(ROUTES, first)):
            return
        removals = _Difference(removals=addresses.removals if rest.upserts else [])
        if rest.upserts:
            addresses = _Difference(addresses.upserts)
        if addresses and (yield from self._try(ADDRESS, addresses)):
            return
        if removals or self._is_under_way(ADDRESS, addresses):
            rest.removals.clear()
        if (yield from self._try(ROUTES, rest)):
            return
        yield from self._try(ADDRESS, removals)

    def _divide(self, routes: _Difference, addresses: _Difference) -> tuple[_Difference, _Difference]:
        """The routes that nobody asks for yet, as their service has not been sent; and the rest."""
        first, rest = _Difference(), _Difference(removals=routes.removals)
        topic, of_addresses = self._topics.get(ROUTES), self._topics.get(ADDRESS)
        if topic is None or of_addresses is None or not of_addresses.greeted:
            return routes, first
        coming = {one.name for one in addresses.upserts} if routes.upserts else ()
        for one in routes.upserts:
            is_first = one.name in coming and one.name not in topic.sent
            (first if is_first else rest).upserts.append(one)
        return first, rest

    def _is_under_way(self, url: str, difference: _Difference) -> bool:
        """Whether there is something of that type that the subscriber has not answered for."""
        topic = self._topics.get(url)
        return topic is not None and (bool(topic.awaited) or bool(difference))

    def _try(self, url: str, difference: _Difference) -> Generator[Response | None, None, bool]:
        """Send it if that can be now; whether something new has to wait."""
        topic = self._topics.get(url)
        if topic is None:
            return False
        if topic.awaited:
            return bool(difference.upserts)
        yield from self._respond(url, topic, difference)
        return False

    def _difference(self, url: str) -> Generator[None, None, _Difference]:
        """What the subscriber has not been sent; costs what may have changed since."""
        topic, found = self._topics.get(url), _Difference()
        if topic is None:
            return found
        sent, current, differing = topic.sent, self._snapshot.resources[url], list[str]()
        for number, name in enumerate(self._doubtful(topic, current), 1):
            one = current.get(name)
            if one is None or not self._concerns(topic, url, name, one):
                if name in sent:
                    found.removals.append(name)
                    differing.append(name)
            elif sent.get(name) != one.version:
                found.upserts.append(one)
                differing.append(name)
            if number % _AT_ONCE == 0:
                yield None
        topic.doubtful = set(differing)
        return found

    def _concerns(self, topic: Topic, url: str, name: str, one: discovery_pb2.Resource) -> bool:
        """Whether it is to be sent."""
        scope = self._scope
        if (topic.everything or (name in topic.names and url != ADDRESS)) and (
            scope is None or scope.holds(self._snapshot, url, name)
        ):
            return True
        if url != ADDRESS:
            return False
        names = topic.names
        if names and (name in names or not names.isdisjoint(one.aliases)):
            return True
        return not topic.everything and is_followed(self._snapshot, name, node_of(self.node), names)

    def _doubtful(self, topic: Topic, current: Mapping[str, object]) -> Iterable[str]:
        """The names to be looked at, none twice; in order where they are few."""
        if topic.doubtful is not None:
            names = topic.doubtful
            return sorted(names) if len(names) <= _SORTED else names
        is_address = current is self._snapshot.resources[ADDRESS]
        wanted = current if topic.everything or is_address else topic.names
        if len(topic.sent) + len(wanted) <= _SORTED:
            return sorted({*topic.sent, *wanted})
        return chain((name for name in topic.sent if name not in wanted), wanted)

    def _respond(self, url: str, topic: Topic, difference: _Difference) -> Steps:
        """The response, if there is anything to say; the first is sent even when empty: it says that this is
        all."""
        current, aliases = self._snapshot.resources[url], self._snapshot.aliases
        missing = [name for name in topic.asked if name not in current and name not in aliases]
        if topic.greeted and not difference and not topic.asked:
            return
        topic.asked.clear()
        self._responses += 1
        topic.awaited = topic.nonce = str(self._responses)
        topic.greeted = True
        gone = {*difference.removals, *missing}
        removed = sorted(gone) if len(gone) <= _SORTED else [*gone]
        response = Response(type_url=url, nonce=topic.awaited, removed_resources=removed)
        for begin in range(0, len(difference.upserts), _AT_ONCE):
            some = difference.upserts[begin : begin + _AT_ONCE]
            response.resources.extend(some)
            for resource in some:
                topic.sent[intern(resource.name)] = intern(resource.version)
            yield None
        for name in difference.removals:
            del topic.sent[name]
        self._sent(topic, difference)
        yield response

    def _sent(self, topic: Topic, difference: _Difference) -> None:
        """What was sent is in doubt no longer; removals that wait are."""
        doubtful = topic.doubtful or set()
        if len(difference.upserts) + len(difference.removals) == len(doubtful):
            topic.doubtful = set()
        else:
            topic.doubtful = doubtful - {one.name for one in difference.upserts} - {*difference.removals}
