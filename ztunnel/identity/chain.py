"""Is this certificate chain an SVID of our mesh, and whose? What TLS libraries do not ask.

Neither OpenSSL nor `cryptography.x509.verification` refuses a CA as a leaf, two URI SANs or a NUL in one. So
after every handshake: the rules of `svid` on the leaf, then the path to a root, and only to the roots of the
trust domain that the leaf names. A CA of one trust domain cannot speak for another.

What was proved is remembered by the SHA-256 of what was presented, for as long as every certificate on the
path is valid. The memory belongs to the bundles: other bundles know nothing of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from ztunnel.errors import IdentityMismatch, PeerError
from ztunnel.identity.path import constrains_uris, find_path
from ztunnel.identity.san import MALFORMED
from ztunnel.identity.svid import Usage, check_leaf
from ztunnel.model.identity import SpiffeId

__all__ = ["TrustBundles", "Usage", "expect", "parse_certificates", "verify"]

_ERROR = "identity verification error: "  # as ztunnel begins it, src/tls.rs
_MAX_CHAIN = 10  # certificates presented; the path itself may be 8 deep (cryptography's default)
_MAX_PROVEN = 4096  # entries of some 300 bytes; the oldest goes first


@dataclass(frozen=True, slots=True)
class _Proven:
    identity: SpiffeId
    not_before: datetime
    not_after: datetime


class TrustBundles:
    """The roots of each trust domain, and the memory of what was proved by them.

    Args:
        roots_pem: trust domain -> PEM of one or more root certificates.

    Raises:
        PeerError: a bundle that is not PEM certificates.
    """

    def __init__(self, roots_pem: Mapping[str, str]) -> None:
        self._roots = {domain: parse_certificates(pem) for domain, pem in roots_pem.items()}
        self._stores = {domain: Store(roots) for domain, roots in self._roots.items()}
        self._proven: dict[bytes, _Proven] = {}

    @property
    def trust_domains(self) -> tuple[str, ...]:
        """The trust domains whose members can prove who they are."""
        return tuple(self._stores)

    def recall(self, digest: bytes, now: datetime) -> SpiffeId | None:
        """Whom this digest was proved to be, if that holds at `now`."""
        proven = self._proven.get(digest)
        if proven is None:
            return None
        if proven.not_before <= now <= proven.not_after:
            return proven.identity
        del self._proven[digest]
        return None

    def remember(self, digest: bytes, identity: SpiffeId, path: Sequence[x509.Certificate]) -> None:
        """Keep what was proved while every certificate of `path` is valid."""
        if len(self._proven) >= _MAX_PROVEN:
            del self._proven[next(iter(self._proven))]
        begin = max(certificate.not_valid_before_utc for certificate in path)
        end = min(certificate.not_valid_after_utc for certificate in path)
        self._proven[digest] = _Proven(identity, begin, end)

    def roots_for(self, identity: SpiffeId) -> list[x509.Certificate]:
        """The same as a list."""
        return self._roots[identity.trust_domain]

    def store_for(self, identity: SpiffeId) -> Store:
        """The roots that can vouch for `identity`.

        Raises:
            PeerError: a trust domain without a bundle, in ztunnel's words.
        """
        store = self._stores.get(identity.trust_domain)
        if store is None:
            known = ",".join(self._stores)
            raise PeerError(f"peer did not present the expected trustdomain ({known}), got {identity}")
        return store


def parse_certificates(untrusted_pem: str) -> list[x509.Certificate]:
    """The certificates in a PEM text, in its order, at least one; text between them is skipped.

    Raises:
        PeerError: anything else.
    """
    try:
        return x509.load_pem_x509_certificates(untrusted_pem.encode())
    except MALFORMED as error:
        raise PeerError(f"not a text of PEM certificates: {error}") from error


def verify(untrusted_chain: Sequence[bytes], bundles: TrustBundles, now: datetime, usage: Usage) -> SpiffeId:
    """Whose chain this is.

    Args:
        untrusted_chain: DER certificates, the leaf first, intermediates in any order.
        usage: the role of the peer that presented them.

    Raises:
        IdentityMismatch: it proves nothing that is accepted here; the message tells what is wrong with it.
    """
    digest = _digest(untrusted_chain, usage)
    identity = bundles.recall(digest, now)
    if identity is not None:
        return identity
    try:
        leaf, *intermediates = _load(untrusted_chain)
        identity = check_leaf(leaf, now, usage)
        builder = PolicyBuilder().store(bundles.store_for(identity)).time(now)
        roots = bundles.roots_for(identity)
        with _parsing():
            constrained = constrains_uris(intermediates) or constrains_uris(roots)
        if constrained:
            with _parsing():
                path = find_path([leaf, *intermediates], roots, identity, now, usage)
        else:
            path = _path(builder, usage, leaf, intermediates)
    except PeerError as error:
        raise _mismatch(str(error), usage) from error
    bundles.remember(digest, identity, path)
    return identity


def expect(got: SpiffeId, expected: Collection[SpiffeId], usage: Usage) -> None:
    """Hold the proved identity against the ones that may answer here. None expected: none accepted.

    Raises:
        IdentityMismatch: with ztunnel's text.
    """
    if got not in expected:
        names = ",".join(sorted(map(str, expected)))
        raise _mismatch(f"peer did not present the expected SAN ({names}), got {got}", usage)


def _mismatch(message: str, usage: Usage) -> IdentityMismatch:
    mismatch = IdentityMismatch(_ERROR + message)
    mismatch.side = usage.side
    return mismatch


def _digest(chain: Sequence[bytes], usage: Usage) -> bytes:
    """One digest of all that was presented: an intermediate more or less is another question."""
    running = hashlib.sha256(usage.encode())
    for der in chain:
        running.update(len(der).to_bytes(4, "big"))
        running.update(der)
    return running.digest()


def _load(untrusted_chain: Sequence[bytes]) -> list[x509.Certificate]:
    if not untrusted_chain:
        raise PeerError("the peer presented no certificate")
    if len(untrusted_chain) > _MAX_CHAIN:
        raise PeerError(f"the peer presented {len(untrusted_chain)} certificates; {_MAX_CHAIN} are accepted")
    with _parsing():
        return [x509.load_der_x509_certificate(der) for der in untrusted_chain]


@contextmanager
def _parsing() -> Iterator[None]:
    """Certificates are parsed when their fields are asked for."""
    try:
        yield
    except MALFORMED as error:
        raise PeerError(f"the peer presented a malformed certificate: {error}") from error


def _path(
    builder: PolicyBuilder, usage: Usage, leaf: x509.Certificate, intermediates: list[x509.Certificate]
) -> list[x509.Certificate]:
    """The leaf, then who vouches for whom, up to the root; all valid at the builder's time."""

    def vouches(policy: Policy, authority: x509.Certificate, purposes: x509.ExtendedKeyUsage | None) -> None:
        if purposes is not None and usage.purpose not in purposes:
            raise ValueError(f"a CA on the path may not vouch for a {usage}")

    # The library's server verifier wants a host name, so both roles go through its client verifier, and we
    # check the purpose. The leaf's extensions were checked before; an unknown critical one still fails here.
    leafs = ExtensionPolicy.permit_all().require_present(
        x509.SubjectAlternativeName, Criticality.AGNOSTIC, None
    )
    authorities = ExtensionPolicy.webpki_defaults_ca().may_be_present(
        x509.ExtendedKeyUsage, Criticality.AGNOSTIC, vouches
    )
    verifier = builder.extension_policies(ee_policy=leafs, ca_policy=authorities).build_client_verifier()
    try:
        return verifier.verify(leaf, intermediates).chain
    except VerificationError as error:
        cause = str(error).partition(" (encountered processing")[0]
        raise PeerError(
            f"no path from the peer's certificate to a root of its trust domain: {cause}"
        ) from error
    except MALFORMED as error:
        raise PeerError(f"the peer presented a malformed certificate: {error}") from error
