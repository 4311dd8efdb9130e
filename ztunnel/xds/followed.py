"""What a node proxy that asks for addresses on demand is sent without asking: the pods of its own node, which
it serves, and the endpoints of services that it asks for, among which it chooses (istiod:
AdditionalPodSubscriptions of pilot/pkg/serviceregistry/ambient)."""

from __future__ import annotations

from collections.abc import Set
from typing import Final

from ztunnel.model.service import Service
from ztunnel.model.workload import Workload
from ztunnel.xds.pb import discovery_pb2
from ztunnel.xds.resource import ADDRESS
from ztunnel.xds.snapshot import Snapshot

_NODE: Final = "NODE_NAME"


def node_of(node: discovery_pb2.Node) -> str:
    """The name of the node that a proxy serves; empty where it does not say."""
    fields = node.metadata.fields
    return fields[_NODE].string_value if _NODE in fields else ""


def is_followed(snapshot: Snapshot, name: str, node: str, names: Set[str]) -> bool:
    """Whether an address is one of these, for the proxy of that node which asks for `names`."""
    one = snapshot.origins[ADDRESS].get(name)
    if not isinstance(one, Workload):
        return False
    if node and one.node == node:
        return True
    return bool(names) and any(_is_asked(snapshot, str(service), names) for service in one.services)


def _is_asked(snapshot: Snapshot, service: str, names: Set[str]) -> bool:
    resource = snapshot.resources[ADDRESS].get(service)
    return resource is not None and (service in names or not names.isdisjoint(resource.aliases))


def is_service(snapshot: Snapshot, name: str) -> bool:
    """Whether that is the name of a service."""
    return isinstance(snapshot.origins[ADDRESS].get(name), Service)
