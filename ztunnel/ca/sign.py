"""Has requests signed: by the authority of this process, or by a signer of the Kubernetes API.

A signer is asked by a CertificateSigningRequest with its name (Kubernetes: certificates.k8s.io/v1). Whoever
may approve it is not us; whoever signs puts the certificate into its status. What comes is held against what
was asked for before a node gets it, as the API server checks nothing of it. The object is taken away again in
any case.

    created --Approved--> approved --status.certificate--> signed
       '------Denied, Failed, nobody within eight seconds------> refused
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import trio
from cryptography.hazmat.primitives import serialization

from ztunnel.drain import closing
from ztunnel.errors import ConfigError, Fault, IdentityMismatch, NoCertificate, PeerError
from ztunnel.identity import csr
from ztunnel.identity.chain import TrustBundles, Usage, expect, parse_certificates, verify
from ztunnel.identity.standing import StandingAuthority
from ztunnel.kube.call import Api
from ztunnel.kube.failure import ApiFailure
from ztunnel.kube.resource import SIGNING_REQUESTS
from ztunnel.model.identity import SpiffeId

_ANSWER_SECONDS: Final = 8.0
"""For approval and signature together: a node waits ten seconds for its certificate."""
_LEAST_SECONDS: Final = 600
"""Kubernetes takes no shorter validity."""
_PAUSES: Final = (0.05, 0.1, 0.2, 0.4, 0.5)
"""Between two looks at the request; the last one from then on."""
_AT_ONCE: Final = 50
_THREADS: Final = 2
"""Threads that sign: an RSA signature of 4096 bits takes 5 ms."""
_USAGES: Final = ("digital signature", "key encipherment", "server auth", "client auth")
"""As istiod asks for (istio/istio security/pkg/k8s/chiron)."""
_GOODBYE_SECONDS: Final = 2.0


class Signer(Protocol):
    """Whoever signs."""

    async def sign(self, csr_pem: str, identity: SpiffeId, ttl_seconds: float) -> list[str]:
        """PEM texts: the leaf, intermediates, and last the bundle of roots.

        Raises:
            PeerError: the request is none, or for somebody else. NoCertificate, ConfigError: it could not be
                had now.
        """


class AuthoritySigner:
    """The authority of this process, in a thread."""

    def __init__(self, authority: StandingAuthority, now: Callable[[], datetime]) -> None:
        self._authority = authority
        self._now = now
        self._threads = trio.CapacityLimiter(_THREADS)

    async def sign(self, csr_pem: str, identity: SpiffeId, ttl_seconds: float) -> list[str]:
        """As `Signer.sign`."""
        sign = partial(self._authority.sign, csr_pem, identity, ttl_seconds, self._now())
        return await trio.to_thread.run_sync(sign, limiter=self._threads)


class KubernetesSigner:
    """A signer of the Kubernetes API."""

    def __init__(
        self,
        api: Api,
        signer_name: str,
        roots: Callable[[], str],
        now: Callable[[], datetime],
        new_name: Callable[[], str],
    ) -> None:
        """`roots` gives the roots of what the signer signs, as PEM; it raises ConfigError where they cannot
        be read. `new_name` gives a name for a new object that nobody has had."""
        self._api = api
        self._signer_name = signer_name
        self._roots = roots
        self._now = now
        self._new_name = new_name
        self._limit = trio.CapacityLimiter(_AT_ONCE)

    async def sign(self, csr_pem: str, identity: SpiffeId, ttl_seconds: float) -> list[str]:
        """As `Signer.sign`."""
        asked = csr.parse(csr_pem)
        if asked.identity != identity:
            raise PeerError(f"the signing request is for {asked.identity}, the requester is {identity}")
        roots = self._roots()
        async with self._limit:
            try:
                pem = await self._request(csr_pem, identity, ttl_seconds)
            except ApiFailure as failure:
                raise NoCertificate(f"{self._who} cannot be asked: {failure}") from failure
        return self._accept(pem, asked, roots)

    @property
    def _who(self) -> str:
        return f"the signer {self._signer_name}"

    async def _request(self, csr_pem: str, identity: SpiffeId, ttl_seconds: float) -> str:
        name = self._new_name()
        await self._api.create(SIGNING_REQUESTS, self._object(name, csr_pem, identity, ttl_seconds))
        try:
            with trio.move_on_after(_ANSWER_SECONDS):
                return await self._wait(name)
            raise NoCertificate(await self._late(name))
        finally:
            with closing(_GOODBYE_SECONDS):
                await self._forget(name)

    def _object(self, name: str, csr_pem: str, identity: SpiffeId, ttl_seconds: float) -> dict[str, Any]:
        return {
            "apiVersion": SIGNING_REQUESTS.api_version,
            "kind": SIGNING_REQUESTS.kind,
            "metadata": {"name": name, "annotations": {"ztunnel.io/identity": str(identity)}},
            "spec": {
                "request": b64encode(csr_pem.encode()).decode(),
                "signerName": self._signer_name,
                "expirationSeconds": max(int(ttl_seconds), _LEAST_SECONDS),
                "usages": list(_USAGES),
            },
        }

    async def _wait(self, name: str) -> str:
        """The certificate, once it is there. Raises NoCertificate: it will not be."""
        number = 0
        while True:
            await trio.sleep(_PAUSES[min(number, len(_PAUSES) - 1)])
            number += 1
            status = _mapping((await self._api.get(SIGNING_REQUESTS, name)).get("status"))
            for condition in _conditions(status):
                if condition.get("type") in ("Denied", "Failed"):
                    raise NoCertificate(f"{self._who}: the request {_described(condition)}")
            if pem := status.get("certificate"):
                return _decode(pem)

    async def _late(self, name: str) -> str:
        """Who has not done his part."""
        try:
            status = _mapping((await self._api.get(SIGNING_REQUESTS, name)).get("status"))
        except ApiFailure as failure:
            return f"{self._who} has not answered within {_ANSWER_SECONDS:.0f} s: {failure}"
        if any(one.get("type") == "Approved" for one in _conditions(status)):
            return (
                f"{self._who} has not signed within {_ANSWER_SECONDS:.0f} s what was approved: does it run?"
            )
        return (
            f"{self._who}: nobody has approved the request within {_ANSWER_SECONDS:.0f} s; it needs a "
            "controller that approves CertificateSigningRequests of this signer"
        )

    async def _forget(self, name: str) -> None:
        try:
            await self._api.delete(SIGNING_REQUESTS, name)
        except ApiFailure:
            return  # the API server forgets it by itself, after an hour or a day

    def _accept(self, untrusted_pem: str, asked: csr.Asked, roots_pem: str) -> list[str]:
        """Hold what was signed against what was asked for, as every peer would."""
        identity = asked.identity
        try:
            leaf, *others = parse_certificates(untrusted_pem)
            if leaf.public_key() != asked.public_key:
                raise PeerError("it is for another key")
            chain = [leaf, *(one for one in others if one.subject != one.issuer)]
            octets = [one.public_bytes(serialization.Encoding.DER) for one in chain]
            bundles = TrustBundles({identity.trust_domain: roots_pem})
            for usage in Usage:
                expect(verify(octets, bundles, self._now(), usage), (identity,), usage)
        except (PeerError, IdentityMismatch, ValueError) as error:
            raise NoCertificate(f"what {self._who} has signed is of no use: {error}") from error
        return [*(one.public_bytes(serialization.Encoding.PEM).decode() for one in chain), roots_pem]


def roots_of(setting: str) -> Callable[[], str]:
    """The roots that `ZTUNNEL_SIGNER_ROOT` names, a path or PEM certificates, read whenever they are asked
    for; raises ConfigError where there are none."""

    def read() -> str:
        try:
            text = setting if "-----BEGIN" in setting else Path(setting).read_text()
            parse_certificates(text)
        except (OSError, UnicodeDecodeError, PeerError) as error:
            message = f"no root certificates of the signer: {error}"
            raise ConfigError(Fault("environment", 0, "ZTUNNEL_SIGNER_ROOT", message)) from error
        return text

    return read


def _conditions(status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = status.get("conditions")
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _described(condition: Mapping[str, Any]) -> str:
    """`was denied (PolicyViolation: this account may not)`."""
    why = ": ".join(str(condition[name])[:500] for name in ("reason", "message") if condition.get(name))
    what = "was denied" if condition["type"] == "Denied" else "has failed"
    return f"{what} ({why})" if why else what


def _decode(untrusted: object) -> str:
    try:
        return b64decode(str(untrusted), validate=True).decode("ascii")
    except ValueError as error:
        raise NoCertificate(f"the certificate in the status is no base64 of PEM: {error}") from error


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
