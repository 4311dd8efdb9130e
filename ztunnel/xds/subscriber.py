"""The subscribing side of delta xDS, sans I/O: what to ask for, what a response changes, how to answer it.

It remembers the versions that it accepted, over connections: to a publisher that honours them, a new stream
costs what changed meanwhile. A resource that cannot be used is named in the answer, and the good ones of the
same response count all the same; of a refused one the version before, if there was any, stays in force."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.struct_pb2 import Struct

from ztunnel.errors import PeerError
from ztunnel.xds.on_demand import OnDemand
from ztunnel.xds.pb import discovery_pb2
from ztunnel.xds.resource import ADDRESS, HTTP_TYPES, NODE_TYPES, Resource, parse

ROLE: Final = "ZTUNNEL_ROLE"
"""Of a node's metadata: what it is, `WAYPOINT` or nothing."""
WAYPOINT: Final = "waypoint"
ON_DEMAND: Final = "ZTUNNEL_ON_DEMAND"
"""Of a waypoint's metadata: that it asks for the addresses of who calls it, and need not be sent all."""

_MAX_REASONS: Final = 20
"""Refused resources named in one answer; a line for each of 100,000 would not fit any message."""


@dataclass(frozen=True, slots=True)
class Update:
    """What one response changes, and the answer to send once that is in force."""

    type_url: str
    upserts: tuple[Resource, ...]
    removals: tuple[str, ...]
    rejected: tuple[str, ...]
    answer: discovery_pb2.DeltaDiscoveryRequest


def describe_node(node_id: str, metadata: Mapping[str, Any]) -> discovery_pb2.Node:
    """Ourselves, as istiod expects it: `ztunnel~<ip>~<pod>.<namespace>~<namespace>.svc.cluster.local`, and
    metadata (NAME, NAMESPACE, NODE_NAME, CLUSTER_ID, ...)."""
    described = Struct()
    described.update(dict(metadata))
    return discovery_pb2.Node(id=node_id, metadata=described)


def waypoint_of(node: discovery_pb2.Node) -> str:
    """The uid of the waypoint's pod that describes itself so; empty: it is none, or of a version that is sent
    everything."""
    said = {name: field.string_value for name, field in node.metadata.fields.items()}
    if said.get(ROLE) != WAYPOINT:
        return ""
    return f"{said.get('CLUSTER_ID', '')}//Pod/{said.get('NAMESPACE', '')}/{said.get('NAME', '')}"


def asks_on_demand(node: discovery_pb2.Node) -> bool:
    """Whether whoever describes itself so asks for addresses as it meets them."""
    return node.metadata.fields[ON_DEMAND].bool_value if ON_DEMAND in node.metadata.fields else False


def ask_again(type_url: str, names: Iterable[str]) -> discovery_pb2.DeltaDiscoveryRequest:
    """A request to be sent these once more, for whoever has a stream; a control plane may take it for the
    wish that it looks for something newer."""
    return discovery_pb2.DeltaDiscoveryRequest(type_url=type_url, resource_names_subscribe=names)


