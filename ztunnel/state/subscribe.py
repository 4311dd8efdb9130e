"""Keeps the world what the control plane says it is, over one stream of delta xDS."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import trio

from ztunnel.errors import PeerError
from ztunnel.state.change import Change, merge
from ztunnel.state.delta import apply
from ztunnel.state.hold import Hold
from ztunnel.state.world import World
from ztunnel.xds.pb import discovery_pb2
from ztunnel.xds.resource import ADDRESS, AUTHORIZATION, KINDS, Resource
from ztunnel.xds.subscriber import Subscriber, Update

_READ_AT_ONCE: Final = 25
_APPLIED_AT_ONCE: Final = 50
"""Resources, of which each takes some 35 us to read and 10 to apply: the thread is the engine's, too."""


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
            await _connect(requests, subscriber)
            while True:
                answer = await _take(await responses.receive(), hold, subscriber, observe)
                await requests.send(answer)
        except (trio.BrokenResourceError, trio.EndOfChannel):
            return


async def _connect(
    requests: trio.MemorySendChannel[discovery_pb2.DeltaDiscoveryRequest], subscriber: Subscriber
) -> None:
    for request in subscriber.connect():
        await requests.send(request)


async def _take(
    response: discovery_pb2.DeltaDiscoveryResponse,
    hold: Hold,
    subscriber: Subscriber,
    observe: Callable[[Update], None],
) -> discovery_pb2.DeltaDiscoveryRequest:
    """Bring one response into force; the answer. Nothing of it, and no earlier world, is held while the next
    one is waited for."""
    read = await _read(subscriber, response)
    while True:
        base = hold.world
        world, change = await _prepare(base, response, read)
        if hold.world is base:  # nobody else has published meanwhile
            break
    # From here on without a pause: what the subscriber remembers is what is in force.
    update = subscriber.take(response, read)
    hold.publish(world, change)
    observe(update)
    return update.answer


async def _read(
    subscriber: Subscriber, response: discovery_pb2.DeltaDiscoveryResponse
) -> list[Resource | PeerError]:
    """All resources of a response; others have the thread in between."""
    read = []
    for one in subscriber.read(response):
        read.append(one)
        if len(read) % _READ_AT_ONCE == 0:
            await trio.lowlevel.checkpoint()
    return read


async def _prepare(
    world: World, response: discovery_pb2.DeltaDiscoveryResponse, read: Sequence[Resource | PeerError]
) -> tuple[World, Change]:
    """The world after a response, which nobody sees before it is whole."""
    removals = set(response.removed_resources) - {one.name for one in response.resources}
    url = response.type_url
    policies = removals if url == AUTHORIZATION else ()
    addresses = removals if url == ADDRESS else ()
    http = {KINDS[url]: removals} if url in KINDS else {}
    upserts = [one for one in read if not isinstance(one, PeerError)]
    world, change = apply(world, upserts[:_APPLIED_AT_ONCE], addresses, policies, http)
    changes = [change]
    for begin in range(_APPLIED_AT_ONCE, len(upserts), _APPLIED_AT_ONCE):
        await trio.lowlevel.checkpoint()
        world, change = apply(world, upserts[begin : begin + _APPLIED_AT_ONCE])
        changes.append(change)
    return world, merge(changes)
