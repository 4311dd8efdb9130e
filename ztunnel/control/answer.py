"""Answers `DeltaAggregatedResources` on 15012: a subscriber for each call.

Who calls is asked before anything of the call is read. Every member of the mesh may subscribe, as with
istiod.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Final, Protocol

import trio
from google.protobuf.message import DecodeError

from ztunnel.control.figures import ControlFigures
from ztunnel.control.serve import Requests, Responses, Server
from ztunnel.control.source.report import Log
from ztunnel.rpc.answer import Peer, ServerCall
from ztunnel.rpc.status import Code, RpcError
from ztunnel.xds.encoding import encode
from ztunnel.xds.pb import discovery_pb2
from ztunnel.xds.resource import TYPES

PATH: Final = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"

_FIRST_SECONDS: Final = 15.0
"""For a caller's first request."""

_SEND_SECONDS: Final = 60.0
"""For a subscriber to take one response, of whatever size."""

_REQUEST_BYTES: Final = 16 << 20
"""The largest is that of a node which comes back and names the versions of 100,000 resources, some 10 MiB;
istiod takes 4 MiB."""


class Member(Protocol):
    """Who calls; its text is for the log."""

    @property
    def account(self) -> str:
        """`namespace/name` of its service account."""


Authenticate = Callable[[Mapping[str, str], Peer], Awaitable[Member]]
"""Who calls, by the call's metadata and the connection. Raises RpcError."""


class Discovery:
    """The method. A subscriber that is slow costs one response of each type, and only itself."""

    def __init__(self, server: Server, authenticate: Authenticate, figures: ControlFigures, log: Log) -> None:
        self._server = server
        self._authenticate = authenticate
        self._figures = figures
        self._log = log

    async def stream(self, call: ServerCall) -> None:
        """Serve until the subscriber leaves, does not read, or the connection is to end."""
        member = await self._authenticate(call.metadata, call.peer)
        name = str(member)
        call.take_messages_of(_REQUEST_BYTES)
        try:
            requests, responses = self._server.open_session(name, member.account)
        except trio.WouldBlock as error:
            raise RpcError(Code.UNAVAILABLE, "too many subscribers at once: try again") from error
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._push, call, responses, name)
            nursery.start_soon(_leave, call)
            await self._read(call, requests, name)
            nursery.cancel_scope.cancel()

    async def _read(self, call: ServerCall, requests: Requests, name: str) -> None:
        with requests:
            with trio.move_on_after(_FIRST_SECONDS) as first:
                goes_on = await self._read_one(call, requests, name)
            if first.cancelled_caught:
                raise RpcError(Code.DEADLINE_EXCEEDED, "no request came")
            while goes_on:
                goes_on = await self._read_one(call, requests, name)

    async def _read_one(self, call: ServerCall, requests: Requests, name: str) -> bool:
        """Hand on the next request; whether there was one. Nothing of it is held while the next one is waited
        for: the first one of a node that comes back names the version of each resource."""
        untrusted = await call.receive()
        if untrusted is None:
            return False
        request = _parse(untrusted)
        self._tell(request, name)
        try:
            await requests.send(request)
        except trio.BrokenResourceError as error:
            raise RpcError(Code.INVALID_ARGUMENT, "a request that makes no sense here") from error
        return True

    def _tell(self, untrusted: discovery_pb2.DeltaDiscoveryRequest, name: str) -> None:
        if not untrusted.HasField("error_detail"):
            return
        reason = untrusted.error_detail.message[:2000]
        self._figures.rejected(untrusted.type_url)
        self._log.warn("a node proxy rejected resources", node=name, type=untrusted.type_url, reason=reason)

    async def _push(self, call: ServerCall, responses: Responses, name: str) -> None:
        """Nothing of a response is held while the next one is waited for: the first one has everything, and
        there are as many as there are subscribers."""
        subscribed_at = trio.current_time()
        with responses, suppress(trio.EndOfChannel):
            while True:
                await self._push_one(call, await responses.receive(), name, subscribed_at)

    async def _push_one(
        self,
        call: ServerCall,
        response: discovery_pb2.DeltaDiscoveryResponse,
        name: str,
        subscribed_at: float,
    ) -> None:
        begun = trio.current_time()
        changed_at = self._server.changed_at
        octets = await _encode(response)
        with trio.move_on_after(_SEND_SECONDS) as sending:
            await call.send(octets)
        if sending.cancelled_caught:
            self._figures.left()
            self._log.warn("a node proxy does not read", node=name, seconds=_SEND_SECONDS)
            raise RpcError(Code.DEADLINE_EXCEEDED, "the response was not taken in time")
        ended = trio.current_time()
        delay = ended - changed_at if changed_at > subscribed_at else None
        self._figures.pushed(response.type_url, ended - begun, delay)


async def _leave(call: ServerCall) -> None:
    """The client connects again, to another replica where there is one."""
    await call.leaving.wait()
    raise RpcError(Code.UNAVAILABLE, "the server is leaving: connect again")


async def _encode(response: discovery_pb2.DeltaDiscoveryResponse) -> bytes:
    pieces = []
    for piece in encode(response):
        pieces.append(piece)
        await trio.lowlevel.checkpoint()
    return b"".join(pieces)


def _parse(untrusted: bytes) -> discovery_pb2.DeltaDiscoveryRequest:
    try:
        request = discovery_pb2.DeltaDiscoveryRequest.FromString(untrusted)
    except DecodeError as error:
        raise RpcError(Code.INVALID_ARGUMENT, "not a DeltaDiscoveryRequest") from error
    if request.type_url not in TYPES:
        raise RpcError(Code.INVALID_ARGUMENT, f"no resources of the type {request.type_url[:200]!r}")
    return request
