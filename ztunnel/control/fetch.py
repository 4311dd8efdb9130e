"""A node proxy's world and certificates from a control plane over the network, and what it tells there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import trio
from google.protobuf.message import DecodeError

from ztunnel.control.connect import Upstream
from ztunnel.errors import NoCertificate, PeerError
from ztunnel.model.identity import SpiffeId
from ztunnel.rpc.call import Call
from ztunnel.rpc.group import ungrouped
from ztunnel.rpc.limits import CLIENT, Limits
from ztunnel.rpc.status import Code, RpcError
from ztunnel.xds.enrolment import PATH as ENROLMENT
from ztunnel.xds.enrolment import EnrolledPod, render_pods
from ztunnel.xds.pb import citadel_pb2, discovery_pb2

if TYPE_CHECKING:
    from ztunnel.control.serve import Requests, Responses

DISCOVERY: Final = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
CERTIFICATES: Final = "/istio.v1.auth.IstioCertificateService/CreateCertificate"

_CALL_SECONDS: Final = 10.0
_AGAIN_SECONDS: Final = (0.05, 0.2, 0.5)
_UNDER_WAY: Final = 4
_TOO_MANY_PINGS: Final = "too_many_pings"
"""What gRPC's servers say in a GOAWAY to whoever asks too often whether they are there (gRFC A8)."""
_MOST_PING_SECONDS: Final = 3600.0


class NetworkSessions:
    """Streams of delta xDS, each on a connection of its own.

    Attributes:
        limits: of the next one. A server that finds that it is asked too often whether it is there, as an
            istiod with a large `--keepaliveInterval`, is asked half as often from then on, as by gRPC's
            clients.
    """

    def __init__(self, upstream: Upstream, limits: Limits = CLIENT) -> None:
        self._upstream = upstream
        self.limits = limits

    @asynccontextmanager
    async def open(self) -> AsyncIterator[tuple[Requests, Responses]]:
        """A new stream for the block: ends to send requests and to receive responses, which end when the
        server ends the stream with OK.

        Raises:
            ConfigError: token or roots cannot be read. RpcError: the stream cannot be had, or has broken.
            PeerError: what came is no response.
        """
        try:
            async with self._open() as ends:
                yield ends
        except RpcError as error:
            if _TOO_MANY_PINGS in error.message:
                seconds = min(self.limits.ping_seconds * 2, _MOST_PING_SECONDS)
                self.limits = replace(self.limits, ping_seconds=seconds)
            raise

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[tuple[Requests, Responses]]:
        metadata = await self._upstream.credentials()
        with ungrouped():
            async with (
                self._upstream.open(self.limits) as channel,
                channel.stream(DISCOVERY, metadata) as call,
            ):
                send_request, requests = trio.open_memory_channel[discovery_pb2.DeltaDiscoveryRequest](
                    _UNDER_WAY
                )
                send_response, responses = trio.open_memory_channel[discovery_pb2.DeltaDiscoveryResponse](0)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_send, call, requests)
                    nursery.start_soon(_receive, call, send_response)
                    yield send_request, responses
                    nursery.cancel_scope.cancel()


async def _send(call: Call, requests: trio.MemoryReceiveChannel[discovery_pb2.DeltaDiscoveryRequest]) -> None:
    with suppress(trio.EndOfChannel):
        while True:
            await call.send((await requests.receive()).SerializeToString())
    await call.end()


async def _receive(
    call: Call, responses: trio.MemorySendChannel[discovery_pb2.DeltaDiscoveryResponse]
) -> None:
    """Until the stream ends. Nothing of a response is held while the next one is waited for."""
    with responses:
        while await _receive_one(call, responses):
            pass


async def _receive_one(
    call: Call, responses: trio.MemorySendChannel[discovery_pb2.DeltaDiscoveryResponse]
) -> bool:
    untrusted = await call.receive()
    if untrusted is None:
        return False
    try:
        response = discovery_pb2.DeltaDiscoveryResponse.FromString(untrusted)
    except DecodeError as error:
        raise PeerError("the control plane sent something that is no DeltaDiscoveryResponse") from error
    await responses.send(response)
    return True


class NetworkCertificates:
    """A source of certificates (`identity.rotate.CertificateSource`)."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    async def create(self, csr_pem: str, identity: SpiffeId, ttl_seconds: float) -> Sequence[str]:
        """Have a request signed; the leaf first, the bundle of roots last.

        Raises:
            ConfigError: token or roots cannot be read.
            NoCertificate: the CA refuses, or does not answer: it is asked again later.
            PeerError: the CA takes the request for none, or its answer is none.
        """
        request = citadel_pb2.IstioCertificateRequest(csr=csr_pem, validity_duration=int(ttl_seconds))
        request.metadata["ImpersonatedIdentity"] = str(identity)
        try:
            untrusted = await self._call(request.SerializeToString())
        except RpcError as error:
            if error.code is Code.INVALID_ARGUMENT:
                raise PeerError(f"the CA at {self._upstream.address}: {error}") from error
            raise NoCertificate(f"the CA at {self._upstream.address}: {error}") from error
        try:
            return list(citadel_pb2.IstioCertificateResponse.FromString(untrusted).cert_chain)
        except DecodeError as error:
            raise PeerError("the CA's answer is no IstioCertificateResponse") from error

    async def _call(self, request: bytes) -> bytes:
        """One that is not there is asked again at once, as another replica may answer: connections wait for
        the certificate, and fail if there is none."""
        pauses = iter(_AGAIN_SECONDS)
        while True:
            metadata = await self._upstream.credentials()
            try:
                async with self._upstream.open() as channel:
                    return await channel.unary(CERTIFICATES, request, metadata, _CALL_SECONDS)
            except RpcError as error:
                pause = next(pauses, None)
                if error.code is not Code.UNAVAILABLE or pause is None:
                    raise
                await trio.sleep(pause)


class NetworkReports:
    """Tells a control plane which pods are in the mesh here."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    async def send(self, pods: Iterable[EnrolledPod]) -> None:
        """These, and no others. Raises RpcError; ConfigError: token or roots cannot be read."""
        metadata = await self._upstream.credentials()
        with ungrouped():
            async with self._upstream.open() as channel:
                await channel.unary(ENROLMENT, render_pods(pods), metadata, _CALL_SECONDS)
