"""How far the subscribers of a control plane are, as istiod's `/debug/syncz` tells it (istio/istio
pilot/pkg/xds/debug.go, SyncStatus): one entry for each, with the types that it has subscribed to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ztunnel.xds.pb import discovery_pb2
from ztunnel.xds.topic import TypeStatus


@dataclass(frozen=True, slots=True)
class SubscriberStatus:
    """One subscriber. `node` is what it says of itself, `caller` who it has proved to be; `sent_at` is when
    it was sent something last, by type, as `connected_at` by Trio's clock."""

    node: discovery_pb2.Node
    caller: str
    connected_at: float
    types: Mapping[str, TypeStatus]
    sent_at: Mapping[str, float]


def dump(subscribers: Iterable[SubscriberStatus], now: float, wall: datetime) -> list[dict[str, Any]]:
    """Plain JSON values, in order of proxies. `now` and `wall` are the same moment by both clocks."""

    def at(moment: float) -> str:
        return (wall - timedelta(seconds=now - moment)).strftime("%Y-%m-%dT%H:%M:%SZ")

    found = [
        {
            "cluster_id": _metadata(one.node, "CLUSTER_ID"),
            "proxy": _proxy(one.node),
            "proxy_type": one.node.id.partition("~")[0],
            "istio_version": _metadata(one.node, "ISTIO_VERSION") or _metadata(one.node, "ZTUNNEL_VERSION"),
            "node": _metadata(one.node, "NODE_NAME"),
            "identity": one.caller,
            "connected": at(one.connected_at),
            "resources": {
                url: {
                    "sent": each.sent,
                    "acked": each.acknowledged,
                    "sent_time": at(one.sent_at[url]) if url in one.sent_at else "",
                    "last_error": each.rejection,
                    "pending": not each.current,
                }
                for url, each in sorted(one.types.items())
            },
        }
        for one in subscribers
    ]
    return sorted(found, key=lambda one: (str(one["proxy"]), str(one["connected"])))


def _proxy(node: discovery_pb2.Node) -> str:
    """`pod.namespace` of `ztunnel~<ip>~<pod>.<namespace>~<domain>`; the whole id where it is no such."""
    parts = node.id.split("~")
    return parts[2] if len(parts) == 4 else node.id


def _metadata(node: discovery_pb2.Node, name: str) -> str:
    return node.metadata.fields[name].string_value if name in node.metadata.fields else ""