class Subscriber:
    """Everything of the types in `types`, in that order, as far as it concerns us, and the addresses that
    `on_demand` asks for. One object for a process, one `connect` for each stream."""

    def __init__(
        self,
        node: discovery_pb2.Node,
        network: str,
        types: Sequence[str] = NODE_TYPES,
        on_demand: OnDemand | None = None,
    ) -> None:
        self._node = node
        self._network = network
        self._types = tuple(types)
        self._accepted: dict[str, dict[str, str]] = {type_url: {} for type_url in types}
        self._rejected: dict[str, dict[str, str]] = {type_url: {} for type_url in types}
        self._answered: set[str] = set()
        self._on_demand = on_demand

    @property
    def complete(self) -> bool:
        """Whether each type has been received once: only then does an unknown address mean a stranger. Types
        of our own do not count: istiod never answers for them, and ours does before it sends addresses."""
        return self._answered >= self.required

    @property
    def required(self) -> set[str]:
        """The types that every control plane has."""
        return set(self._types) - set(HTTP_TYPES)

    @property
    def unanswered(self) -> tuple[str, ...]:
        """The types of which nothing has come."""
        return tuple(type_url for type_url in self._types if type_url not in self._answered)

    @property
    def rejected(self) -> tuple[str, ...]:
        """`name: reason` of every resource whose newest version we could not use."""
        return tuple(reason for reasons in self._rejected.values() for reason in reasons.values())

    def accepted(self, type_url: str) -> Mapping[str, str]:
        """Versions in force, by name."""
        return self._accepted[type_url]

    def connect(self) -> list[discovery_pb2.DeltaDiscoveryRequest]:
        """The first requests of a new stream: everything, beyond what we have."""
        names = self._on_demand.connect() if self._on_demand is not None else []
        return [
            discovery_pb2.DeltaDiscoveryRequest(
                node=self._node,
                type_url=type_url,
                initial_resource_versions=self._accepted[type_url],
                resource_names_subscribe=["*", *names] if names and type_url == ADDRESS else [],
            )
            for type_url in self._types
        ]

    def receive(self, untrusted: discovery_pb2.DeltaDiscoveryResponse) -> Update:
        """Read a response and take it over. Raises PeerError, as `read`."""
        return self.take(untrusted, list(self.read(untrusted)))

    def read(self, untrusted: discovery_pb2.DeltaDiscoveryResponse) -> Iterator[Resource | PeerError]:
        """What each resource of a response is, or why it cannot be used; one by one, as a large response
        takes its time. Changes nothing.

        Raises:
            PeerError: of a type that was not asked for; the stream ends.
        """
        url = untrusted.type_url
        if url not in self._accepted:
            raise PeerError(f"a response of the type {url[:200]!r}, which was not asked for")
        for resource in untrusted.resources:
            try:
                found: Resource | PeerError = parse(url, resource, self._network)
            except PeerError as error:
                found = error
            yield found

    def take(
        self, untrusted: discovery_pb2.DeltaDiscoveryResponse, read: Sequence[Resource | PeerError]
    ) -> Update:
        """Take a response over of which `read` has given all."""
        url = untrusted.type_url
        accepted, rejected = self._accepted[url], self._rejected[url]
        upserts: dict[str, Resource] = {}
        reasons = []
        for resource, found in zip(untrusted.resources, read, strict=True):
            if isinstance(found, PeerError):
                rejected[resource.name] = str(found)
                reasons.append(str(found))
                continue
            upserts[resource.name] = found
            accepted[resource.name] = resource.version
            rejected.pop(resource.name, None)
        sent = {resource.name for resource in untrusted.resources}
        gone = [name for name in dict.fromkeys(untrusted.removed_resources) if name not in sent]
        removals = tuple(name for name in gone if accepted.pop(name, None) is not None)
        for name in gone:
            rejected.pop(name, None)
        self._answered.add(url)
        self._tell(untrusted)
        return Update(
            url, tuple(upserts.values()), removals, tuple(reasons), self._answer(untrusted, reasons)
        )

    def _tell(self, untrusted: discovery_pb2.DeltaDiscoveryResponse) -> None:
        """Addresses that were asked for have come."""
        if self._on_demand is None:
            return
        if untrusted.type_url == ADDRESS:
            self._on_demand.received(untrusted.resources, untrusted.removed_resources)
        elif untrusted.type_url in HTTP_TYPES:
            self._on_demand.served()

    def _answer(
        self, untrusted: discovery_pb2.DeltaDiscoveryResponse, reasons: Sequence[str]
    ) -> discovery_pb2.DeltaDiscoveryRequest:
        answer = discovery_pb2.DeltaDiscoveryRequest(
            type_url=untrusted.type_url, response_nonce=untrusted.nonce
        )
        if reasons:
            more = [f"and {len(reasons) - _MAX_REASONS} more"] if len(reasons) > _MAX_REASONS else []
            answer.error_detail.message = "; ".join([*reasons[:_MAX_REASONS], *more])
        return answer
