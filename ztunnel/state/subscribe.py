"""Keeps the world what the control plane says it is, over one stream of delta xDS."""

from __future__ import annotations

from collections.abc import Callable

import trio

from ztunnel.state.delta import apply
from ztunnel.state.hold import Hold
from ztunnel.xds.pb import discovery_pb2
from ztunnel.xds.resource import AUTHORIZATION
from ztunnel.xds.subscriber import Subscriber, Update


def _ignore(update: Update) -> None:
    """The default observer."""


async def subscribe(
    requests: trio.MemorySendChannel[discovery_pb2.DeltaDiscoveryRequest],
    responses: trio.MemoryReceiveChannel[discovery_pb2.DeltaDiscoveryResponse],
    hold: Hold,
    subscriber: Subscriber,
    observe: Callable[[Update], None] = _ignore,
) -> None:
    """Apply every response to `hold`, and answer it when all that it voids is void; until the stream ends.

    Takes over both channels. Returns when the other side is gone: the world stays as it is, and the caller
    calls again with new channels and the same `subscriber`, which asks for what differs. A cancellation
    leaves the world between two responses, never inside one.

    Args:
        subscriber: remembers over streams what is in force; `complete` is for readiness.
        observe: called with each update after it came into force; for metrics and for what was refused.

    Raises:
        PeerError: the control plane sent something that is no answer to what was asked; the stream has ended.
    """
    async with requests, responses:
        try:
            for request in subscriber.connect():
                await requests.send(request)
            async for response in responses:
                update = subscriber.receive(response)
                policies = update.removals if update.type_url == AUTHORIZATION else ()
                addresses = () if update.type_url == AUTHORIZATION else update.removals
                hold.publish(*apply(hold.world, update.upserts, addresses, policies))
                observe(update)
                await requests.send(update.answer)
        except trio.BrokenResourceError:
            return
