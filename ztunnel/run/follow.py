"""Follows the world and keeps certificates, from before the kernel is touched: what a node proxy knows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from random import Random, SystemRandom
from typing import Any

import trio

from ztunnel import __version__
from ztunnel.config import Settings
from ztunnel.errors import ConfigError, NoCertificate, PeerError
from ztunnel.identity.rotate import Certificates, CertificateSource
from ztunnel.model.identity import SpiffeId
from ztunnel.pods.announce import Report
from ztunnel.rpc.status import PeerLeft, RpcError
from ztunnel.run.ask import Requests, ask_on_demand, register_on_demand
from ztunnel.run.reporting import STATE, Reporting, now
from ztunnel.run.resolve import Names
from ztunnel.state.hold import Hold
from ztunnel.state.subscribe import subscribe
from ztunnel.state.world import World
from ztunnel.telemetry.component import XdsFigures
from ztunnel.xds.on_demand import OnDemand
from ztunnel.xds.pb import discovery_pb2
from ztunnel.xds.resource import NODE_TYPES, WAYPOINT_TYPES, Resource
from ztunnel.xds.subscriber import (
    ON_DEMAND,
    ROLE,
    WAYPOINT,
    Subscriber,
    Update,
    ask_again,
    describe_node,
)

_RETRY_SECONDS = (0.01, 15.0)
_SHOWN_REASONS = 20
"""Of 100,000 resources that cannot be used, each would be a line."""

_STREAM, _REJECTED, _NAMES = "control plane", "resources rejected", "names"
_NOT_SERVED = "HTTP rules"
_CERTIFICATES_SECONDS = 10.0
"""For the certificates of all pods: whoever has none by then gets none from the predecessor either."""


Ends = tuple[
    Requests,
    trio.MemoryReceiveChannel[discovery_pb2.DeltaDiscoveryResponse],
]
"""A subscriber's ends of a stream."""

Complete = Callable[[Resource], Resource]


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """Where the world and the certificates come from: this process, or istiod."""

    open_session: Callable[[], AbstractAsyncContextManager[Ends]]
    """A new stream, for the block. Raises RpcError or ConfigError where there is none, or it has broken."""
    certificates: CertificateSource
    dump: Callable[[], dict[str, Any]] = dict
    """What it says about the objects that it read, for the admin page."""
    report: Report | None = None
    """Tells it which pods are in the mesh here; None: it is in this process, and writes on none."""


class Knowledge:
    """What a node proxy knows before it does anything.

    Attributes:
        plane: where it comes from.
        types: what is subscribed to.
        received: set once the world has come whole.
        on_demand: addresses that it does not hold by itself; None: it holds all.
    """

    def __init__(self, settings: Settings, plane: ControlPlane, types: Sequence[str] = NODE_TYPES) -> None:
        self.plane = plane
        self.types = types
        self.hold = Hold(World(settings.network))
        rng = Random(SystemRandom().getrandbits(256))  # for the times of renewal, never for keys
        self.certificates = Certificates(plane.certificates, now, rng, settings.secret_ttl_seconds)
        self.received = trio.Event()
        self.on_demand = OnDemand(settings.network) if types is WAYPOINT_TYPES else None
        self._requests: Requests | None = None
        self._node = settings.node
        self._wanted: set[SpiffeId] = set()

    def ask(self, type_url: str, names: Collection[str]) -> None:
        """Have the control plane look for newer ones of these. Where it cannot be asked now, nobody is."""
        if names and self._requests is not None:
            with suppress(trio.WouldBlock, trio.ClosedResourceError, trio.BrokenResourceError):
                self._requests.send_nowait(ask_again(type_url, names))

    async def subscribe(self, subscriber: Subscriber, observe: Callable[[Update], None]) -> None:
        """Over one stream, until that ends. Raises as `open_session` and `subscribe`."""
        async with self.plane.open_session() as (requests, responses):
            self._requests = requests
            try:
                await subscribe(requests, responses, self.hold, subscriber, observe)
            finally:
                if self.on_demand is not None:
                    self.on_demand.disconnect()

    def requests(self) -> Requests | None:
        """The stream of the moment, which may have ended; None: there was none yet."""
        return self._requests

    async def prepare(self) -> None:
        """Return when all is there to serve this node's pods: the world, and a certificate of each, as far as
        they can be had. Certificates are kept until `prepared`."""
        await self.received.wait()
        pods = (each for each in self.hold.world.on_node(self._node) if each.enrolled)
        for identity in {each.identity for each in pods} - self._wanted:
            self._wanted.add(identity)
            self.certificates.want(identity)
        with trio.move_on_after(_CERTIFICATES_SECONDS):
            for identity in tuple(self._wanted):
                with suppress(NoCertificate):
                    await self.certificates.fetch(identity)

    def prepared(self) -> None:
        """Pods keep their own certificates from now on."""
        for identity in self._wanted:
            self.certificates.forget(identity)
        self._wanted.clear()


async def follow(settings: Settings, reporting: Reporting, knowledge: Knowledge) -> None:
    """Keep it current, until cancelled; while there is no control plane it stays as it is."""
    names = Names(knowledge.hold, lambda text: _tell_names(reporting, text))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(knowledge.certificates.run)
        nursery.start_soon(names.run)
        if knowledge.on_demand is not None:
            register_on_demand(reporting.figures, knowledge.on_demand)
            nursery.start_soon(ask_on_demand, knowledge.on_demand, knowledge.requests)
        nursery.start_soon(_follow_world, settings, reporting, knowledge, names)


