"""What a certificate authority answered, held against what it was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from ztunnel.errors import PeerError
from ztunnel.identity.chain import TrustBundles, Usage, expect, parse_certificates, verify
from ztunnel.identity.csr import Request
from ztunnel.identity.san import MALFORMED
from ztunnel.model.identity import SpiffeId

_MAX_ELEMENTS = 10


@dataclass(frozen=True, slots=True)
class Issued:
    """A key with its certificate, proved to be what was asked for. Its PEM texts are written anew by us."""

    identity: SpiffeId
    key_pem: str = field(repr=False)
    chain_pem: str
    """The leaf, then its intermediates."""
    roots_pem: str
    bundles: TrustBundles
    """The same roots, bound to the identity's own trust domain."""
    serial: int
    not_before: datetime
    not_after: datetime


def accept(untrusted: Sequence[str], identity: SpiffeId, request: Request, now: datetime) -> Issued:
    """Take an answer of the form that Istio's certificate service gives.

    Args:
        untrusted: PEM texts: the leaf, intermediates, and last the roots, one or several in one text. istiod
            gives each of several roots as a text of its own: what is self-signed before the last text is a
            root as well (istio/istio#47427).
        request: what the answer answers; its key must be the leaf's.

    Raises:
        PeerError: an answer of another form, or for another key.
        IdentityMismatch: the leaf is for somebody else, not valid now, or not vouched for by the roots that
            came with it: what every peer would refuse, so it is refused here.
    """
    if not 2 <= len(untrusted) <= _MAX_ELEMENTS:
        raise PeerError(
            f"the CA answered with {len(untrusted)} texts; a leaf, intermediates and roots are 2 to 10"
        )
    leaf, *others = (certificate for pem in untrusted[:-1] for certificate in parse_certificates(pem))
    further = [one for one in others if _is_root(one)]
    chain = [leaf, *(one for one in others if one not in further)]
    roots_pem = _render(list(dict.fromkeys([*further, *parse_certificates(untrusted[-1])])))
    bundles = TrustBundles({identity.trust_domain: roots_pem})
    if not _same_key(leaf, request):
        raise PeerError(f"the CA answered with a certificate for another key than the one of {identity}")
    chain_der = [certificate.public_bytes(serialization.Encoding.DER) for certificate in chain]
    for usage in Usage:
        expect(verify(chain_der, bundles, now, usage), (identity,), usage)
    return Issued(
        identity=identity,
        key_pem=request.key_pem,
        chain_pem=_render(chain),
        roots_pem=roots_pem,
        bundles=bundles,
        serial=leaf.serial_number,
        not_before=leaf.not_valid_before_utc,
        not_after=leaf.not_valid_after_utc,
    )


def _is_root(certificate: x509.Certificate) -> bool:
    return certificate.subject == certificate.issuer and bool(len(certificate.subject))


def _render(certificates: Sequence[x509.Certificate]) -> str:
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates).decode()


def _same_key(leaf: x509.Certificate, request: Request) -> bool:
    ours = serialization.load_pem_private_key(request.key_pem.encode(), None).public_key()
    try:
        return leaf.public_key() == ours
    except MALFORMED as error:
        raise PeerError(f"the CA answered with a certificate whose key cannot be read: {error}") from error
