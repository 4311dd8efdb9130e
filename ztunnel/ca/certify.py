"""Answers requests for certificates: `istio.v1.auth.IstioCertificateService/CreateCertificate`.

Follows istio/istio security/pkg/server/ca/server.go. Each refusal tells its cause to the caller, too: what is
said is what the caller could find out by itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Final, NamedTuple, Protocol

import trio
from google.protobuf.message import DecodeError

from ztunnel.ca.caller import Caller, Reason, Refused, code_of
from ztunnel.ca.issuance import Issuance
from ztunnel.ca.node_authorizer import NodeAuthorizer
from ztunnel.ca.sign import AuthoritySigner, Signer
from ztunnel.errors import ConfigError, NoCertificate, PeerError
from ztunnel.flow.rate import Bucket, Rate, Recent
from ztunnel.identity.standing import StandingAuthority
from ztunnel.model.identity import SpiffeId, parse_spiffe_id
from ztunnel.rpc.answer import Peer
from ztunnel.rpc.status import RpcError
from ztunnel.xds.pb.citadel_pb2 import IstioCertificateRequest, IstioCertificateResponse

PATH: Final = "/istio.v1.auth.IstioCertificateService/CreateCertificate"
IMPERSONATED: Final = "ImpersonatedIdentity"

_DEFAULT_SECONDS: Final = 86_400.0  # istiod: DEFAULT_WORKLOAD_CERT_TTL
_MOST_SECONDS: Final = 90 * 86_400.0  # istiod: MAX_WORKLOAD_CERT_TTL
_LEAST_SECONDS: Final = 1.0
_MOST_BYTES: Final = 64 * 1024
"""Of a request; ours has 700. Beyond, it is not even taken apart."""
RATE: Final = Rate(1000, 20, 1000)
"""Certificates for one caller: a node that starts asks for those of all its pods."""
_CALLERS: Final = 10_000
_SEND_SECONDS: Final = 10.0

Authenticate = Callable[[Mapping[str, str], Peer], Awaitable[Caller]]


class Call(Protocol):
    """The part of `rpc.answer.ServerCall` that is needed."""

    metadata: Mapping[str, str]
    peer: Peer

    async def receive(self) -> bytes | None: ...

    async def send(self, message: bytes) -> None: ...


class Validity(NamedTuple):
    """For how long certificates are issued, in seconds: where nothing is asked for, and at the most."""

    default_seconds: float = _DEFAULT_SECONDS
    most_seconds: float = _MOST_SECONDS


class CertificateService:
    """Has signed what its callers may have.

    Attributes:
        signer: who signs; the authority at first.
    """

    def __init__(
        self,
        authority: StandingAuthority,
        authenticate: Authenticate,
        authorizer: NodeAuthorizer,
        issuance: Issuance,
        now: Callable[[], datetime],
    ) -> None:
        self.signer: Signer = AuthoritySigner(authority, now)
        self._authenticate = authenticate
        self._authorizer = authorizer
        self._issuance = issuance
        self._buckets: Recent[tuple[str, str, str], Bucket] = Recent(
            _CALLERS, lambda: Bucket(self.rate, trio.current_time())
        )
        self.validity = Validity()
        self.rate = RATE

    async def create_certificate(self, call: Call) -> None:
        """Handle one call. Raises RpcError for every refusal."""
        source = str(call.peer.address.ip)
        self._issuance.asked()
        caller: Caller | None = None
        identity: SpiffeId | None = None
        try:
            caller = await self._authenticate(call.metadata, call.peer)
            self._admit(caller)
            request = _parse(await _first(call))
            identity = _wanted(request, caller)
            self._authorizer.authorize(caller, identity)
            chain = await self._sign(request, identity)
        except Refused as refused:
            self._issuance.refused(refused, source, caller, identity, trio.current_time())
            raise RpcError(code_of(refused.reason), str(refused)) from refused
        self._issuance.issued(caller, identity)
        with trio.move_on_after(_SEND_SECONDS):
            await call.send(IstioCertificateResponse(cert_chain=chain).SerializeToString())

    def _admit(self, caller: Caller) -> None:
        bucket = self._buckets.of((caller.account, caller.pod_uid, caller.node))
        if bucket.level(trio.current_time()) < 1:
            raise Refused(
                Reason.TOO_MANY,
                f"{caller} asks for more than {self.rate.per_second:.0f} certificates a second",
            )
        bucket.take(1, trio.current_time())

    async def _sign(self, request: IstioCertificateRequest, identity: SpiffeId) -> list[str]:
        asked = float(request.validity_duration)
        seconds = min(max(asked, _LEAST_SECONDS), self.validity.most_seconds) if asked > 0 else 0.0
        seconds = seconds or self.validity.default_seconds
        try:
            return await self.signer.sign(request.csr, identity, seconds)
        except PeerError as error:
            raise Refused(Reason.BAD_REQUEST, str(error)) from error
        except (ConfigError, NoCertificate) as error:
            raise Refused(Reason.SIGNING_FAILED, f"nothing can be signed now: {error}") from error


async def _first(call: Call) -> bytes | None:
    with trio.move_on_after(_SEND_SECONDS):
        return await call.receive()
    raise Refused(Reason.BAD_REQUEST, f"no request within {_SEND_SECONDS:.0f} s")


def _parse(untrusted: bytes | None) -> IstioCertificateRequest:
    if untrusted is None:
        raise Refused(Reason.BAD_REQUEST, "a call without a request")
    if len(untrusted) > _MOST_BYTES:
        raise Refused(Reason.BAD_REQUEST, f"a request of {len(untrusted)} bytes; {_MOST_BYTES} are accepted")
    try:
        return IstioCertificateRequest.FromString(untrusted)
    except DecodeError as error:
        raise Refused(Reason.BAD_REQUEST, "the request is no IstioCertificateRequest") from error


def _wanted(request: IstioCertificateRequest, caller: Caller) -> SpiffeId:
    """For whom the certificate is to be."""
    fields = request.metadata.fields
    if IMPERSONATED not in fields:  # reading it would add it
        return caller.identity
    value = fields[IMPERSONATED]
    if value.WhichOneof("kind") != "string_value":
        raise Refused(Reason.BAD_REQUEST, f"the metadata {IMPERSONATED} is no text")
    if not value.string_value:
        return caller.identity
    try:
        return parse_spiffe_id(value.string_value)
    except PeerError as error:
        raise Refused(Reason.BAD_REQUEST, f"the metadata {IMPERSONATED}: {error}") from error
