"""The publishing side of one delta xDS stream, sans I/O: what to send for a snapshot, a request, an answer.

For each type at most one response awaits its answer. While one does, snapshots only replace each other; upon
the answer the newest is compared with what was sent. So a subscriber that is slow, or answers never, costs
one response and no queue.

A response is not cut into parts: a subscriber that had half of the first one would take the other half for
strangers.

Order within the stream, so that nothing refers to what is not there: new and changed policies go before
addresses (workloads list policies by key), and removed policies wait until the addresses are answered for.

    unsubscribed --request--> settled --differs--> awaiting --ACK or NACK--> settled
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from sys import intern

from ztunnel.errors import PeerError
from ztunnel.xds.pb import discovery_pb2
from ztunnel.xds.resource import ADDRESS, AUTHORIZATION
from ztunnel.xds.snapshot import TYPES, Snapshot

_EVERYTHING = "*"


@dataclass(slots=True)
class _Topic:
    """One type on the stream: what is subscribed to, versions sent by name, the nonces sent last, not
    answered yet, and accepted last.

    `doubtful` are the names of which what was sent may not be what is current; None: all. Texts in `sent` are
    interned: each message gives new ones, and of 50 subscribers with 6,000 resources they took 40 MiB.
    """

    everything: bool = False
    names: set[str] = field(default_factory=set)
    sent: dict[str, str] = field(default_factory=dict)
    nonce: str = ""
    awaited: str = ""
    acknowledged: str = ""
    greeted: bool = False
    rejection: str = ""
    doubtful: set[str] | None = None


@dataclass(frozen=True, slots=True)
class TypeStatus:
    """How far a subscriber is with one type: nonces of the last response and of the last one that it accepted
    as a whole, what it said about the one that it did not, and whether there is nothing that it was not sent.
    Nonces are empty where there was none."""

    sent: str
    acknowledged: str
    rejection: str
    current: bool


@dataclass(frozen=True, slots=True)
class _Difference:
    upserts: list[discovery_pb2.Resource]
    removals: list[str]

    def __bool__(self) -> bool:
        return bool(self.upserts or self.removals)


class Publisher:
    """One subscriber's stream. Feed it requests and snapshots; send what it returns, in order."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._topics: dict[str, _Topic] = {}
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
            url: TypeStatus(topic.nonce, topic.acknowledged, topic.rejection, not self._difference(url))
            for url, topic in self._topics.items()
        }

    @property
    def settled(self) -> bool:
        """Whether the subscriber has answered for all of the current snapshot that it subscribed to."""
        return not any(topic.awaited or self._difference(url) for url, topic in self._topics.items())

    def publish(self, snapshot: Snapshot) -> list[discovery_pb2.DeltaDiscoveryResponse]:
        """Take `snapshot` for the current one; what can be sent of it now."""
        follows = snapshot.follows(self._snapshot)
        self._snapshot = snapshot
        for url, topic in self._topics.items():
            if topic.doubtful is not None:
                topic.doubtful = topic.doubtful | snapshot.changed[url] if follows else None
        return self._send()

    def receive(
        self, untrusted: discovery_pb2.DeltaDiscoveryRequest
    ) -> list[discovery_pb2.DeltaDiscoveryResponse]:
        """Act on a request: a first one of its type, an ACK, a NACK, or a changed subscription; what to send
        now.

        Raises:
            PeerError: a type that is not served here; the stream ends.
        """
        url = untrusted.type_url
        if url not in TYPES:
            raise PeerError(f"no resources of the type {url[:200]!r}")
        if untrusted.HasField("node"):
            self.node.CopyFrom(untrusted.node)
        topic = self._topics.get(url)
        if topic is None:
            topic = self._topics[url] = _Topic()
            topic.everything = not untrusted.resource_names_subscribe
            topic.sent = {
                intern(name): intern(it) for name, it in untrusted.initial_resource_versions.items()
            }
        if untrusted.response_nonce and untrusted.response_nonce == topic.awaited:
            topic.awaited = ""
            if not untrusted.HasField("error_detail"):
                topic.acknowledged = topic.nonce
            topic.rejection = untrusted.error_detail.message if untrusted.HasField("error_detail") else ""
        self._subscribe(topic, untrusted.resource_names_subscribe)
        self._unsubscribe(topic, untrusted.resource_names_unsubscribe)
        return self._send()

    def _subscribe(self, topic: _Topic, names: Iterable[str]) -> None:
        for name in names:
            topic.doubtful = None
            if name == _EVERYTHING:
                topic.everything = True
            else:
                # What is asked for by name is answered, even where it was sent before (xDS protocol, delta).
                topic.names.add(name)
                topic.sent.pop(name, None)
                topic.greeted = False

    def _unsubscribe(self, topic: _Topic, names: Iterable[str]) -> None:
        for name in names:
            topic.doubtful = None
            if name == _EVERYTHING:
                topic.everything = False
                topic.sent = {one: version for one, version in topic.sent.items() if one in topic.names}
            else:
                topic.names.discard(name)
                if not topic.everything:
                    topic.sent.pop(name, None)

    def _send(self) -> list[discovery_pb2.DeltaDiscoveryResponse]:
        responses = []
        policies = self._topics.get(AUTHORIZATION)
        if policies is not None and not policies.awaited:
            difference = self._difference(AUTHORIZATION)
            if not self._addresses_settled():
                difference.removals.clear()
            responses += self._respond(AUTHORIZATION, policies, difference)
        addresses = self._topics.get(ADDRESS)
        if addresses is not None and not addresses.awaited and not self._owes_policies():
            responses += self._respond(ADDRESS, addresses, self._difference(ADDRESS))
        return responses

    def _addresses_settled(self) -> bool:
        topic = self._topics.get(ADDRESS)
        return topic is None or not (topic.awaited or self._difference(ADDRESS))

    def _owes_policies(self) -> bool:
        return AUTHORIZATION in self._topics and bool(self._difference(AUTHORIZATION).upserts)

    def _difference(self, url: str) -> _Difference:
        """What the subscriber has not been sent; costs what may have changed since."""
        topic, current = self._topics[url], self._snapshot.resources[url]
        sent, doubtful = topic.sent, topic.doubtful
        if doubtful is None:
            doubtful = {*sent, *(current if topic.everything else topic.names)}
        upserts, removals = [], []
        for name in sorted(doubtful):
            one = current.get(name)
            if one is None:
                if name in sent:
                    removals.append(name)
            elif (topic.everything or name in topic.names) and sent.get(name) != one.version:
                upserts.append(one)
        topic.doubtful = {*removals, *(one.name for one in upserts)}
        return _Difference(upserts, removals)

    def _respond(
        self, url: str, topic: _Topic, difference: _Difference
    ) -> list[discovery_pb2.DeltaDiscoveryResponse]:
        """The response, if there is anything to say; the first is sent even when empty: it says that this is
        all."""
        missing = (
            []
            if topic.greeted
            else [name for name in topic.names if name not in self._snapshot.resources[url]]
        )
        if topic.greeted and not difference:
            return []
        self._responses += 1
        topic.awaited = topic.nonce = str(self._responses)
        topic.greeted = True
        for resource in difference.upserts:
            topic.sent[intern(resource.name)] = intern(resource.version)
        for name in difference.removals:
            del topic.sent[name]
        return [
            discovery_pb2.DeltaDiscoveryResponse(
                type_url=url,
                nonce=topic.awaited,
                resources=difference.upserts,
                removed_resources=sorted({*difference.removals, *missing}),
            )
        ]
