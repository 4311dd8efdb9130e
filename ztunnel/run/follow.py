"""Follows the world: subscribes to the control plane for as long as the node runs, and says how that goes."""

from __future__ import annotations

import trio

from ztunnel.config import Settings
from ztunnel.errors import PeerError
from ztunnel.run.build import ControlPlane, Node
from ztunnel.run.reporting import STATE, Reporting
from ztunnel.state.subscribe import subscribe
from ztunnel.telemetry.component import XdsFigures
from ztunnel.xds.pb import discovery_pb2
from ztunnel.xds.snapshot import TYPES
from ztunnel.xds.subscriber import Subscriber, Update, describe_node

_RETRY_SECONDS = (0.01, 15.0)
_SHOWN_REASONS = 20
"""Of 100,000 resources that cannot be used, each would be a line."""

_STREAM, _REJECTED = "control plane", "resources rejected"


class _CountedSubscriber(Subscriber):
    """Counts what it is sent."""

    def __init__(self, node: discovery_pb2.Node, network: str, figures: XdsFigures) -> None:
        super().__init__(node, network)
        self._figures = figures

    def receive(self, untrusted: discovery_pb2.DeltaDiscoveryResponse) -> Update:
        """As `Subscriber.receive`."""
        self._figures.received(untrusted.type_url, untrusted.ByteSize())
        return super().receive(untrusted)


async def follow_world(node: Node, plane: ControlPlane, received: trio.Event) -> None:
    """Subscribe for as long as we run; while there is no control plane the world stays as it is."""
    reporting, figures = node.reporting, XdsFigures(node.reporting.figures)
    subscriber = _subscriber(node.settings, figures)
    missing = dict.fromkeys(TYPES)
    least, most = _RETRY_SECONDS
    pause = least

    def observe(update: Update) -> None:
        nonlocal pause
        pause = least  # it answers: the next stream need not wait
        missing.pop(update.type_url, None)
        _tell_world(reporting, subscriber, update, tuple(missing))
        if subscriber.complete and not received.is_set():
            reporting.readiness.done(STATE)
            received.set()

    reporting.readiness.detail(STATE, _waits_for(tuple(missing)))
    while True:
        reason, error = "Complete", "the control plane has closed it"
        try:
            await subscribe(*plane.open_session(), node.hold, subscriber, observe)
        except (PeerError, trio.WouldBlock) as failure:
            reason, error = "Error", str(failure) or "too many streams wait for the control plane"
        figures.terminated(reason)
        reporting.log.warn("xDS stream ended", error=error, retry_seconds=pause)
        reporting.readiness.detail(_STREAM, f"the stream has ended: {error}")
        await trio.sleep(pause)
        pause = min(pause * 2, most)


def _subscriber(settings: Settings, figures: XdsFigures) -> Subscriber:
    described = describe_node(
        f"ztunnel~1.1.1.1~{settings.node}.ztunnel-system~ztunnel-system.svc.cluster.local",
        {"NODE_NAME": settings.node, "CLUSTER_ID": settings.cluster},
    )
    return _CountedSubscriber(described, settings.network, figures)


def _tell_world(
    reporting: Reporting, subscriber: Subscriber, update: Update, missing: tuple[str, ...]
) -> None:
    for reason in update.rejected[:_SHOWN_REASONS]:
        reporting.log.warn("resource rejected", reason=reason)
    rejected = subscriber.rejected
    more = (f"and {len(rejected) - _SHOWN_REASONS} more",) if len(rejected) > _SHOWN_REASONS else ()
    reporting.readiness.detail(_REJECTED, "\n".join((*rejected[:_SHOWN_REASONS], *more)))
    reporting.readiness.detail(STATE, _waits_for(missing))
    reporting.readiness.detail(_STREAM, "")


def _waits_for(missing: tuple[str, ...]) -> str:
    """By the short names of types: `Address`, `Authorization`."""
    return f"waits for {', '.join(url.rpartition('.')[2] for url in missing)}" if missing else ""
