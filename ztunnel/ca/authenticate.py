"""Finds out who calls the control plane: by a token, or by the certificate of the connection."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Final, Protocol

import trio
from cryptography.hazmat.primitives import serialization

from ztunnel.ca.caller import Caller, Proof, Reason, Refused, code_of
from ztunnel.ca.reviewed import Reviewed
from ztunnel.ca.token import bearer, check_claims, hashed, read_claims, read_review
from ztunnel.errors import IdentityMismatch
from ztunnel.identity.authority import Authority
from ztunnel.identity.chain import TrustBundles, Usage, verify
from ztunnel.identity.standing import StandingAuthority
from ztunnel.kube.call import Api
from ztunnel.kube.failure import ApiFailure
from ztunnel.kube.resource import TOKEN_REVIEWS
from ztunnel.model.address import IPAddress
from ztunnel.rpc.answer import Peer
from ztunnel.rpc.status import RpcError

AUDIENCES: Final = ("istio-ca",)
_REVIEWS: Final = 20  # at a time
_REVIEW_SECONDS: Final = 5.0
_DER = serialization.Encoding.DER


class Tokens(Protocol):
    """Whoever can say who has a token."""

    async def check(self, token: str, source: IPAddress) -> Caller:
        """Who has it. Raises Refused."""


class StaticTokens:
    """Those of a file (`token.read_static_tokens`)."""

    def __init__(self, callers: Mapping[bytes, Caller]) -> None:
        self._callers = callers

    async def check(self, token: str, source: IPAddress) -> Caller:
        """Who has it."""
        await trio.lowlevel.checkpoint()
        caller = self._callers.get(hashed(token))
        if caller is None:
            raise Refused(Reason.BAD_TOKEN, "the token is none of those in the token file")
        return caller


class TokenReviews:
    """Those of service accounts, by the TokenReview API of Kubernetes."""

    def __init__(
        self,
        api: Api,
        trust_domain: str,
        now: Callable[[], datetime],
        audiences: Collection[str] = AUDIENCES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`now` is the wall clock: what tokens say of their end is held against it."""
        self._api = api
        self._trust_domain = trust_domain
        self._audiences = tuple(audiences)
        self._now = now
        self._clock = clock
        self._reviewed = Reviewed(clock())
        self._places = trio.CapacityLimiter(_REVIEWS)
        self._asked: dict[bytes, trio.Event] = {}
        self.reviews = 0
        """How often the API server was asked."""

    async def check(self, token: str, source: IPAddress) -> Caller:
        """Who has it.

        Raises:
            Refused: nobody, or that cannot be found out now.
        """
        await trio.lowlevel.checkpoint()
        claims, wall = read_claims(token), self._now().timestamp()
        check_claims(claims, self._audiences, wall)
        digest = hashed(token)
        while (known := self._reviewed.recall(digest, self._clock())) is None:
            asked = self._asked.get(digest)
            if asked is None:
                left = None if claims.expires is None else claims.expires - wall
                return await self._ask(token, digest, source, left)
            await asked.wait()  # one question for all that come with it meanwhile
        return known

    async def _ask(self, token: str, digest: bytes, source: IPAddress, left: float | None) -> Caller:
        self._reviewed.admit(source, self._clock())
        done = self._asked[digest] = trio.Event()
        try:
            try:
                status = await self._review(token)
            except ApiFailure as failure:
                known = self._reviewed.recall_in_outage(digest, self._clock())
                if known is not None:
                    return known
                text = f"tokens cannot be checked now: {failure}"
                raise Refused(Reason.API_UNAVAILABLE, text) from failure
            try:
                caller = read_review(status, self._audiences, self._trust_domain)
            except Refused as refused:
                self._reviewed.refuse(digest, refused, source, self._clock())
                raise
            self._reviewed.remember(digest, caller, left, self._clock())
            return caller
        finally:
            del self._asked[digest]
            done.set()

    async def _review(self, token: str) -> Mapping[str, object]:
        value = {
            "apiVersion": TOKEN_REVIEWS.api_version,
            "kind": TOKEN_REVIEWS.kind,
            "spec": {"token": token, "audiences": list(self._audiences)},
        }
        with trio.move_on_after(_REVIEW_SECONDS):
            async with self._places:
                self.reviews += 1
                answer = await self._api.create(TOKEN_REVIEWS, value)
            status = answer.get("status")
            return status if isinstance(status, dict) else {}
        raise ApiFailure(f"no answer to a TokenReview within {_REVIEW_SECONDS:.0f} s")


class Authenticator:
    """By the token of the call where it has one, else by the certificate of its connection."""

    def __init__(
        self, authority: StandingAuthority, trust_domain: str, now: Callable[[], datetime], tokens: Tokens
    ) -> None:
        """`authority`: whose certificates are believed."""
        self._authority = authority
        self._trust_domain = trust_domain
        self._now = now
        self._tokens = tokens
        self._bundles: tuple[Authority, TrustBundles] | None = None

    async def __call__(self, metadata: Mapping[str, str], peer: Peer) -> Caller:
        """Who calls.

        Raises:
            Refused: nobody that is known.
        """
        token = bearer(metadata)
        if token:
            return await self._tokens.check(token, peer.address.ip)
        await trio.lowlevel.checkpoint()
        if peer.certificate is None:
            raise Refused(
                Reason.NO_CREDENTIALS,
                "neither a token (metadata 'authorization: Bearer ...') nor a certificate",
            )
        return self._by_certificate(peer.certificate, peer.intermediates)

    async def identify(self, metadata: Mapping[str, str], peer: Peer) -> Caller:
        """The same for a method of gRPC. Raises RpcError."""
        try:
            return await self(metadata, peer)
        except Refused as refused:
            raise RpcError(code_of(refused.reason), str(refused)) from refused

    def _by_certificate(self, leaf: bytes, others: tuple[bytes, ...]) -> Caller:
        authority = self._authority.current
        if authority is None:
            raise Refused(Reason.API_UNAVAILABLE, "the certificate authority has not been read yet")
        if self._bundles is None or self._bundles[0] is not authority:
            self._bundles = authority, TrustBundles({self._trust_domain: authority.roots_pem})
        ours = [one.public_bytes(_DER) for one in authority.presented]  # for who presents its leaf alone
        chain = list(dict.fromkeys([leaf, *others, *ours]))
        try:
            identity = verify(chain, self._bundles[1], self._now(), Usage.CLIENT)
        except IdentityMismatch as error:
            raise Refused(Reason.BAD_CERTIFICATE, str(error)) from error
        return Caller(identity, Proof.CERTIFICATE)