def _tell_names(reporting: Reporting, text: str) -> None:
    reporting.readiness.detail(_NAMES, text)
    for line in text.splitlines():
        reporting.log.warn("an endpoint's name", error=line)


class _CountedSubscriber(Subscriber):
    """Counts what it is sent, and knows what names mean."""

    def __init__(
        self,
        described: tuple[discovery_pb2.Node, str],
        types: Sequence[str],
        figures: XdsFigures,
        complete: Complete,
        on_demand: OnDemand | None,
    ) -> None:
        super().__init__(*described, types, on_demand)
        self._figures = figures
        self._complete = complete

    def read(self, untrusted: discovery_pb2.DeltaDiscoveryResponse) -> Iterator[Resource | PeerError]:
        """As `Subscriber.read`."""
        for one in super().read(untrusted):
            yield one if isinstance(one, PeerError) else self._complete(one)

    def take(
        self, untrusted: discovery_pb2.DeltaDiscoveryResponse, read: Sequence[Resource | PeerError]
    ) -> Update:
        """As `Subscriber.take`."""
        self._figures.received(untrusted.type_url, untrusted.ByteSize())
        return super().take(untrusted, read)


async def _follow_world(settings: Settings, reporting: Reporting, knowledge: Knowledge, names: Names) -> None:
    figures = XdsFigures(reporting.figures)
    subscriber = subscriber_of(settings, figures, names.complete, knowledge.types, knowledge.on_demand)
    missing = [each for each in knowledge.types if each in subscriber.required]
    least, most = _RETRY_SECONDS
    rng = Random(settings.node)
    pause = least

    def observe(update: Update) -> None:
        nonlocal pause
        pause = least  # it answers: the next stream need not wait
        if update.type_url in missing:
            missing.remove(update.type_url)
        _tell_world(reporting, subscriber, update, missing)
        if subscriber.complete and not knowledge.received.is_set():
            reporting.readiness.done(STATE)
            knowledge.received.set()

    reporting.readiness.detail(STATE, _waits_for(missing))
    while True:
        reason, error = "Complete", "the control plane has closed it"
        try:
            await knowledge.subscribe(subscriber, observe)
        except PeerLeft as failure:
            reason, error = "Reconnect", str(failure)
        except (RpcError, ConfigError) as failure:
            reason, error = "ConnectionError", str(failure)
        except (PeerError, trio.WouldBlock) as failure:
            reason, error = "Error", str(failure) or "too many streams wait for the control plane"
        figures.terminated(reason)
        if reason == "Reconnect":
            reporting.log.info("xDS stream ended", reason=error, retry_seconds=pause)
        else:
            reporting.log.warn("xDS stream ended", error=error, retry_seconds=pause)
            reporting.readiness.detail(_STREAM, f"the stream has ended: {error}")
        await trio.sleep(pause * rng.uniform(0.8, 1.2))  # not all nodes at once
        pause = min(pause * 2, most)


def subscriber_of(
    settings: Settings,
    figures: XdsFigures,
    complete: Complete = lambda one: one,
    types: Sequence[str] = NODE_TYPES,
    on_demand: OnDemand | None = None,
) -> Subscriber:
    """Who we are, to a control plane; `complete` adds to each resource what this node knows besides."""
    name, namespace = settings.pod_name or settings.node, settings.pod_namespace
    described = describe_node(
        f"ztunnel~{settings.instance_ip}~{name}.{namespace}~{namespace}.svc.cluster.local",
        {
            "NAME": name,
            "NAMESPACE": namespace,
            "INSTANCE_IPS": settings.instance_ip,
            "NODE_NAME": settings.node,
            "CLUSTER_ID": settings.cluster,
            "ZTUNNEL_VERSION": __version__,
            **dict(settings.proxy_metadata),
            **({ROLE: WAYPOINT} if types is WAYPOINT_TYPES else {}),
            **({ON_DEMAND: True} if on_demand is not None else {}),
        },
    )
    return _CountedSubscriber((described, settings.network), types, figures, complete, on_demand)


def _tell_world(reporting: Reporting, subscriber: Subscriber, update: Update, missing: Sequence[str]) -> None:
    for reason in update.rejected[:_SHOWN_REASONS]:
        reporting.log.warn("resource rejected", reason=reason)
    rejected = subscriber.rejected
    more = (f"and {len(rejected) - _SHOWN_REASONS} more",) if len(rejected) > _SHOWN_REASONS else ()
    reporting.readiness.detail(_REJECTED, "\n".join((*rejected[:_SHOWN_REASONS], *more)))
    reporting.readiness.detail(STATE, _waits_for(missing))
    reporting.readiness.detail(_STREAM, "")
    reporting.readiness.detail(_NOT_SERVED, _not_served(subscriber))


def _not_served(subscriber: Subscriber) -> str:
    """What another control plane than ours does not have."""
    if not subscriber.complete or not subscriber.unanswered:
        return ""
    names = ", ".join(url.rpartition("/")[2] for url in subscriber.unanswered)
    return f"the control plane does not serve {names}: what they say is not enforced here"


def _waits_for(missing: Sequence[str]) -> str:
    """By the short names of types: `Address`, `Authorization`."""
    return f"waits for {', '.join(url.rpartition('.')[2] for url in missing)}" if missing else ""
